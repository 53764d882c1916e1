"""The fill model, table by table."""

from decimal import Decimal

import pytest

from orders.brokers.simulator.matching import Decision, Quote, average_in, decide
from orders.brokers.simulator.records import Order

BUY, SELL = "buy", "sell"


def working(side: str, kind: str, **prices: str | bool) -> Order:
    """Return an open order with the given prices."""
    fields = {name: Decimal(value) if isinstance(value, str) else value for name, value in prices.items()}
    return Order(
        seq=1,
        id="o1",
        client_order_id="c1",
        symbol="AAPL",
        side=side,
        type=kind,
        time_in_force="day",
        order_class="",
        qty=Decimal(10),
        status="new",
        submitted_at="",
        updated_at="",
        armed=True,
        **fields,
    )


def quoted(bid: str, ask: str) -> Quote:
    return Quote("AAPL", Decimal(bid), Decimal(ask), Decimal(bid), "2026-01-02T15:00:00.000000Z")


@pytest.mark.parametrize(
    ("_case", "order", "bid", "ask", "price"),
    [
        ("a market buy pays the ask", working(BUY, "market"), "99", "101", "101"),
        ("a market sell gets the bid", working(SELL, "market"), "99", "101", "99"),
        ("a buy limit at the ask fills", working(BUY, "limit", limit_price="101"), "99", "101", "101"),
        ("a buy limit a cent below rests", working(BUY, "limit", limit_price="100.99"), "99", "101", None),
        ("a buy limit above gets the better ask", working(BUY, "limit", limit_price="105"), "99", "101", "101"),
        ("a sell limit at the bid fills", working(SELL, "limit", limit_price="99"), "99", "101", "99"),
        ("a sell limit a cent above rests", working(SELL, "limit", limit_price="99.01"), "99", "101", None),
        ("a sell limit below gets the better bid", working(SELL, "limit", limit_price="90"), "99", "101", "99"),
        ("a sell stop above its level rests", working(SELL, "stop", stop_price="98.99"), "99", "101", None),
        ("a sell stop at its level fills at the bid", working(SELL, "stop", stop_price="99"), "99", "101", "99"),
        ("a sell stop gapped through fills lower", working(SELL, "stop", stop_price="50"), "28.19", "28.21", "28.19"),
        ("a sell stop watches the bid, not the ask", working(SELL, "stop", stop_price="100"), "100.01", "102", None),
        ("a buy stop below its level rests", working(BUY, "stop", stop_price="101.01"), "99", "101", None),
        ("a buy stop at its level fills at the ask", working(BUY, "stop", stop_price="101"), "99", "101", "101"),
        ("a buy stop gapped through fills higher", working(BUY, "stop", stop_price="101"), "119", "120", "120"),
        (
            "a stop limit gapped through rests",
            working(SELL, "stop_limit", stop_price="50", limit_price="49"),
            "28",
            "29",
            None,
        ),
        (
            "a stop limit inside its limit fills",
            working(SELL, "stop_limit", stop_price="50", limit_price="49"),
            "49.5",
            "49.6",
            "49.5",
        ),
        (
            "an elected stop limit is a limit",
            working(SELL, "stop_limit", stop_price="50", limit_price="49", elected=True),
            "52",
            "53",
            "52",
        ),
        (
            "a trail not given back rests",
            working(SELL, "trailing_stop", trail_price="2", hwm="100"),
            "98.01",
            "99",
            None,
        ),
        ("a trail given back fills", working(SELL, "trailing_stop", trail_price="2", hwm="100"), "98", "99", "98"),
        (
            "a buy trail given back fills",
            working(BUY, "trailing_stop", trail_percent="2", hwm="100"),
            "101",
            "102",
            "102",
        ),
    ],
)
def test_an_order_executes_at_the_tradable_price(
    _case: str, order: Order, bid: str, ask: str, price: str | None
) -> None:
    assert decide(order, quoted(bid, ask)).price == (None if price is None else Decimal(price))


def test_a_gapped_stop_limit_is_elected_though_it_rests() -> None:
    order = working(SELL, "stop_limit", stop_price="50", limit_price="49")
    assert decide(order, quoted("28", "29")) == Decision(elected=True, hwm=None, stop_price=Decimal(50), price=None)


@pytest.mark.parametrize(
    ("_case", "order", "bid", "ask", "hwm", "stop_price"),
    [
        ("a sell trail starts at the bid", working(SELL, "trailing_stop", trail_price="2"), "100", "101", "100", "98"),
        (
            "it rises with the bid",
            working(SELL, "trailing_stop", trail_price="2", hwm="100"),
            "103",
            "104",
            "103",
            "101",
        ),
        ("it does not fall", working(SELL, "trailing_stop", trail_price="5", hwm="103"), "99", "100", "103", "98"),
        ("by percent", working(SELL, "trailing_stop", trail_percent="1.5", hwm="100"), "200", "201", "200", "197"),
        (
            "a buy trail falls with the ask",
            working(BUY, "trailing_stop", trail_price="2", hwm="100"),
            "89",
            "90",
            "90",
            "92",
        ),
        ("and does not rise", working(BUY, "trailing_stop", trail_price="5", hwm="90"), "91", "92", "90", "95"),
    ],
)
def test_a_trail_follows_the_best_tradable_price(
    _case: str, order: Order, bid: str, ask: str, hwm: str, stop_price: str
) -> None:
    decision = decide(order, quoted(bid, ask))
    assert (decision.hwm, decision.stop_price, decision.elected) == (Decimal(hwm), Decimal(stop_price), False)


@pytest.mark.parametrize(
    ("_case", "held", "at", "traded", "price", "expected"),
    [
        ("opening", "0", "0", "10", "100", ("10", "100")),
        ("adding moves the average", "10", "100", "10", "110", ("20", "105")),
        ("selling keeps it", "20", "105", "-5", "200", ("15", "105")),
        ("flat", "5", "105", "-5", "90", ("0", "0")),
        ("short", "0", "0", "-5", "90", ("-5", "90")),
        ("adding to a short", "-5", "90", "-5", "100", ("-10", "95")),
        ("covering keeps it", "-10", "95", "4", "80", ("-6", "95")),
        ("turning starts anew", "5", "100", "-8", "90", ("-3", "90")),
    ],
)
def test_a_trade_moves_the_average_entry_price(
    _case: str, held: str, at: str, traded: str, price: str, expected: tuple[str, str]
) -> None:
    qty, average = average_in(
        held_qty=Decimal(held), held_price=Decimal(at), traded_qty=Decimal(traded), price=Decimal(price)
    )
    assert (qty, average) == tuple(Decimal(number) for number in expected)
