"""A split that a person has confirmed: everything we know about the symbol is put into its new terms, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from django.db import transaction
from django.db.models import F

from alerts.events import Happening, write_events
from exitmgr.arming import LIVE_TRIGGERS
from exitmgr.models import Bracket, Trigger
from exitmgr.reconcile.freezing import thaw
from exitmgr.reconcile.sightings import standing_split
from exitmgr.rules.types import TriggerKind
from exitmgr.states import BracketStatus, TriggerStatus
from orders.models import Order
from orders.states import LIVE
from positions.locks import lock_positions
from positions.models import Bar, Instrument, Position, Quote
from positions.splits import price_after, scaled, spell_ratio
from positions.states import PositionStatus

_POSITION_PRICES: Final = ("peak", "trough", "last_exit_price")
_QUOTE_PRICES: Final = (
    "last", "bid", "ask", "last_low", "last_high", "bid_low", "bid_high", "ask_low", "ask_high", "mid_low",
    "mid_high", "bar_open", "bar_low", "bar_high",
)  # fmt: skip
_BAR_PRICES: Final = ("open", "high", "low", "close")
#: The parts of a plan that are prices or distances, by the keys that lead there.
_PLAN_PRICES: Final = frozenset({"price", "distance"})
_OPEN: Final = (BracketStatus.PENDING, BracketStatus.ACTIVE, BracketStatus.ERROR)


class SplitRefused(Exception):
    """A split was not applied; the message says why and what can be done."""


def confirm_split(*, symbol: str, factor: Fraction, now: datetime, actor: str) -> list[int]:
    """Put every open position of a symbol into the terms of a split, release them, and return their ids.

    Quantities are multiplied by `factor`, prices, distances and ranges divided by it; what was paid stays.

    :raises SplitRefused: a position is not frozen for this split, or an order of it is live.
    """
    instrument = Instrument.objects.filter(symbol=symbol).first()
    if instrument is None:
        raise SplitRefused(f"there is no instrument {symbol!r}")
    ids = list(
        Position.objects.filter(instrument=instrument)
        .exclude(status=PositionStatus.CLOSED)
        .values_list("pk", flat=True)
    )
    with transaction.atomic(durable=True):
        quote = Quote.objects.select_for_update().filter(pk=instrument.pk).first()
        positions = list(lock_positions(ids).values())
        since = _require_frozen(positions, symbol=symbol, factor=factor)
        _require_no_orders(positions)
        for position in positions:
            _rescale_position(position, factor)
            _rescale_brackets(position, factor)
            _rescale_triggers(position, factor)
        _rescale_bars(instrument, factor, before=since)
        if quote is not None:
            _rescale_quote(quote, factor, old_terms=quote.received_at < since)
        note = f"split {spell_ratio(factor)} confirmed"
        for position in positions:
            thaw(position, quote=quote, note=note, now=now, actor=actor)
        _tell(positions, factor, symbol=symbol, now=now, actor=actor)
    return [position.pk for position in positions]


def _require_frozen(positions: Sequence[Position], *, symbol: str, factor: Fraction) -> datetime:
    """Return since when the positions are frozen.

    :raises SplitRefused: there is none, or one that is not frozen for a split of this ratio.
    """
    open_ones = [one for one in positions if one.status != PositionStatus.CLOSED]
    if not open_ones:
        raise SplitRefused(f"no position in {symbol} is open")
    for account_id in sorted({one.account_id for one in open_ones}):
        seen = standing_split(account_id, symbol)
        if seen != spell_ratio(factor):
            what = f"looks like {seen} there" if seen else "shows no split there"
            raise SplitRefused(
                f"{symbol} {what} (account {account_id}), not {spell_ratio(factor)}; nothing was changed"
            )
    times = [one.frozen_at for one in open_ones]
    frozen = [at for at in times if at is not None]
    if len(frozen) < len(times):
        free = ", ".join(str(one.pk) for one in open_ones if one.frozen_at is None)
        raise SplitRefused(f"position {free} is not frozen yet; reconcile its account first")
    return min(frozen)


def _require_no_orders(positions: Sequence[Position]) -> None:
    live = Order.objects.filter(position__in=positions, state__in=LIVE).order_by("pk")
    named = ", ".join(f"{order.pk} ({order.state})" for order in live)
    if named:
        raise SplitRefused(f"order {named} is still live; its quantity is in old terms, wait for its end or cancel it")


def _rescale_position(position: Position, factor: Fraction) -> None:
    position.quantity = scaled(position.quantity, factor)
    position.exited = scaled(position.exited, factor)
    for name in _POSITION_PRICES:
        _divide(position, name, factor)
    position.save(update_fields=["quantity", "exited", *_POSITION_PRICES])


def _rescale_brackets(position: Position, factor: Fraction) -> None:
    for bracket in Bracket.objects.filter(position=position, status__in=_OPEN):
        bracket.plan = plan_after(bracket.plan, factor)
        for name in ("entry_price", "stop_price", "atr"):
            _divide(bracket, name, factor)
        bracket.target_prices = [_spelled(price_after(Decimal(price), factor)) for price in bracket.target_prices]
        bracket.save(update_fields=["plan", "entry_price", "stop_price", "atr", "target_prices"])


def plan_after(plan: Mapping[str, Any], factor: Fraction) -> dict[str, Any]:
    """Return a plan as it is stored with its prices and distances in the terms of a split; percentages stay."""
    return {key: _part_after(key, part, factor) for key, part in plan.items()}


def _part_after(key: str, part: Any, factor: Fraction) -> Any:
    if isinstance(part, Mapping):
        return plan_after(part, factor)
    if isinstance(part, list):
        return [_part_after("", one, factor) for one in part]
    if key in _PLAN_PRICES and part is not None:
        return _spelled(price_after(Decimal(str(part)), factor))
    return part


def _rescale_triggers(position: Position, factor: Fraction) -> None:
    """Rescale what may still fire, and what fired and may be armed again."""
    wanted = (*LIVE_TRIGGERS, TriggerStatus.FIRED)
    for row in Trigger.objects.filter(position=position, status__in=wanted).exclude(kind=TriggerKind.TIMER):
        _divide(row, "level", factor)
        _divide(row, "offset", factor)
        row.steps = [[at, _spelled(price_after(Decimal(level), factor))] for at, level in row.steps]
        row.save(update_fields=["level", "offset", "steps"])


def _rescale_bars(instrument: Instrument, factor: Fraction, *, before: datetime) -> None:
    """Rescale bars from before the split was seen; brokers tell later ones in new terms."""
    new, old = Decimal(factor.numerator), Decimal(factor.denominator)
    Bar.objects.filter(instrument=instrument, start__lt=before).update(
        **{name: F(name) * old / new for name in _BAR_PRICES}, volume=F("volume") * new / old
    )


def _rescale_quote(quote: Quote, factor: Fraction, *, old_terms: bool) -> None:
    """Put the last price into new terms, or forget the extremes of one that is in them already."""
    if old_terms:
        for name in _QUOTE_PRICES:
            _divide(quote, name, factor)
    for basis in ("last", "bid", "ask"):
        price = getattr(quote, basis)
        setattr(quote, f"{basis}_low", price)
        setattr(quote, f"{basis}_high", price)
    quote.mid_low = quote.mid_high = (quote.bid + quote.ask) / 2
    quote.suspect = quote.suspect_bid = quote.suspect_ask = quote.suspect_last = None
    quote.suspect_at = quote.suspect_heard_at = None
    quote.seq += 1
    quote.from_seq = quote.seq
    quote.dirty = True
    quote.save()


def _divide(row: Any, name: str, factor: Fraction) -> None:
    price = getattr(row, name)
    if price is not None:
        setattr(row, name, price_after(price, factor))


def _spelled(price: Decimal) -> str:
    text = f"{price:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _tell(positions: Iterable[Position], factor: Fraction, *, symbol: str, now: datetime, actor: str) -> None:
    write_events(
        [
            Happening(
                kind="split_applied",
                actor=actor,
                account_ref=position.account_id,
                position_ref=position.pk,
                data={
                    "symbol": symbol,
                    "ratio": spell_ratio(factor),
                    "quantity": position.quantity,
                    "average_entry": position.average_entry,
                },
            )
            for position in positions
        ],
        now=now,
    )
