"""Replays positions over bars: compiles each plan, leaps to the bars that matter and walks them exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from exitmgr.replay.bars import Series, microseconds
from exitmgr.replay.entries import BASIS_POINTS, Entries
from exitmgr.replay.errors import refuse_all
from exitmgr.replay.holdings import Holding
from exitmgr.replay.leap import next_eventful
from exitmgr.replay.results import ZERO, Exit, Outcome, realize
from exitmgr.replay.walk import Fired, Walk
from exitmgr.rules.compile import Compiled, compile_plan
from exitmgr.rules.fire import trail_level
from exitmgr.rules.plan import InvalidPlan
from exitmgr.rules.types import Act


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to replay.

    `adverse_first` says which extreme of a bar comes first. With `lot` partial exits are whole lots. `fee_bps` is paid
    on the traded value, both ways. Without `leap` every bar is walked: the same exits, slowly.
    """

    adverse_first: bool = True
    lot: Decimal = ZERO
    fee_bps: Decimal = ZERO
    calendar: str = "XNYS"
    leap: bool = True


@dataclass(frozen=True, slots=True)
class Ready:
    """A position with its plan compiled."""

    holding: Holding
    compiled: Compiled
    series: Series


def prepare(
    holdings: Sequence[Holding], series: Mapping[str, Series], *, settings: Settings, source: str
) -> list[Ready]:
    """Return the positions with their plans compiled; `source` names their file in refusals.

    :raises InvalidInput: the bars lack a symbol, or plans do not fit their entries.
    """
    problems: dict[str, str] = {}
    entries = Entries(holdings=holdings, series=series, calendar=settings.calendar, fee_bps=settings.fee_bps)
    ready = []
    for holding in holdings:
        if holding.symbol not in series:
            problems[f"{holding.path}.symbol"] = f"the bars have no {holding.symbol}; they have {_named(series)}"
            continue
        try:
            compiled = compile_plan(holding.plan, entry=entries.entry_of(holding))
        except InvalidPlan as error:
            problems.update(_placed(error, holding))
        else:
            ready.append(Ready(holding, compiled, series[holding.symbol]))
    if problems:
        raise refuse_all(source, problems)
    return ready


def replay(
    ready: Sequence[Ready], *, settings: Settings, progress: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Yield what became of each position, in the order given; `progress` is called after each."""
    fee_rate = settings.fee_bps / BASIS_POINTS
    for one in ready:
        yield _outcome(one, settings=settings, fee_rate=fee_rate)
        progress()


def trace(one: Ready, *, settings: Settings, ends: Sequence[int]) -> Iterator[dict[str, Decimal]]:
    """Yield where the exits of a position lie, by slot, after the bars before each of these indices; for charts."""
    walk, first = _walk_of(one, settings), one.series.first_at(one.holding.opened_at)
    for end in ends:
        for _ in _walked(walk, one.series, first, end=end, leap=settings.leap):
            pass
        first = end
        levels = {level.slot: level.level for level in walk.levels.values() if level.act is Act.EXIT}
        trails = {trail.slot: trail_level(trail) for trail in walk.trails.values()}
        yield {slot: at for slot, at in (levels | trails).items() if at is not None} if walk.remaining else {}


def _outcome(one: Ready, *, settings: Settings, fee_rate: Decimal) -> Outcome:
    holding, series = one.holding, one.series
    first = series.first_at(holding.opened_at)
    walk = _walk_of(one, settings)
    exits: list[Exit] = []
    end = first
    for index, fired in _walked(walk, series, first, end=len(series), leap=settings.leap):
        end = index + 1
        if fired:
            ts = series.bar(index).ts
            exits += [_exit(each, holding, at=index, ts=ts, fee_rate=fee_rate) for each in fired]
    if walk.remaining:
        end = len(series)
    last_price = series.bar(end - 1).close if end > first else None
    open_pnl = holding.side * (last_price - holding.entry_price) * walk.remaining if last_price is not None else ZERO
    return Outcome(
        holding=holding, exits=tuple(exits), remaining=walk.remaining, first=first, end=end, last_price=last_price,
        open_pnl=open_pnl, stop_price=one.compiled.stop_price, target_prices=one.compiled.target_prices,
        notes=one.compiled.notes,
    )  # fmt: skip


def _walk_of(one: Ready, settings: Settings) -> Walk:
    return Walk(
        one.compiled.triggers,
        side=one.holding.side,
        quantity=one.holding.quantity,
        lot=settings.lot,
        adverse_first=settings.adverse_first,
    )


def _walked(walk: Walk, series: Series, first: int, *, end: int, leap: bool) -> Iterator[tuple[int, list[Fired]]]:
    """Walk the bars before `end` that matter, yielding each with what fired in it."""
    index = first
    while walk.remaining and index < end:
        found = min(_next(walk, series, index), end) if leap else index
        if found > index and walk.trails:
            walk.skip(highest=series.highest(index, found), lowest=series.lowest(index, found))
        if found == end:
            return
        yield found, walk.through(series.bar(found))
        index = found + 1


def _next(walk: Walk, series: Series, index: int) -> int:
    due_at = walk.next_due()
    return next_eventful(
        series, index, levels=walk.levels.values(), trails=walk.trails.values(),
        due_at=None if due_at is None else microseconds(due_at), adverse_first=walk.adverse_first,
    )  # fmt: skip


def _exit(fired: Fired, holding: Holding, *, at: int, ts: str, fee_rate: Decimal) -> Exit:
    earned, pct = realize(holding, price=fired.price, quantity=fired.quantity, fee_rate=fee_rate)
    return Exit(
        reason=fired.decision.reason, at=at, ts=ts, trigger_price=fired.decision.trigger_price,
        exit_price=fired.price, quantity=fired.quantity, realized_pnl=earned, realized_pct=pct,
    )  # fmt: skip


def _placed(error: InvalidPlan, holding: Holding) -> dict[str, str]:
    """Return problems with their place in the file; one plan for every position is wrong for a position."""
    whose = "" if holding.path.startswith("positions.") else f" (position {holding.id})"
    base = f"{holding.path}.plan" if not whose else holding.path
    return {f"{base}.{path}{whose}": text for path, text in error.problems.items()}


def _named(series: Mapping[str, Series]) -> str:
    names = sorted(series)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
