"""What every broker adapter must prove, whatever its venue: cases against the protocol only.

A test module of an adapter takes all cases by `from tests.brokers.conformance import *` and gives two fixtures:

- `make_broker`: a `MakeBroker`, which returns a fresh adapter of the venue's account;
- `venue`: a `Venue`, which moves the venue's prices, breaks it on request and reads its whole truth. It is flat, has
  no open orders and no faults at the start of each case.

A case that needs what a venue cannot do says so (`Desk.need`, `require_order_type`, `require`), and skips by capability
or by `Venue.faults`, never by name. The conftest beside it prints what each adapter declares and, capability by
capability, how many cases it passed.
"""

from __future__ import annotations

from tests.brokers.conformance.desk import (  # noqa: F401 - what an adapter's test module needs
    CAPABILITY_TABLE,
    CONFORMANCE,
    SILENCE_SECONDS,
    MakeBroker,
    Venue,
    VenueFault,
    desk,
)
from tests.brokers.conformance.ordering import *  # noqa: F403 - the cases are found by their names
from tests.brokers.conformance.sending import *  # noqa: F403
from tests.brokers.conformance.telling import *  # noqa: F403
