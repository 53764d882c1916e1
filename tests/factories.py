"""Plain functions that create rows and say what a broker would say. Every argument has a usual value."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction

from exitmgr.entries import enter, register_position
from exitmgr.exits import ExitIntent, make_exits
from exitmgr.models import Bracket
from exitmgr.rules.types import Decision, ExitReason
from orders.brokers.protocol import Execution, OrderReport, OrderSide, ReportedState
from orders.create import closing_side
from orders.models import Intent, Order
from positions.feeds.protocol import Tick
from positions.locks import lock_position
from positions.models import Account, Instrument, Position, Quote
from positions.quotes import write_quotes
from positions.values import Side, TradingState

D = Decimal
#: A port of the loopback interface on which nobody listens.
NOBODY = "http://127.0.0.1:9"
PLAN = {"stop_loss": {"pct": "1"}, "take_profits": [{"pct": "2"}]}
_numbers = itertools.count(1)


def utc_now() -> datetime:
    """Return the time; what is compared with the database's clock cannot be made up."""
    return datetime.now(UTC)


def make_account(
    *, name: str = "", url: str = NOBODY, key: str = "key", secret: str = "secret", **fields: Any
) -> Account:
    """Create an account at the simulated broker."""
    now = utc_now()
    return Account.objects.create(
        name=name or f"paper-{next(_numbers)}",
        broker=fields.pop("broker", "paper"),
        base_url=url,
        credentials={"key": key, "secret": secret},
        trading_state=fields.pop("trading_state", TradingState.ACTIVE),
        created_at=now,
        updated_at=now,
        **fields,
    )


def make_instrument(symbol: str = "AAPL", **fields: Any) -> Instrument:
    """Return the instrument of a symbol."""
    return Instrument.objects.get_or_create(symbol=symbol, defaults=fields)[0]


def push_price(
    bid: str, ask: str = "", *, symbol: str = "AAPL", at: datetime | None = None, received: datetime | None = None
) -> Quote:
    """Write one price as a feed would, without ringing; the ask is a cent above unless it is given."""
    make_instrument(symbol)
    received = received or utc_now()
    tick = Tick(
        symbol=symbol, bid=D(bid), ask=D(ask) if ask else D(bid) + D("0.01"), last=None, source_at=at or received
    )
    outcome = write_quotes(ticks=[tick], source="test", now=received, ring=lambda: None)
    assert outcome.accepted_symbols == {symbol}, outcome
    return Quote.objects.get(instrument__symbol=symbol)


def set_quote(bid: str, ask: str = "", *, symbol: str = "AAPL") -> Quote:
    """Start a symbol anew at a price, as scanned just now: no interval, not dirty, and no collar to pass."""
    instrument = make_instrument(symbol)
    Quote.objects.filter(instrument=instrument).delete()
    quote = push_price(bid, ask, symbol=symbol)
    Quote.objects.filter(instrument=instrument).update(dirty=False, from_seq=quote.seq)
    quote.refresh_from_db()
    return quote


def hold(
    *,
    account: Account | None = None,
    symbol: str = "AAPL",
    side: Side = Side.LONG,
    quantity: str = "10",
    price: str = "100",
    plan: Any = None,
    now: datetime | None = None,
) -> Position:
    """Take a holding under our care; out at 1 % against and 2 % in favour unless a plan is given.

    It is a second old, or with `now` just opened.
    """
    make_instrument(symbol)
    opened_at = now or utc_now() - timedelta(seconds=1)
    now = now or utc_now()
    position, _ = register_position(
        account=account or make_account(),
        symbol=symbol,
        side=side,
        quantity=D(quantity),
        entry_price=D(price),
        opened_at=opened_at,
        now=now,
        actor="test",
        plan=PLAN if plan is None else plan,
    )
    return position


def bracket_of(position: Position) -> Bracket:
    """Return the newest bracket of a position."""
    return Bracket.objects.filter(position=position).latest("pk")


def triggers_of(position: Position) -> dict[str, str]:
    """Return the status of each trigger of a position by its reason."""
    return dict(position.triggers.order_by("pk").values_list("reason", "status"))


def exit_order(
    position: Position,
    *,
    reason: str = ExitReason.STOP_LOSS,
    fraction_pct: str = "100",
    expected: str = "99",
    aged_seconds: int = 5,
    **intent: Any,
) -> Order:
    """Decide one exit as the scan would; it is some seconds old, so that the sweep already looks at it."""
    now = utc_now() - timedelta(seconds=aged_seconds)
    decision = Decision(reason=reason, fraction_pct=D(fraction_pct), trigger_price=None, seen_price=D(expected))
    with transaction.atomic():
        locked = lock_position(position.pk)
        made = make_exits([ExitIntent(position=locked, decision=decision, **intent)], now=now, actor="test")
    return made[0]


def entry_order(
    *, account: Account | None = None, symbol: str = "AAPL", quantity: str = "10", limit: str = "100", **fields: Any
) -> Order:
    """Ask for an entry at a limit price."""
    make_instrument(symbol)
    return enter(
        account=account or make_account(),
        symbol=symbol,
        side=fields.pop("side", Side.LONG),
        quantity=D(quantity),
        limit_price=D(limit),
        request_id=fields.pop("request_id", f"request-{next(_numbers)}"),
        now=utc_now() - timedelta(seconds=5),
        actor="test",
        plan=fields.pop("plan", PLAN),
        allow_duplicate=fields.pop("allow_duplicate", True),
        **fields,
    )


def fill_of(quantity: str, price: str = "99", *, execution_id: str = "", fee: str = "0") -> Execution:
    """Return one execution with an id of its own."""
    return Execution(
        execution_id=execution_id or f"execution-{next(_numbers)}",
        quantity=D(quantity),
        price=D(price),
        fee=D(fee),
        at=utc_now(),
    )


def report_of(
    order: Order,
    state: ReportedState = ReportedState.WORKING,
    *,
    filled: str | None = None,
    executions: Sequence[Execution] = (),
    reason: str = "",
) -> OrderReport:
    """Return what the broker says of an order; it has filled what the executions add up to unless told."""
    total = D(filled) if filled is not None else sum_of(executions)
    return OrderReport(
        client_order_id=order.client_order_id,
        broker_order_id=f"broker-{order.pk}",
        state=state,
        symbol=order.instrument.symbol,
        side=OrderSide(order.side),
        quantity=order.quantity,
        filled_quantity=total,
        average_fill_price=None,
        at=utc_now(),
        executions=tuple(executions),
        reason=reason,
        raw_status=str(state),
    )


def sum_of(executions: Iterable[Execution]) -> Decimal:
    """Return the quantity of some executions."""
    return sum((execution.quantity for execution in executions), D(0))


def read_again(row: Any) -> Any:
    """Return the row as it is stored now."""
    return type(row).objects.get(pk=row.pk)


def raw_order(position: Position, **fields: Any) -> Order:
    """Insert an exit order past every rule but the database's own."""
    number = next(_numbers)
    wanted: dict[str, Any] = {
        "account": position.account,
        "instrument": position.instrument,
        "position": position,
        "intent": Intent.EXIT,
        "reason": "stop_loss",
        "urgency": 10,
        "lane": "stop_loss",
        "side": closing_side(Side(position.side)),
        "quantity": D(1),
        "leg": f"leg-{number}",
        "client_order_id": f"id-{number}",
        "created_at": utc_now(),
    }
    return Order.objects.create(**wanted | fields)
