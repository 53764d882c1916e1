"""What can come back from a broker instead of an answer. Three things; telling them apart is the rule."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum


class RefusalKind(StrEnum):
    """Why a broker said no, as far as it decides what to do next."""

    HELD_QUANTITY = "held_quantity"  # other open orders keep the quantity: end them, then send again
    WASH_TRADE = "wash_trade"  # an opposite order of ours is open: end it, then send again
    BUYING_POWER = "buying_power"
    DAY_TRADING = "day_trading"  # the pattern day trading rule
    NOT_ALLOWED = "not_allowed"  # this account may not do this (short, this asset class)
    PRICE = "price"  # a stop or limit on the wrong side of the market
    MARKET_CLOSED = "market_closed"
    UNKNOWN_SYMBOL = "unknown_symbol"
    NOT_FOUND = "not_found"  # there is no such order
    NOT_CANCELABLE = "not_cancelable"  # the order ended, or another request about it is under way
    RATE_LIMITED = "rate_limited"
    CREDENTIALS = "credentials"
    INVALID = "invalid"  # malformed in the eyes of the broker
    OTHER = "other"  # a refusal, but for a reason we have not met


class BrokerError(Exception):
    """Root of everything an adapter may raise."""


class NotSent(BrokerError):
    """The request was not carried out and may be sent again: no connection, or a read that was turned away.

    `retry_after` is in seconds where the broker named a wait.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class LeaseOver(NotSent):
    """A claimed order waited so long for its turn that another worker may soon claim it; it is left to that one."""


class Refused(BrokerError):
    """The broker said no, provably; nothing exists there under this client order id.

    `code` is the broker's own code, `kind` what it means to us; `retry_after` is in seconds where the broker
    named a wait; `permanent` marks a refusal that the same request will always meet. `available` and
    `related_orders` (broker order ids) come with HELD_QUANTITY and WASH_TRADE where the broker names them.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        kind: RefusalKind = RefusalKind.OTHER,
        retry_after: float | None = None,
        permanent: bool = False,
        available: Decimal | None = None,
        related_orders: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind
        self.retry_after = retry_after
        self.permanent = permanent
        self.available = available
        self.related_orders = tuple(related_orders)


class OutcomeUnknown(BrokerError):
    """The request may or may not have arrived; look it up by client order id before anything else."""


class StillUnknown(OutcomeUnknown):
    """Nothing new left us: the lookup of a former try failed, or came too early to prove its absence."""


class NeverProven(StillUnknown):
    """Not found where not being found proves nothing, as the venue takes the same order twice: only a person, or its
    turning up, settles what became of it."""


class AccountRefused(Refused):
    """The broker no longer accepts this account's credentials; retrying cannot help, a person must act."""
