"""Owns talking to the simulated broker as its master: the market is moved, and its whole truth is read, from here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import requests

SECONDS = 10


class ControlRefused(RuntimeError):
    """The simulator refused a control request; the message is its own."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as the broker's ledger has it."""

    id: str
    order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    at: datetime


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """One order as the broker's ledger has it."""

    id: str
    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    filled_quantity: Decimal
    status: str
    submitted_at: datetime


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything the broker knows; quantities of positions are signed."""

    orders: Sequence[BrokerOrder]
    executions: Sequence[Execution]
    positions: dict[str, Decimal]
    cash: Decimal


class Simulator:
    """The control endpoint of one simulator."""

    def __init__(self, *, url: str, control_token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["X-Control-Token"] = control_token

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one control request and return its answer; numbers come as Decimals.

        :raises ControlRefused: the simulator says what is wrong.
        """
        text = None if body is None else json.dumps(body, default=str)
        answer = self._session.request(method, f"{self._url}/control/{path}", data=text, timeout=SECONDS)
        told = json.loads(answer.text, parse_float=Decimal)
        if not answer.ok:
            raise ControlRefused(f"{method} /control/{path}: {told.get('error', told)}")
        return told

    def close(self) -> None:
        """Let the connections go."""
        self._session.close()

    def quote(self, symbol: str, bid: Decimal | str, ask: Decimal | str) -> None:
        """Make a price."""
        self.call("POST", "quotes", {"quotes": [{"symbol": symbol, "bid": str(bid), "ask": str(ask)}]})

    def prime(self, *, session: str, symbols: Sequence[str]) -> dict[str, tuple[Decimal, Decimal]]:
        """Set the prices to a session's close and return bid and ask by symbol."""
        told = self.call("POST", "replay/prime", {"session": session, "symbols": list(symbols), "at": "close"})
        return {quote["symbol"]: (Decimal(quote["bid"]), Decimal(quote["ask"])) for quote in told["quotes"]}

    def play(self, *, sessions: Sequence[str], symbols: Sequence[str] | None, seconds: float, steps: int) -> None:
        """Begin to replay sessions one after the other, each in so many seconds; of all symbols if none are named."""
        plan = {
            "sessions": list(sessions),
            "symbols": None if symbols is None else list(symbols),
            "seconds_per_session": str(seconds),
            "steps_per_session": steps,
        }
        self.call("POST", "replay", plan)

    def progress(self) -> dict[str, Any]:
        """Return the state of the replay: `state`, `market_time`, `progress` from 0 to 1, `steps` done."""
        told: dict[str, Any] = self.call("GET", "replay")
        return told

    def fault(self, **rule: Any) -> None:
        """Install a fault rule."""
        self.call("POST", "faults", rule)

    def clear_faults(self) -> None:
        """Remove every fault rule."""
        self.call("DELETE", "faults")

    def ledger(self) -> Ledger:
        """Return the broker's whole truth."""
        told = self.call("GET", "ledger")
        return Ledger(
            orders=[
                BrokerOrder(
                    id=order["id"],
                    client_order_id=order["client_order_id"],
                    symbol=order["symbol"],
                    side=order["side"],
                    quantity=Decimal(order["qty"]),
                    filled_quantity=Decimal(order["filled_qty"]),
                    status=order["status"],
                    submitted_at=datetime.fromisoformat(order["submitted_at"]),
                )
                for order in told["orders"]
            ],
            executions=[
                Execution(
                    id=execution["id"],
                    order_id=execution["order_id"],
                    symbol=execution["symbol"],
                    side=execution["side"],
                    quantity=Decimal(execution["qty"]),
                    price=Decimal(execution["price"]),
                    fee=Decimal(execution["fee"]),
                    at=datetime.fromisoformat(execution["at"]),
                )
                for execution in told["executions"]
            ],
            positions={position["symbol"]: Decimal(position["qty"]) for position in told["positions"]},
            cash=Decimal(told["cash"]),
        )
