"""Owns what the demonstration plays: three market days, and the positions that meet them. Declarations only.

One symbol is held on one side at a time: a broker nets what an account holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

Word = Literal["long", "short"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One position to be opened at the eve's close, and how it is to be left."""

    symbol: str
    side: Word
    quantity: Decimal
    plan: Mapping[str, Any]  #: as the API takes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One market day: entered at the close of the eve, replayed from open to close."""

    name: str  #: the strategy its positions carry
    title: str
    eve: str
    session: str
    trades: tuple[Trade, ...]

    @property
    def symbols(self) -> list[str]:
        """Return the symbols that are traded, sorted."""
        return sorted({trade.symbol for trade in self.trades})


def _trade(symbol: str, side: Word, quantity: int, plan: Mapping[str, Any]) -> Trade:
    return Trade(symbol=symbol, side=side, quantity=Decimal(quantity), plan=plan)


def _plan(stop: Mapping[str, str], *rungs: Mapping[str, str]) -> dict[str, Any]:
    return {"stop_loss": dict(stop), "take_profits": [dict(rung) for rung in rungs]}


SCENES = (
    Scene(
        name="apple-warning",
        title="Apple warns after the close, and opens at half its price",
        eve="2000-09-28",
        session="2000-09-29",
        trades=(
            _trade("AAPL", "long", 200, _plan({"pct": "2"}, {"pct": "4"})),
            _trade("AAPL", "long", 150, _plan({"price": "50.00"}, {"rr": "2"})),
            _trade("AAPL", "long", 120, _plan({"pct": "10"}, {"pct": "5", "fraction_pct": "50"}, {"pct": "10"})),
            _trade("AAPL", "long", 40, _plan({"price": "20.00"})),
            _trade("IBM", "short", 120, _plan({"pct": "3"}, {"pct": "1", "fraction_pct": "50"}, {"pct": "2.5"})),
            _trade("IBM", "short", 80, _plan({"pct": "1"}, {"pct": "5"})),
            _trade("IBM", "short", 100, _plan({"pct": "2"}, {"rr": "1.5"})),
            _trade("MSFT", "long", 160, _plan({"pct": "1"}, {"pct": "2"})),
            _trade("MSFT", "long", 140, _plan({"distance": "2.00"}, {"rr": "1.5"})),
            _trade("MSFT", "long", 90, _plan({"price": "58.00"}, {"price": "65.00"})),
        ),
    ),
    Scene(
        name="bailout-vote",
        title="The House votes the bailout down",
        eve="2008-09-26",
        session="2008-09-29",
        trades=(
            _trade("AAPL", "long", 100, _plan({"pct": "5"}, {"pct": "5"})),
            _trade("AAPL", "long", 90, _plan({"price": "110.00"}, {"rr": "2"})),
            _trade("AAPL", "long", 60, _plan({"pct": "20"})),
            _trade(
                "GOOG",
                "short",
                40,
                _plan(
                    {"pct": "4"},
                    {"pct": "2", "fraction_pct": "50"},
                    {"pct": "2.5", "fraction_pct": "50"},  # the open jumps over both
                    {"pct": "6", "fraction_pct": "50"},
                    {"pct": "11"},
                ),
            ),
            _trade("GOOG", "short", 30, _plan({"pct": "4"}, {"rr": "2"})),
            _trade("GOOG", "short", 20, _plan({"price": "445.00"}, {"price": "370.00"})),
            _trade("IBM", "long", 110, _plan({"pct": "1"}, {"pct": "2"})),
            _trade("IBM", "long", 100, _plan({"distance": "6.00"}, {"rr": "1.5"})),
            _trade("IBM", "long", 70, _plan({"pct": "10"})),
            _trade("MSFT", "long", 300, _plan({"pct": "3"}, {"pct": "0.8"})),
            _trade("MSFT", "long", 250, _plan({"pct": "5"}, {"pct": "0.5", "fraction_pct": "40"}, {"pct": "3"})),
        ),
    ),
    Scene(
        name="flash-crash",
        title="The flash crash",
        eve="2010-05-05",
        session="2010-05-06",
        trades=(
            _trade(
                "AAPL",
                "short",
                60,
                _plan(
                    {"pct": "3"},
                    {"pct": "5", "fraction_pct": "33"},
                    {"pct": "10", "fraction_pct": "50"},
                    {"pct": "20"},
                ),
            ),
            _trade("AAPL", "short", 50, _plan({"pct": "4"}, {"rr": "3"})),
            _trade("GOOG", "long", 40, _plan({"pct": "3"}, {"pct": "1.2", "fraction_pct": "50"}, {"pct": "4"})),
            _trade("GOOG", "long", 30, _plan({"price": "470.00"}, {"rr": "1"})),
            _trade("GOOG", "long", 20, _plan({"pct": "12"})),
            _trade("IBM", "long", 120, _plan({"pct": "2"}, {"pct": "4"})),
            _trade("IBM", "long", 100, _plan({"price": "120.00"}, {"price": "130.00"})),
            _trade("IBM", "long", 60, _plan({"pct": "15"})),
            _trade("MSFT", "short", 250, _plan({"pct": "2"}, {"pct": "2", "fraction_pct": "50"}, {"rr": "2.5"})),
            _trade("MSFT", "short", 200, _plan({"pct": "3"}, {"pct": "12"})),
        ),
    ),
)
