"""What the trading configuration may say: every key with its default, unit and bounds. Pure.

A section merges key by key with the layers below it; anything else is replaced as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationInfo, model_validator

from exitmgr.rules.plan import (
    BreakEven,
    Percentage,
    Period,
    Positive,
    Seconds,
    SessionClose,
    Stagnation,
    Trailing,
    _as_decimal,
    _number,
    _one_or_many,
    _shown,
    _whole,
)


def _read_signed(given: object) -> Decimal:
    number = _as_decimal(given)
    if number is None or not number.is_finite() or abs(number) > 10:
        raise ValueError(f"must be a number from -10 to 10; got {_shown(given)}")
    return number


TimeInForce = Literal["day", "gtc", "ioc", "fok", "opg", "cls"]
Fraction = Annotated[Decimal, Field(gt=0, le=1), _number(at_most=Decimal(1))]
Loss = Annotated[Decimal, Field(gt=0, le=99), _number(at_most=Decimal(99))]
Factor = Annotated[Decimal, Field(gt=0, le=100), _number(at_most=Decimal(100))]
Signed = Annotated[Decimal, Field(ge=-10, le=10), BeforeValidator(_read_signed)]
BasisPoints = Annotated[int, Field(ge=1, le=10_000), _whole(at_least=1, at_most=10_000)]
Attempts = Annotated[int, Field(ge=1, le=20), _whole(at_least=1, at_most=20)]
Pause = Annotated[int, Field(ge=1, le=3_600), _whole(at_least=1, at_most=3_600)]
Cooldown = Annotated[int, Field(ge=0, le=604_800), _whole(at_least=0, at_most=604_800)]
Count = Annotated[int, Field(ge=1, le=1_000_000), _whole(at_least=1, at_most=1_000_000)]

#: Given as context to say that single values were checked and only how they fit together was not.
LENIENT: Final = {"lenient": True}


class InvalidPolicy(Exception):
    """A configuration was refused; `problems` maps each offending path to what would be right and what was got."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems.items()))
        self.problems = problems


_SYMBOL: Final = re.compile(r"[A-Z0-9][A-Z0-9./_-]{0,31}", re.ASCII)
_ADDRESS: Final = re.compile(r"https?://[^\s/?#@]+(/[^\s#]*)?", re.ASCII)


def _read_symbols(given: object) -> object:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) and _SYMBOL.fullmatch(one) for one in given):
        raise ValueError(f"must be a list of symbols, or null for all; got {_shown(given)}")
    return tuple(given)


def _read_address(given: object) -> object:
    if given is None or (isinstance(given, str) and _ADDRESS.fullmatch(given)):
        return given
    raise ValueError(f"must be an address that begins with http:// or https://, or null; got {_shown(given)}")


Symbols = Annotated[tuple[str, ...] | None, BeforeValidator(_read_symbols)]
Address = Annotated[str | None, BeforeValidator(_read_address)]
Brief = Annotated[int, Field(ge=0, le=3_600), _whole(at_least=0, at_most=3_600)]
Milliseconds = Annotated[int, Field(ge=50, le=5_000), _whole(at_least=50, at_most=5_000)]


def _key(default: Any, text: str, *, unit: str = "", unread: bool = False, allowed: str = "") -> Any:
    """Declare a key; `unread` admits that no code asks for it yet, `allowed` says what no bounds can."""
    return Field(default, description=text, json_schema_extra={"unit": unit, "unread": unread, "allowed": allowed})


