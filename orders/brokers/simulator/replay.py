"""The player: turns daily bars into quotes as if they happened now, session after session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from .exchange import Exchange
from .market_stream import MarketData
from .matching import Quote
from .records import stamp
from .replay_path import Bar, combine, interpolate, quote_around

NEW_YORK = ZoneInfo("America/New_York")
SESSION_OPEN = time(9, 30)
SESSION_LENGTH = timedelta(hours=6, minutes=30)
BARS_PER_SESSION = 13  # half hours


@dataclass(frozen=True, slots=True)
class Plan:
    """What to replay and how fast."""

    sessions: list[str]
    symbols: list[str] | None
    seconds_per_session: float
    steps_per_session: int
    spread_bps: Decimal


class Replay:
    """One replay at a time; its quotes go the same way as pushed ones."""

    def __init__(
        self,
        *,
        bars: list[Bar],
        exchange: Exchange,
        market: MarketData,
        clock: Callable[[], datetime],
    ) -> None:
        self._sessions: dict[str, dict[str, Bar]] = {}
        for bar in bars:
            self._sessions.setdefault(bar.session, {})[bar.symbol] = bar
        self._exchange = exchange
        self._market = market
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._status: dict[str, Any] = {"state": "idle"}

    def pick(self, session: str, symbols: list[str] | None) -> list[Bar]:
        """Return the bars of a session, of all symbols when none are named.

        :raises ValueError: no bars for the session, or not for a symbol; says which there are.
        """
        bars = self._sessions.get(session)
        if bars is None:
            known = sorted(self._sessions)
            ranges = f"{known[0]} to {known[-1]}, {len(known)} sessions" if known else "none"
            raise ValueError(f"no bars for session {session!r}; the sessions of the CSV are {ranges}")
        missing = sorted(set(symbols or ()) - set(bars))
        if missing:
            raise ValueError(f"no bar of {', '.join(missing)} on {session}; there are {', '.join(sorted(bars))}")
        return [bars[symbol] for symbol in (symbols or sorted(bars))]

    def start(self, plan: Plan) -> None:
        """Begin to play in the background.

        :raises ValueError: a session or symbol is unknown, or a replay is running.
        """
        if self._task is not None and not self._task.done():
            raise ValueError("a replay is running; DELETE /control/replay stops it")
        chosen = [(session, self.pick(session, plan.symbols)) for session in plan.sessions]
        self._status = {"state": "running", "session": None, "market_time": None, "progress": 0.0, "steps": 0}
        self._task = asyncio.get_running_loop().create_task(self._play(plan, chosen))

    async def stop(self) -> None:
        """Stop playing; the last quotes stand."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
            self._status["state"] = "idle"

    def describe(self) -> dict[str, Any]:
        """Return the state of the replay as JSON."""
        return self._status

    def prime(self, *, session: str, symbols: list[str] | None, at: str, spread_bps: Decimal) -> list[Quote]:
        """Set the quotes to a session's open or close at once and return them."""
        now = stamp(self._clock())
        quotes = [
            quote_around(
                symbol=bar.symbol,
                last=bar.open if at == "open" else bar.close,
                spread_bps=spread_bps,
                at=now,
            )
            for bar in self.pick(session, symbols)
        ]
        self._push(quotes)
        return quotes

    def _push(self, quotes: list[Quote]) -> None:
        self._market.publish_quotes(quotes)
        self._exchange.take_quotes(quotes)

    async def _play(self, plan: Plan, chosen: list[tuple[str, list[Bar]]]) -> None:
        try:
            for number, (session, bars) in enumerate(chosen):
                await self._play_session(plan, session, bars, number=number)
            self._status["state"] = "done"
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._status.update(state="failed", error=str(error))
            raise

    async def _play_session(self, plan: Plan, session: str, bars: list[Bar], *, number: int) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        steps = plan.steps_per_session
        opens_at = datetime.combine(datetime.fromisoformat(session).date(), SESSION_OPEN, NEW_YORK)
        paths = [(bar, interpolate(bar, steps=steps)) for bar in bars]
        stretch_starts = 0
        for step in range(steps):
            delay = started + plan.seconds_per_session * step / steps - loop.time()
            await asyncio.sleep(max(delay, 0))
            now = stamp(self._clock())
            self._status.update(
                session=session,
                market_time=stamp((opens_at + SESSION_LENGTH * step / (steps - 1)).astimezone(UTC)),
                progress=round((number + (step + 1) / steps) / len(plan.sessions), 4),
                steps=number * steps + step + 1,
            )
            self._push(
                [
                    quote_around(symbol=bar.symbol, last=path[step], spread_bps=plan.spread_bps, at=now)
                    for bar, path in paths
                ]
            )
            if (step + 1) * BARS_PER_SESSION // steps > step * BARS_PER_SESSION // steps:
                for bar, path in paths:
                    part = path[stretch_starts : step + 1]
                    volume = bar.volume * len(part) // steps
                    self._market.publish_bar(combine(part, symbol=bar.symbol, ts=now, volume=volume), kind="b", at=now)
                stretch_starts = step + 1
        for bar, _ in paths:
            self._market.publish_bar(bar, kind="d", at=stamp(self._clock()))
