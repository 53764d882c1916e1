"""Where the protection of a bracket rests: as configured, as far as the broker can, and never refused.

What is not possible falls back towards the watch here, with a note on the bracket that says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from exitmgr.models import Mode
from exitmgr.policy.current import policy_for
from exitmgr.policy.schema import BracketOrders
from orders.brokers.abilities import abilities_of
from orders.brokers.protocol import Capabilities, OrderType
from orders.models import Order
from orders.states import LIVE
from positions.models import Account, Position
from positions.values import AssetClass


@dataclass(frozen=True, slots=True)
class ChosenMode:
    """A mode, and what had to be given up for it."""

    mode: Mode
    notes: tuple[str, ...] = ()


def choose_mode(position: Position, *, overrides: Mapping[str, Any], now: datetime) -> ChosenMode:
    """Return where the protection of a position is to rest."""
    account = Account.objects.values_list("name", flat=True).get(pk=position.account_id)
    policy = policy_for(account=account, symbol=position.instrument.symbol, now=now, overrides=overrides)
    wanted = policy.trade_exit.bracket_orders
    if wanted.mode == "synthetic":
        return ChosenMode(Mode.SYNTHETIC)
    abilities = abilities_of(position.account_id)
    obstacle = _obstacle(position, wanted, abilities)
    if obstacle:
        return ChosenMode(Mode.SYNTHETIC, (f"no stop rests at the broker: {obstacle}; it is watched here",))
    if wanted.mode == "resting":
        return ChosenMode(Mode.RESTING)
    if abilities is None or not abilities.native_oco or position.instrument.asset_class != AssetClass.EQUITY:
        return ChosenMode(
            Mode.RESTING, ("the broker keeps no target and stop as one group here; the stop rests alone",)
        )
    return ChosenMode(Mode.NATIVE)


def _obstacle(position: Position, wanted: BracketOrders, abilities: Capabilities | None) -> str:
    if abilities is None:
        return "the account's broker is not known"
    if OrderType.STOP not in abilities.order_types:
        return "the broker takes no stop orders"
    resting = Order.objects.filter(account_id=position.account_id, resting=True, state__in=LIVE).count()
    if resting >= wanted.max_bracket_orders:
        return f"the account has its limit of {wanted.max_bracket_orders} resting orders"
    return ""