class Section(BaseModel):
    """Keys that belong together."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _without_null(given: object) -> object:
    return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given


class Threshold(Section):
    """One side of the plan a position gets when nobody gave it one."""

    enabled: StrictBool = _key(True, "Whether the plan has this side at all.")
    order_type: Literal["market", "limit"] = _key("market", "How the exit goes to the broker.")
    time_in_force: TimeInForce | None = _key(None, "null takes what the venue uses for the order type.")


class ProfitTaking(Threshold):
    """Where a position is left with a profit."""

    threshold_pct: Positive = _key(Decimal(2), "Profit at which to leave.", unit="percent of the entry price")


class StopLoss(Threshold):
    """Where a position is given up."""

    threshold_pct: Loss = _key(Decimal(1), "Loss at which to leave.", unit="percent of the entry price")


class Prices(Section):
    """Which prices may decide anything; an instrument that is newly made known starts with these."""

    max_age_seconds: Seconds = _key(60, "An older price decides nothing.", unit="seconds")
    max_spread_pct: Percentage | None = _key(
        None, "A wider spread is not believed; null believes any.", unit="percent of the mid"
    )
    collar_pct: Percentage = _key(
        Decimal(20), "A single print further away than this needs a second one.", unit="percent"
    )
    confirm_seconds: Seconds | None = _key(
        None, "A print outside the collar that stands so long is believed; null: never.", unit="seconds"
    )


class LimitExit(Section):
    """What becomes of an exit with a limit that does not fill."""

    seconds: Pause = _key(10, "It is called off after so long of trading.", unit="seconds")
    then: Literal["market", "reprice"] = _key(
        "market",
        "How its rest goes out: at the market, or with a new limit at the price now, no worse than max_slippage_bps; "
        "the last try of a stop is always at the market. A target waits for its level again if the price has left it.",
    )


class ExternalRisk(Section):
    """Another system that is asked before each order is sent (docs/risk_limits.md)."""

    url: Address = _key(None, "Where it answers; null asks nobody.", allowed="an http or https address, null")
    timeout_ms: Milliseconds = _key(500, "After so long it counts as silent.", unit="milliseconds")


class Risk(Section):
    """What an entry has to pass; settings of a single position do not count here, and no exit is ever asked."""

    allowed_symbols: Symbols = _key(None, "Symbols that may be entered; null: all.", allowed="a list of symbols, null")
    max_order_quantity: Positive | None = _key(None, "Largest quantity of one entry; null: any.", unit="units")
    price_collar_pct: Percentage | None = _key(
        Decimal(10),
        "A limit may pay no more than so much above the ask, or sell short so much below the bid; null: any.",
        unit="percent",
    )
    duplicate_seconds: Brief = _key(
        0, "The same entry (symbol, side, quantity) is not taken twice within so long; 0: it is.", unit="seconds"
    )
    max_automatic_entries_per_minute: Count | None = _key(
        20, "Entries in one symbol that name a strategy; null: any number.", unit="entries a minute"
    )
    external: ExternalRisk = ExternalRisk()


class ExitManager(Section):
    """When to leave, and how hard to try."""

    profit_taking: ProfitTaking = ProfitTaking()
    stop_loss: StopLoss = StopLoss()
    exit_cooldown_seconds: Cooldown = _key(300, "After an exit no entry in that symbol for so long.", unit="seconds")
    retry_attempts: Attempts = _key(
        3, "Refusals by the broker before an order is given up and a person is called.", unit="tries"
    )
    retry_delay_seconds: Pause = _key(5, "Wait before the second try; it doubles with each one.", unit="seconds")
    max_slippage_bps: BasisPoints = _key(150, "Largest slippage an exit asks for.", unit="basis points")
    retry_slippage_bps: BasisPoints = _key(200, "The same for an exit that a person sends again.", unit="basis points")
    resubmit_delay_seconds: Pause = _key(
        30,
        "An exit at the market that is not filled after so long of trading is called off, and its rest sent anew.",
        unit="seconds",
    )
    max_resubmit_attempts: Attempts = _key(
        3, "How often the rest of an exit that ended unfilled is sent anew before a person is called.", unit="tries"
    )
    limit_exit: LimitExit = LimitExit()
    price_source: Literal["tradable", "last", "mid"] = _key(
        "tradable", "What plans are judged on: bid of a long and ask of a short, the last trade, or the mid."
    )
    prices: Prices = Prices()
    risk: Risk = Risk()
    adopt: Literal["adopt", "alert", "ignore"] = _key(
        "alert", "What to do about a holding at the broker that we do not know of."
    )


class Atr(Section):
    """The Average True Range a stop is measured with."""

    period: Period = _key(14, "Over so many bars.", unit="bars")
    multiplier: Factor = _key(Decimal(2), "The stop lies so many ranges away.", unit="ranges")
    fallback_percentage: Fraction = _key(
        Decimal("0.02"), "Distance when it cannot be measured; 0.02 is 2 %.", unit="fraction of the entry price"
    )
    bar_seconds: Seconds = _key(86_400, "Length of the bars it is measured over.", unit="seconds")
    estimator: Literal["atr", "ewma", "garch"] = _key("atr", "How volatility is estimated.")


class Ratio(Section):
    """How far the target lies, as a multiple of the distance to the stop."""

    strategy: Literal["fixed_ratio", "symbol_specific", "market_condition", "volatility_adjusted"] = _key(
        "fixed_ratio", "Where the multiple comes from."
    )
    base_ratio: Factor = _key(Decimal("1.5"), "The multiple every strategy starts from.", unit="multiple of the risk")
    min_ratio: Factor = _key(Decimal(1), "Never less.", unit="multiple of the risk")
    max_ratio: Factor = _key(Decimal(3), "Never more.", unit="multiple of the risk")


class BracketOrders(Section):
    """Where protection rests, and how much of it there may be."""

    mode: Literal["synthetic", "resting", "native"] = _key(
        "synthetic",
        "synthetic watches here; resting leaves the stop with the broker, native a target beside it.",
    )
    max_active_brackets: Count = _key(
        50, "No entry in an account that has so many plans, armed or waiting for their entry.", unit="brackets"
    )
    max_bracket_orders: Count = _key(
        100, "Stops that may rest for an account at once; plans beyond are watched here.", unit="orders"
    )
    bracket_timeout_seconds: Seconds = _key(
        3_600, "A bracket whose orders nobody acknowledged for so long expires; the watch here goes on.", unit="seconds"
    )
    swap_timeout_seconds: Seconds = _key(
        30, "A target for which the resting stop made room is called off after so long unfilled.", unit="seconds"
    )
    backstop_bps: BasisPoints = _key(
        50, "A resting stop is not waited for once the price is so far beyond it.", unit="basis points"
    )
    backstop_seconds: Seconds = _key(
        5, "Nor when the price is still beyond it so long after it was reached.", unit="seconds"
    )
    unprotected_seconds: Seconds = _key(
        30, "A position whose stop has been out of force for so long calls a person.", unit="seconds"
    )


class TradeExit(Section):
    """What the plan of a position is made of when nobody gave it one."""

    mode: Literal["percent", "atr"] = _key(
        "percent", "percent: the thresholds of exit_manager; atr: a stop by range and a target by ratio."
    )
    atr: Atr = Atr()
    risk_reward: Ratio = Ratio()
    bracket_orders: BracketOrders = BracketOrders()
    trailing: Annotated[tuple[Trailing, ...], BeforeValidator(_one_or_many)] = _key(
        (), "Trails as in a plan; one or a list."
    )
    break_even: BreakEven | None = _key(None, "As in a plan.")
    time_limit_seconds: Seconds | None = _key(None, "Leave after so long.", unit="seconds")
    stagnation: Stagnation | None = _key(None, "As in a plan.")
    session_close: SessionClose | None = _key(None, "As in a plan; not applied where the venue never closes.")


class MarketConditionFactors(Section):
    """What the base ratio is multiplied by, by what the market does."""

    trending: Factor = _key(Decimal("1.2"), "In a trend.", unit="factor")
    ranging: Factor = _key(Decimal(1), "Without one.", unit="factor")
    volatile: Factor = _key(Decimal("0.8"), "When prices move more than usual.", unit="factor")


class RiskReward(Section):
    """What the strategies of trade_exit.risk_reward take into account."""

    symbol_specific_ratios: Annotated[dict[str, Factor], BeforeValidator(_without_null)] = _key(
        {"AAPL": Decimal("1.8"), "TSLA": Decimal(2), "SPY": Decimal("1.2")},
        "Ratio by symbol; merges symbol by symbol, null takes one out.",
        unit="multiple of the risk",
    )
    market_condition_factors: MarketConditionFactors = MarketConditionFactors()
    volatility_factor: Signed = _key(
        Decimal("0.5"),
        "Share of the base ratio taken off for each 100 % of volatility above the typical one; negative adds it.",
        unit="factor",
    )


class Policy(Section):
    """The whole configuration as it holds for one position."""

    exit_manager: ExitManager = ExitManager()
    trade_exit: TradeExit = TradeExit()
    risk_reward: RiskReward = RiskReward()

    @model_validator(mode="after")
    def _parts_fit(self, info: ValidationInfo) -> Policy:
        if (info.context or {}).get("lenient"):
            return self
        problems = dict(self._misfits())
        if problems:
            raise InvalidPolicy(problems)
        return self

    def _misfits(self) -> Iterator[tuple[str, str]]:
        ratio = self.trade_exit.risk_reward
        if ratio.min_ratio > ratio.max_ratio:
            path = "trade_exit.risk_reward.min_ratio"
            yield path, f"must not be above max_ratio ({ratio.max_ratio:f}); got {ratio.min_ratio:f}"
        early, late = self.exit_manager.max_slippage_bps, self.exit_manager.retry_slippage_bps
        if late < early:
            path = "exit_manager.retry_slippage_bps"
            yield path, f"must not be below max_slippage_bps ({early}); got {late}"
        rule = self.trade_exit.break_even
        if rule is not None and rule.at_profit_pct is not None and rule.offset_pct >= rule.at_profit_pct:
            path = "trade_exit.break_even.offset_pct"
            why = f"must be below at_profit_pct ({rule.at_profit_pct:f}), or it would fire at once"
            yield path, f"{why}; got {rule.offset_pct:f}"
        if rule is not None and rule.after_rung is not None:
            path = "trade_exit.break_even.after_rung"
            if rule.after_rung != 1:
                yield path, f"must be 1, as there is one target; got {rule.after_rung}"
            elif not self.exit_manager.profit_taking.enabled:
                yield path, "needs exit_manager.profit_taking to be enabled, as it comes after the target"
        prices = self.exit_manager.prices
        if prices.confirm_seconds is not None and prices.confirm_seconds > prices.max_age_seconds:
            path = "exit_manager.prices.confirm_seconds"
            limit = f"must not be above max_age_seconds ({prices.max_age_seconds}), or it would be stale by then"
            yield path, f"{limit}; got {prices.confirm_seconds}"


#: The keys below which a configuration overrides the rest for one account or one symbol.
OVERRIDING: Final = ("accounts", "symbols")
SECTIONS: Final = tuple(Policy.model_fields)
DEFAULTS: Final[dict[str, Any]] = Policy().model_dump()


def warnings_of(policy: Policy) -> list[str]:
    """Return what is allowed but probably not meant."""
    found = []
    profit, stop = policy.exit_manager.profit_taking, policy.exit_manager.stop_loss
    both = policy.trade_exit.mode == "percent" and profit.enabled and stop.enabled
    if both and profit.threshold_pct <= stop.threshold_pct:
        found.append(
            f"exit_manager.profit_taking.threshold_pct ({profit.threshold_pct:f}) is not above "
            f"stop_loss.threshold_pct ({stop.threshold_pct:f}): it risks as much as it can win"
        )
    if not stop.enabled:
        found.append("exit_manager.stop_loss.enabled is false: positions without a plan of their own have no stop")
    ratio = policy.trade_exit.risk_reward
    if not ratio.min_ratio <= ratio.base_ratio <= ratio.max_ratio:
        found.append(
            f"trade_exit.risk_reward.base_ratio ({ratio.base_ratio:f}) lies outside min_ratio and max_ratio "
            f"({ratio.min_ratio:f} to {ratio.max_ratio:f})"
        )
    return found
