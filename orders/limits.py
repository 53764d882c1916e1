"""How often and how long we try. Seconds unless the name says otherwise."""

from __future__ import annotations

import random

#: Answers that were a refusal before an order is given up and a person is called, unless the order says otherwise.
RETRY_ATTEMPTS = 3
RETRY_DELAY_SECONDS = 5
#: After a broker accepted an order and ended it unfilled.
RESUBMIT_DELAY_SECONDS = 1.0
#: How long a worker may be busy with a claimed order before another may take it over.
LEASE_SECONDS = 15
#: Longest one call to a broker takes (2 s to connect, 5 s to answer); nobody starts one the lease may not outlast.
CALL_SECONDS = 7
#: Longest wait between tries to reach a broker that does not answer at all.
UNREACHABLE_CEILING_SECONDS = 30.0
UNKNOWN_RECHECK_SECONDS = 1.0
#: An order in quarantine is looked up so often; nothing is sent for it.
QUARANTINE_RECHECK_SECONDS = 15.0
#: An exit that other orders at the broker stand in the way of: tries while those are being ended, and its pauses.
HELD_ATTEMPTS = 8
HELD_SECONDS = 0.5
HELD_CEILING_SECONDS = 10.0
#: Polls of an order in a row that failed before a person is called.
POLLS_FAILED = 5
#: A change that the broker has not made so long after it was sent is given up; the order works on as it was.
REPLACE_SECONDS = 10.0
#: A cancel that the broker has not confirmed for so long calls a person; it is asked for all the same.
CANCEL_ALERT_SECONDS = 30.0
#: An order whose fate is unknown for this long since it was first sent calls a person; it is looked up all the same.
UNKNOWN_ALERT_SECONDS = 10.0
#: A working order nothing was heard of for this long is asked about.
POLL_AFTER_SECONDS = 5.0
#: A pending order that no worker claimed is rung again after this long.
RING_AGAIN_SECONDS = 2.0
EXIT_SLIPPAGE_BPS = 150


def backoff_seconds(*, tries: int, base: float, ceiling: float = 300.0, spread: random.Random | None = None) -> float:
    """Return the wait before the next try: base x 2^(tries-1) up to the ceiling, times 0.75 to 1.25 of jitter."""
    draw = (spread or random).uniform(0.75, 1.25)
    return float(min(base * 2 ** max(0, tries - 1), ceiling) * draw)
