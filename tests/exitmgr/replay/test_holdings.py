"""Reading positions: every mistake is refused with its path, all of them at once."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from exitmgr.replay.errors import InvalidInput
from exitmgr.replay.holdings import read_alternative, read_holdings
from positions.values import Side

D = Decimal
GOOD = {
    "id": "a", "symbol": "AAPL", "side": "long", "qty": "10", "entry_price": 100,
    "opened_at": "2008-09-29T15:30:00+02:00", "plan": {"stop_loss": {"pct": 1}},
}  # fmt: skip


def write(tmp_path, content, name="plan.json"):
    """Write a file, text as it is and anything else as JSON."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refusal(path, read=read_holdings, **options):
    """Return why a file is refused, without its name."""
    with pytest.raises(InvalidInput) as error:
        read(path, **options)
    return str(error.value).removeprefix(f"{path}: ")


def test_a_position_is_read_exactly(tmp_path):
    text = json.dumps({"positions": [GOOD]}).replace('"qty": "10"', '"qty": 0.100000000000000005')
    (held,) = read_holdings(write(tmp_path, text))
    assert (held.id, held.symbol, held.side, held.quantity) == ("a", "AAPL", Side.LONG, D("0.100000000000000005"))
    assert held.opened_at.isoformat() == "2008-09-29T13:30:00+00:00"
    assert held.plan.stop_loss.pct == D(1)


@pytest.mark.parametrize(
    ("_case", "change", "why"),
    [
        ("an unknown key", {"price": 1}, "positions.0.price: is unknown; known here: id, symbol, side, qty, entry_price, opened_at, plan"),
        ("an unknown side", {"side": "buy"}, "positions.0.side: side 'buy' is unknown; use long or short"),
        ("no quantity", {"qty": 0}, "positions.0.qty: must be a number above 0; got 0"),
        ("a quantity that is none", {"qty": "ten"}, "positions.0.qty: must be a number above 0; got 'ten'"),
        ("truth as a price", {"entry_price": True}, "positions.0.entry_price: must be a number above 0; got true"),
        ("a time without offset", {"opened_at": "2008-09-29T13:30:00"}, "positions.0.opened_at: must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z; got '2008-09-29T13:30:00'"),
        ("a time as number", {"opened_at": 5}, "positions.0.opened_at: must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z; got 5"),
        ("no symbol", {"symbol": " "}, "positions.0.symbol: must be a symbol; got ' '"),
        ("no id", {"id": None}, "positions.0.id: must be a text or a whole number; got null"),
        ("a wrong plan", {"plan": {"stop_loss": {"pct": "0"}}}, "positions.0.plan.stop_loss.pct: must be a number above 0 and at most 100; got '0'"),
        ("a plan that is none", {"plan": []}, "positions.0.plan: must be an object with any of stop_loss, take_profits, trailing, break_even, time_limit_seconds, stagnation, session_close, price_source; got a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_path(_case, tmp_path, change, why):
    assert refusal(write(tmp_path, {"positions": [GOOD | change]})) == why


@pytest.mark.parametrize(
    ("_case", "content", "why"),
    [
        ("no JSON", "{", "is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("NaN", '{"positions": [NaN]}', "is not valid JSON: NaN is not a JSON number"),
        ("a key twice", '{"positions": [], "positions": []}', "is not valid JSON: 'positions' is given twice in one object"),
        ("a number out of range", '{"positions": [1e99999999999999999999]}', "is not valid JSON: the number 1e99999999999999999999 is out of range"),
        ("a list", [], 'must be an object {"positions": [...]}; got a list'),
        ("no positions", {"position": []}, 'must be an object {"positions": [...]}; got an object'),
        ("another key", {"positions": [], "plan": {}}, "plan: is unknown; known here: positions"),
        ("an entry that is none", {"positions": [7]}, "positions.0: must be an object with id, symbol, side, qty, entry_price, opened_at, plan; got 7"),
        ("an id twice", {"positions": [GOOD, GOOD]}, "positions.1.id: must be given once; 'a' is positions.0 already"),
        ("everything missing", {"positions": [{}]}, "positions.0.id: is missing; positions.0.symbol: is missing; positions.0.side: is missing; positions.0.qty: is missing; positions.0.entry_price: is missing; and 1 more"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused(_case, tmp_path, content, why):
    assert refusal(write(tmp_path, content)) == why


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "none.json") == "No such file or directory"
    assert refusal(tmp_path) == "Is a directory"


def test_an_alternative_is_one_plan_for_all_or_the_same_positions_in_any_order(tmp_path):
    basis = read_holdings(write(tmp_path, {"positions": [GOOD, GOOD | {"id": 2}]}))
    plan = read_alternative(write(tmp_path, {"trailing": {"pct": 2}}, "b.json"), basis=basis)
    assert [(held.id, held.plan.trailing[0].pct) for held in plan] == [("a", D(2)), (2, D(2))]
    turned = write(tmp_path, {"positions": [GOOD | {"id": 2, "plan": {}}, GOOD]}, "c.json")
    assert [held.id for held in read_alternative(turned, basis=basis)] == ["a", 2]


@pytest.mark.parametrize(
    ("_case", "content", "why"),
    [
        ("another entry price", {"positions": [GOOD | {"entry_price": 101}]}, "positions.0.entry_price: must be as in the first file; only plans may differ"),
        ("a position too many", {"positions": [GOOD, GOOD | {"id": 3}]}, "positions.1.id: is not in the first file; got 3"),
        ("a position missing", {"positions": []}, "the position a of the first file is missing"),
        ("a wrong plan", {"stop_loss": {}}, "stop_loss: must have exactly one of pct, price, distance, atr; got none"),
    ],
)  # fmt: skip
def test_an_alternative_about_something_else_is_refused(_case, tmp_path, content, why):
    basis = read_holdings(write(tmp_path, {"positions": [GOOD]}))
    assert refusal(write(tmp_path, content, "b.json"), read_alternative, basis=basis) == why
