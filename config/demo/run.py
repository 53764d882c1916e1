"""Owns the course of the demonstration: enter at the eve's close, replay the day, leave the rest by hand, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Protocol, TypeVar

from config.demo import agreement, verdict
from config.demo.book import Book, OrderRow, PositionRow
from config.demo.desk import Desk
from config.demo.outcomes import Opened, Outcome, outcome_of, tell_stories
from config.demo.scenes import Scene
from config.demo.tape import Tape
from config.simulator import Simulator

SESSION_SECONDS = 11.0
SESSION_STEPS = 330
POLL_SECONDS = 0.15
#: Generous, for a machine that is busy with something else; nothing here is waited for in vain otherwise.
PATIENCE_SECONDS = 30.0
Found = TypeVar("Found")


class Stuck(RuntimeError):
    """Something the demonstration waited for did not come; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a spectator may want to know just now."""

    scene: Scene
    number: int
    market_time: datetime | None
    progress: float
    closes: Mapping[str, Decimal]  #: of the eve
    prices: Mapping[str, Decimal]
    positions: Sequence[PositionRow]
    exits: Sequence[OrderRow]


class Spectator(Protocol):
    """Who is told how the run goes."""

    def say(self, text: str) -> None:
        """Be told a step in words."""

    def see(self, moment: Moment) -> None:
        """Be shown a moment of a scene."""

    def see_scene(self, scene: Scene, number: int, outcomes: Sequence[Outcome]) -> None:
        """Be shown what a scene came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question that must have no differences for an answer."""

    name: str
    differences: Sequence[str]

    @property
    def passed(self) -> bool:
        """Say whether there are none."""
        return not self.differences


@dataclass(slots=True, kw_only=True)
class Course:
    """What came of a run."""

    outcomes: list[Outcome] = field(default_factory=list)
    demanded: list[str] = field(default_factory=list)  #: differences between the market's demands and the exits
    tape: list[str] = field(default_factory=list)  #: what the tape missed
    first_exit_at: float | None = None  #: on the clock that was given
    orders: int = 0
    fills: int = 0
    checks: list[Check] = field(default_factory=list)


class Run:
    """One run over a stack that is up."""

    def __init__(
        self,
        *,
        desk: Desk,
        simulator: Simulator,
        book: Book,
        tape: Tape,
        spectator: Spectator,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk, self._simulator, self._book, self._tape = desk, simulator, book, tape
        self._spectator, self._clock = spectator, clock
        self._course = Course()

    def play(self, scenes: Sequence[Scene]) -> Course:
        """Play the scenes and return what came of them.

        :raises Stuck: an entry was not filled, or a price did not arrive.
        """
        opening_cash = self._simulator.ledger().cash
        for number, scene in enumerate(scenes, start=1):
            self._play_scene(scene, number)
        self._await_quiet()
        course = self._course
        course.orders, course.fills = len(self._book.orders()), len(self._book.fills())
        course.checks = [
            Check(name="the tape has every price the broker emitted", differences=course.tape),
            Check(name="every breach on the tape ended in a filled exit, and no exit came without one",
                  differences=course.demanded),
            Check(
                name="broker and database agree: orders, executions, holdings, cash",
                differences=agreement.compare_now(
                    simulator=self._simulator, book=self._book, opening_cash=opening_cash
                ),
            ),
        ]  # fmt: skip
        return course

    def _play_scene(self, scene: Scene, number: int) -> None:
        closes = self._prime(scene)
        opened = self._enter(scene, number)
        before = {symbol: self._tape.count(symbol) for symbol in scene.symbols}
        self._simulator.play(
            sessions=[scene.session], symbols=scene.symbols, seconds=SESSION_SECONDS, steps=SESSION_STEPS
        )
        for told in self._replaying():
            self._show(scene, number, closes=closes, opened=opened, told=told)
        self._check_tape(scene, before)
        self._await_exits(scene, opened)
        self._leave_the_rest(opened)
        self._spectator.see_scene(scene, number, self._judge(scene, opened))

    def _prime(self, scene: Scene) -> dict[str, Decimal]:
        """Set the eve's close and return the middle of bid and ask, once the product has taken it.

        It is emitted again until then: years lie between two scenes, and a jump counts only once confirmed.
        """

        def taken() -> dict[str, tuple[Decimal, Decimal]] | None:
            quotes = self._simulator.prime(session=scene.eve, symbols=scene.symbols)
            bids = self._book.bids()
            return quotes if all(bids.get(symbol) == bid for symbol, (bid, _) in quotes.items()) else None

        self._spectator.say(f"{scene.eve} close: prices set, entering {len(scene.trades)} positions through the API")
        quotes = self._await(taken, "the product to take the closing prices")
        return {symbol: (bid + ask) / 2 for symbol, (bid, ask) in quotes.items()}

    def _enter(self, scene: Scene, number: int) -> list[Opened]:
        opened = [
            Opened(
                trade=trade,
                order_id=self._desk.enter(
                    symbol=trade.symbol,
                    side=trade.side,
                    quantity=trade.quantity,
                    plan=trade.plan,
                    strategy=scene.name,
                    request_id=f"demo {number}.{place}",
                ),
            )
            for place, trade in enumerate(scene.trades, start=1)
        ]

        def armed() -> bool:
            guarded = {row.id for row in self._book.positions() if row.bracket == "active"}
            return {self._position_id(one) for one in opened} <= guarded

        self._await(armed, "every entry to be filled and its bracket to be armed")
        self._spectator.say(f"{len(opened)} entries filled, brackets armed; replaying {scene.session}")
        return opened

    def _position_id(self, one: Opened) -> int | None:
        return next(row.position_id for row in self._book.orders() if row.id == one.order_id)

    def _replaying(self) -> Iterator[dict[str, object]]:
        deadline = self._clock() + SESSION_SECONDS + PATIENCE_SECONDS
        while True:
            told = self._simulator.progress()
            yield told
            if told["state"] != "running":
                return
            if self._clock() > deadline:
                raise Stuck("the replay did not end in time")
            time.sleep(POLL_SECONDS)

    def _show(
        self,
        scene: Scene,
        number: int,
        *,
        closes: Mapping[str, Decimal],
        opened: Sequence[Opened],
        told: Mapping[str, object],
    ) -> None:
        orders = self._book.orders()
        mine = {row.position_id for row in orders if row.id in {one.order_id for one in opened}}
        exits = [row for row in orders if row.intent == "exit" and row.position_id in mine]
        if self._course.first_exit_at is None and any(row.state == "filled" for row in exits):
            self._course.first_exit_at = self._clock()
        market_time = told.get("market_time")
        prices = {symbol: self._tape.last(symbol) for symbol in scene.symbols}
        self._spectator.see(
            Moment(
                scene=scene,
                number=number,
                market_time=datetime.fromisoformat(str(market_time)) if market_time else None,
                progress=float(str(told.get("progress", 0))),
                closes=closes,
                prices={symbol: (seen.bid + seen.ask) / 2 for symbol, seen in prices.items() if seen},
                positions=[row for row in self._book.positions() if row.id in mine],
                exits=exits,
            )
        )

    def _check_tape(self, scene: Scene, before: Mapping[str, int]) -> None:
        def complete() -> bool:
            return all(self._tape.count(symbol) - count >= SESSION_STEPS for symbol, count in before.items())

        if not self._happens(complete, seconds=5) or self._tape.broken:
            kept = {symbol: self._tape.count(symbol) - count for symbol, count in before.items()}
            self._course.tape.append(f"{scene.session}: {SESSION_STEPS} prices a symbol were emitted, taped: {kept}")

    def _stories(self, opened: Sequence[Opened]) -> list[verdict.Story]:
        return tell_stories(
            opened,
            orders=self._book.orders(),
            positions=self._book.positions(),
            ledger=self._simulator.ledger(),
            until=datetime.now(UTC),
        )

    def _await_exits(self, scene: Scene, opened: Sequence[Opened]) -> None:
        """Give the product time to answer the last prices; whether it did is judged later, not here."""

        def answered() -> bool:
            stories = zip(opened, self._stories(opened), strict=True)
            return not any(verdict.owed(story, self._tape.of(one.trade.symbol)) for one, story in stories)

        if not (self._happens(answered, seconds=PATIENCE_SECONDS) and self._happens(self._is_quiet, seconds=5)):
            self._spectator.say(f"{scene.session}: not every breach was answered within {PATIENCE_SECONDS:.0f} s")

    def _leave_the_rest(self, opened: Sequence[Opened]) -> None:
        mine = {story.position_id for story in self._stories(opened)}
        rest = [row.id for row in self._book.positions() if row.id in mine and row.status != "closed"]
        if rest:
            self._spectator.say(f"{len(rest)} positions were not breached; leaving them by hand through the API")
        for position_id in rest:
            self._desk.exit(position_id)
        self._await_quiet()

    def _judge(self, scene: Scene, opened: Sequence[Opened]) -> list[Outcome]:
        orders, ledger = self._book.orders(), self._simulator.ledger()
        positions = {row.id: row for row in self._book.positions()}
        outcomes = []
        for one, story in zip(opened, self._stories(opened), strict=True):
            prints = self._tape.of(one.trade.symbol)
            self._course.demanded += (f"{scene.session}, {text}" for text in verdict.differences(story, prints))
            outcomes.append(
                outcome_of(story, position=positions[story.position_id], orders=orders, ledger=ledger, prints=prints)
            )
        self._course.outcomes += outcomes
        return outcomes

    def _is_quiet(self) -> bool:
        sql = (
            "SELECT 1 FROM orders_order WHERE news OR state NOT IN ('filled', 'cancelled', 'rejected', 'expired')"
            " LIMIT 1"
        )
        return not self._book.query(sql)

    def _await_quiet(self) -> None:
        self._await(self._is_quiet, "every order to end")

    def _happens(self, check: Callable[[], bool], *, seconds: float) -> bool:
        deadline = self._clock() + seconds
        while not check():
            if self._clock() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _await(self, check: Callable[[], Found | None], what: str) -> Found:
        deadline = self._clock() + PATIENCE_SECONDS
        while not (found := check()):
            if self._clock() > deadline:
                raise Stuck(f"waited {PATIENCE_SECONDS:.0f} s for {what}")
            time.sleep(POLL_SECONDS)
        return found
