"""From triggers that may fire to exit orders: lock, read again, judge by the rules, write what follows.

Within a position the most urgent claims first; between positions the sending lanes decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from exitmgr.armed import Armed, armed_triggers, judge
from exitmgr.arming import restart_stagnations, start_waiting
from exitmgr.exits import ExitIntent, leg_of, make_exits
from exitmgr.models import Trigger
from exitmgr.probes import Candidate, snapshots_of
from exitmgr.resting import make_way
from exitmgr.rules.fire import by_precedence
from exitmgr.rules.types import Act, Decision, LevelTrigger, TrailTrigger, Urgency
from exitmgr.states import TriggerStatus
from exitmgr.trails import leave_cohorts
from orders.lanes import ring_advance_on_commit
from orders.models import Order
from positions.locks import lock_positions
from positions.models import Position
from positions.rows import write_back
from positions.values import Snapshot

_Pair = tuple[Decision, Armed]
_Seen = Mapping[int, tuple[Snapshot, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Fired:
    """What came of some candidates: how many were still armed, exit orders made, triggers that changed."""

    armed: int = 0
    orders: int = 0
    changed: int = 0
    #: Triggers were started or restarted, which the price now may have reached already.
    started: int = 0


def fire(candidates: Sequence[Candidate], *, now: datetime) -> Fired:
    """Make the exit orders of what really fires, start what waited for it, and return how much that was.

    In the caller's transaction, which holds the quotes of whatever is judged on a price.
    """
    if not candidates:
        return Fired()
    seen: _Seen = snapshots_of({candidate.instrument_id for candidate in candidates})
    positions = lock_positions(candidate.position_id for candidate in candidates)
    armed = armed_triggers([candidate.trigger_id for candidate in candidates])
    exits: dict[int, list[_Pair]] = defaultdict(list)
    gates: list[_Pair] = []
    for trigger in armed:
        if positions[trigger.position_id].frozen_at is not None:
            continue
        snapshot = seen[trigger.instrument_id][0] if trigger.instrument_id in seen else None
        decision = judge(trigger, snapshot, now=now)
        if decision is None:
            continue
        if trigger.act is Act.EXIT:
            exits[trigger.position_id].append((decision, trigger))
        else:
            gates.append((decision, trigger))
    ranked = [pair for pairs in exits.values() for pair in _in_order(pairs)]
    met = {position_id: [decision for decision, _ in _in_order(pairs)] for position_id, pairs in exits.items()}
    made = make_exits(
        [
            _intent(decision, positions[trigger.position_id], seen.get(trigger.instrument_id), met=met)
            for decision, trigger in ranked
        ],
        now=now,
        actor="scan",
    )
    changed = _mark(ranked, made, now=now)
    blocked = {
        (trigger.position_id, leg_of(decision.reason, decision.urgency))
        for index, (decision, trigger) in enumerate(ranked)
        if index not in made and decision.urgency > Urgency.STOP
    }
    if blocked:
        make_way(blocked, now=now)
    rungs = [ranked[index] for index in made if _is_rung(ranked[index][1])]  # nothing waits for another exit
    started = _follow_up(gates, rungs, seen, now=now)
    return Fired(armed=len(armed), orders=len(made), changed=changed + len(gates), started=started)


def _is_rung(trigger: Armed) -> bool:
    return isinstance(trigger.rule, LevelTrigger) and trigger.rule.rung > 0


def _in_order(pairs: Sequence[_Pair]) -> list[_Pair]:
    by_identity = {id(decision): trigger for decision, trigger in pairs}
    return [(decision, by_identity[id(decision)]) for decision in by_precedence(decision for decision, _ in pairs)]


def _intent(
    decision: Decision,
    position: Position,
    seen: tuple[Snapshot, dict[str, Any]] | None,
    *,
    met: Mapping[int, Sequence[Decision]],
) -> ExitIntent:
    also = [_named(other) for other in met[position.pk] if other is not decision]
    evidence = {**(seen[1] if seen else {}), **({"also": also} if also else {})}
    return ExitIntent(
        position=position,
        decision=decision,
        priced_at=seen[0].received_at if seen else None,
        quote=evidence,
    )


def _named(decision: Decision) -> dict[str, str | None]:
    price = decision.trigger_price
    return {"reason": decision.reason, "trigger_price": None if price is None else f"{price:f}"}


def _mark(ranked: Sequence[_Pair], made: Mapping[int, Order], *, now: datetime) -> int:
    """Move the triggers: with an order they have fired; a stop that found everything claimed waits as breached."""
    changed: list[Trigger] = []
    trails: list[int] = []
    for index, (decision, trigger) in enumerate(ranked):
        order = made.get(index)
        if order is None and decision.urgency > Urgency.STOP:
            continue  # a target that finds everything claimed stays armed: the price may come again
        if isinstance(trigger.rule, TrailTrigger):
            trails.append(trigger.trigger_id)
        changed.append(
            Trigger(
                pk=trigger.trigger_id,
                status=TriggerStatus.FIRED if order else TriggerStatus.BREACHED,
                level=decision.trigger_price,
                fired_at=now,
                seen_price=decision.seen_price,
                order=order,
            )
        )
    write_back(changed, fields=["status", "level", "fired_at", "seen_price", "order"])
    leave_cohorts(trails)
    if any(row.status == TriggerStatus.BREACHED for row in changed):
        ring_advance_on_commit()  # which calls off what stands in the way
    return len(changed)


def _follow_up(gates: Sequence[_Pair], rungs: Sequence[_Pair], seen: _Seen, *, now: datetime) -> int:
    """Arm what waited for these gates and rungs, and measure stagnations anew; return how many triggers changed."""
    starting: dict[tuple[int, str], tuple[Decimal, int]] = {}
    moving: dict[int, tuple[Decimal, int]] = {}
    opened: list[Trigger] = []
    for decision, trigger in (*gates, *rungs):
        snapshot = seen[trigger.instrument_id][0] if trigger.instrument_id in seen else None
        if snapshot is None or decision.seen_price is None:
            continue
        at = (decision.seen_price, snapshot.seq)
        if trigger.act is Act.RESTART:
            moving[trigger.bracket_id] = at
            continue
        starting[trigger.bracket_id, trigger.rule.slot] = at
        if trigger.act is Act.START:
            opened.append(
                Trigger(pk=trigger.trigger_id, status=TriggerStatus.FIRED, fired_at=now, seen_price=decision.seen_price)
            )
    write_back(opened, fields=["status", "fired_at", "seen_price"])
    started = start_waiting(starting, now=now) if starting else 0
    return started + (restart_stagnations(moving, now=now) if moving else 0)
