"""What our books and the broker do not agree on, found by comparing two plain values. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from exitmgr.reconcile.differences import Compared, Difference, Kind, OurOrder, OurPosition, Ours, Theirs, spelled
from orders.brokers.protocol import BrokerPosition, OrderReport
from orders.client_ids import is_ours
from positions.splits import is_whole_multiple, spell_ratio, split_factor

_ZERO = Decimal(0)


def compare(ours: Ours, theirs: Theirs) -> Compared:
    """Return every difference between the two, orders before positions.

    Holdings are compared symbol by symbol with the sum of our positions in it; symbols that are moving, and those in
    which an order is to be looked up first, are left for the next time.
    """
    orders = list(_compare_orders(ours, theirs))
    unsure = {one.symbol for one in orders if one.kind in (Kind.MISSED_NEWS, Kind.NOT_OPEN_THERE)}
    left_out = {plain_symbol(symbol) for symbol in ours.moving | unsure}
    found = [*_of_account(theirs), *orders]
    held = _by_symbol(ours.positions)
    there = {plain_symbol(one.symbol): one for one in theirs.positions if one.quantity != 0}
    for symbol in sorted({*held, *there} - left_out):
        found += _compare_holding(held.get(symbol, []), there.get(symbol))
    return Compared(found=tuple(found), left_out=frozenset(left_out))


def plain_symbol(symbol: str) -> str:
    """Return a symbol as it is compared: some brokers list BTC/USD as BTCUSD."""
    return symbol.replace("/", "")


def _by_symbol(positions: Sequence[OurPosition]) -> Mapping[str, list[OurPosition]]:
    held: defaultdict[str, list[OurPosition]] = defaultdict(list)
    for one in positions:
        held[plain_symbol(one.symbol)].append(one)
    return held


def _of_account(theirs: Theirs) -> Iterator[Difference]:
    if theirs.account is not None and theirs.account.blocked:
        yield Difference(kind=Kind.ACCOUNT_BLOCKED, key="account")


# -- orders


def _compare_orders(ours: Ours, theirs: Theirs) -> Iterator[Difference]:
    by_client = {one.client_order_id: one for one in ours.orders}
    by_broker = {one.broker_order_id: one for one in ours.orders if one.broker_order_id}
    reports = list(_with_legs(theirs.orders))
    seen: set[int] = set()
    for report, parent in reports:
        known = by_client.get(report.client_order_id) or by_broker.get(report.broker_order_id)
        if known is not None:
            seen.add(known.order_id)
            if not known.at_broker or report.filled_quantity > known.filled:
                yield _about(known, Kind.MISSED_NEWS, report)
        elif {report.client_order_id, report.broker_order_id} & ours.ended:
            continue
        elif is_ours(report.client_order_id):
            yield _stray(report, Kind.ORPHAN)
        elif parent is None or not is_ours(parent.client_order_id):
            yield _stray(report, Kind.FOREIGN_ORDER)
    for one in ours.orders:
        if one.at_broker and one.order_id not in seen:
            yield _about(one, Kind.NOT_OPEN_THERE)
    for one in ours.expired_resting:
        yield _about(one, Kind.EXPIRED_RESTING)


def _with_legs(
    reports: Sequence[OrderReport], parent: OrderReport | None = None
) -> Iterator[tuple[OrderReport, OrderReport | None]]:
    """Yield orders with what they hang from; a leg that is listed by itself as well comes once."""
    nested = {leg.broker_order_id for report in reports for leg in report.legs}
    for report in reports:
        if parent is None and report.broker_order_id in nested:
            continue
        yield report, parent
        yield from _with_legs(report.legs, report)


def _about(order: OurOrder, kind: Kind, report: OrderReport | None = None) -> Difference:
    figures: dict[str, Any] = {"order": order.order_id, "filled_here": spelled(order.filled)}
    if report is not None:
        figures |= {"filled_there": spelled(report.filled_quantity), "state_there": str(report.state)}
    return Difference(
        kind=kind,
        key=f"order:{order.client_order_id}",
        symbol=order.symbol,
        figures=figures,
        order_id=order.order_id,
        position_ids=() if order.position_id is None else (order.position_id,),
        report=report,
    )


def _stray(report: OrderReport, kind: Kind) -> Difference:
    return Difference(
        kind=kind,
        key=f"order:{report.client_order_id or report.broker_order_id}"[:96],
        symbol=report.symbol,
        figures={
            "broker_order_id": report.broker_order_id,
            "side": str(report.side),
            "quantity": spelled(report.quantity),
        },
        report=report,
    )


# -- holdings


def _compare_holding(here: Sequence[OurPosition], there: BrokerPosition | None) -> Iterator[Difference]:
    net = sum((one.side * one.remaining for one in here), _ZERO)
    held = there.quantity if there is not None else _ZERO
    dust = max((one.dust for one in here), default=_ZERO)
    if held == net or (here and abs(held - net) < dust and held * net > 0):
        return
    kind, more = _kind_of(here, net, there)
    symbol = here[0].symbol if here else there.symbol if there else ""
    figures: dict[str, Any] = {"here": spelled(net), "there": spelled(held), **more}
    if there is not None:
        figures["average_there"] = spelled(there.average_entry)
    if any(one.frozen for one in here):
        figures["frozen"] = True
    if here:
        figures["average_here"] = spelled(round(_average(here), 8))
    yield Difference(
        kind=kind,
        key=f"holding:{symbol}",
        symbol=symbol,
        figures=figures,
        position_ids=tuple(one.position_id for one in here),
        holding=there,
    )


def _kind_of(here: Sequence[OurPosition], net: Decimal, there: BrokerPosition | None) -> tuple[Kind, Mapping[str, Any]]:
    if not here:
        return Kind.UNKNOWN_HOLDING, {}
    if len({one.side for one in here}) > 1:
        return Kind.TORN, {}
    if there is None:
        return Kind.CLOSED_OUTSIDE, {}
    if there.quantity * net < 0:
        return Kind.SIDE_FLIPPED, {}
    return _kind_of_change(here, before=abs(net), now=abs(there.quantity), price_now=there.average_entry)


def _kind_of_change(
    here: Sequence[OurPosition], *, before: Decimal, now: Decimal, price_now: Decimal
) -> tuple[Kind, Mapping[str, Any]]:
    lot = max(one.lot for one in here)
    factor = split_factor(held=before, price=_average(here), held_now=now, price_now=price_now, lot=lot)
    if factor is not None:
        return Kind.SPLIT, {"ratio": spell_ratio(factor)}
    if now < before:
        return Kind.REDUCED_OUTSIDE, {}
    return Kind.SURPLUS, {"like_a_split": True} if is_whole_multiple(held=before, held_now=now) else {}


def _average(here: Sequence[OurPosition]) -> Decimal:
    total = sum((one.remaining for one in here), _ZERO)
    return sum((one.remaining * one.average_entry for one in here), _ZERO) / total if total else _ZERO
