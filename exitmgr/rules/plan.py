"""The exit plan as a person writes it: every mistake is refused with its path and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

#: Bounds that keep every level within what a column of 20 digits before and 18 after the point can hold.
LARGEST: Final = Decimal(1_000_000_000)
DECIMALS: Final = 18

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_SHOWN: Final = 40


class InvalidPlan(Exception):
    """A plan was refused; `problems` maps each offending path to what would be right and what was got."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems.items()))
        self.problems = problems


def _number(*, at_most: Decimal, zero: bool = False) -> BeforeValidator:
    def read(given: object) -> Decimal:
        number = _as_decimal(given)
        fits = number is not None and number.is_finite() and (number >= 0 if zero else number > 0) and number <= at_most
        if number is None or not fits:
            least = "from 0 to" if zero else "above 0 and at most"
            raise ValueError(f"must be a number {least} {at_most}; got {_shown(given)}")
        if number != number.quantize(Decimal(1).scaleb(-DECIMALS)):
            raise ValueError(f"must have at most {DECIMALS} decimals; got {_shown(given)}")
        # a zero may carry an exponent whose digits would fill the memory, or a sign
        return Decimal(f"{number:f}") if number else Decimal(0)

    return BeforeValidator(read)


def _as_decimal(given: object) -> Decimal | None:
    if isinstance(given, Decimal):
        return given
    if isinstance(given, str):
        return Decimal(given.strip()) if _NUMBER.fullmatch(given.strip()) else None
    if isinstance(given, float):
        return Decimal(str(given))
    return Decimal(given) if isinstance(given, int) and not isinstance(given, bool) else None


def _whole(*, at_least: int, at_most: int) -> BeforeValidator:
    def read(given: object) -> int:
        number = _as_decimal(given)
        # the bounds come first: the whole number of 1e999999999 would not fit into any memory
        fits = number is not None and number.is_finite() and at_least <= number <= at_most
        if number is None or not fits or number % 1:
            raise ValueError(f"must be a whole number from {at_least} to {at_most}; got {_shown(given)}")
        return int(number)

    return BeforeValidator(read)


#: Ten years: longer than anybody holds a position without looking at its plan again.
LONGEST_SECONDS: Final = 315_360_000
LONGEST_PERIOD: Final = 1_000

#: Written out: 0.0000000123, not 1.23E-8.
_Number = Annotated[Decimal, PlainSerializer(lambda number: f"{number:f}", return_type=str, when_used="json")]

# Field publishes the bounds in the schema, the validator words the refusal
Positive = Annotated[_Number, Field(gt=0, le=LARGEST), _number(at_most=LARGEST)]
Percentage = Annotated[_Number, Field(gt=0, le=100), _number(at_most=Decimal(100))]
Seconds = Annotated[int, Field(ge=1, le=LONGEST_SECONDS), _whole(at_least=1, at_most=LONGEST_SECONDS)]
Elapsed = Annotated[int, Field(ge=0, le=LONGEST_SECONDS), _whole(at_least=0, at_most=LONGEST_SECONDS)]
Minutes = Annotated[int, Field(ge=0, le=1_440), _whole(at_least=0, at_most=1_440)]
Period = Annotated[int, Field(ge=1, le=LONGEST_PERIOD), _whole(at_least=1, at_most=LONGEST_PERIOD)]
Ordinal = Annotated[int, Field(ge=1, le=1_000), _whole(at_least=1, at_most=1_000)]


def _many(given: object) -> object:
    return [] if given is None else given


def _one_or_many(given: object) -> object:
    return [given] if isinstance(given, dict) else _many(given)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Atr(_Part):
    """A multiple of the Average True Range over `period` bars, measured when the position is opened."""

    period: Period = 14
    multiple: Positive = Decimal(2)


class _Exit(_Part):
    """How the exit goes to the broker."""

    order_type: Literal["market", "limit"] = "market"
    time_in_force: Literal["day", "gtc", "ioc", "fok", "opg", "cls"] | None = None


class StopLoss(_Exit):
    """Where to give up: percent of the entry price, an absolute price, a distance from it, or a multiple of ATR."""

    pct: Percentage | None = None
    price: Positive | None = None
    distance: Positive | None = None
    atr: Atr | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> StopLoss:
        _require_one(pct=self.pct, price=self.price, distance=self.distance, atr=self.atr)
        return self


class DecayStep(_Part):
    """From so many seconds after the entry on, the target lies at this percentage of the entry price."""

    after_seconds: Elapsed
    pct: Positive


class TakeProfit(_Exit):
    """One rung: percent of the entry price, an absolute price, a multiple of the distance to the stop, or a decay."""

    pct: Positive | None = None
    price: Positive | None = None
    rr: Positive | None = None
    schedule: Annotated[tuple[DecayStep, ...], Field(min_length=1)] | None = None
    fraction_pct: Percentage = Decimal(100)

    @model_validator(mode="after")
    def _exactly_one(self) -> TakeProfit:
        _require_one(pct=self.pct, price=self.price, rr=self.rr, schedule=self.schedule)
        return self


class Trailing(_Part):
    """What to give back from the best price: percent of it, a distance, or a multiple of ATR.

    With `activation_pct` it starts at that profit, in percent of the entry price.
    """

    pct: Percentage | None = None
    distance: Positive | None = None
    atr: Atr | None = None
    activation_pct: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Trailing:
        _require_one(pct=self.pct, distance=self.distance, atr=self.atr)
        return self


class BreakEven(_Part):
    """A stop at the entry price, `offset_pct` percent beyond it, set at a profit or after a rung.

    With `include_fees` it lies where what the entry cost in fees, and as much for the exit, is earned as well.
    """

    at_profit_pct: Positive | None = None
    after_rung: Ordinal | None = None
    offset_pct: Annotated[_Number, Field(ge=0, le=100), _number(at_most=Decimal(100), zero=True)] = Decimal(0)
    include_fees: bool = False

    @model_validator(mode="after")
    def _exactly_one(self) -> BreakEven:
        _require_one(at_profit_pct=self.at_profit_pct, after_rung=self.after_rung)
        return self


class Stagnation(_Part):
    """Leave when the price has not moved `move_pct` percent either way for so many seconds."""

    seconds: Seconds
    move_pct: Percentage


class SessionClose(_Part):
    """Leave so many minutes before the session of the instrument's exchange ends."""

    minutes_before: Minutes = 10


class Plan(_Part):
    """An exit plan; every part is optional.

    `price_source` says what it is judged on: what the position could trade at (bid for a long, ask for a short), the
    last trade, or the middle of bid and ask.
    """

    stop_loss: StopLoss | None = None
    take_profits: Annotated[tuple[TakeProfit, ...], BeforeValidator(_many)] = ()
    trailing: Annotated[tuple[Trailing, ...], BeforeValidator(_one_or_many)] = ()
    break_even: BreakEven | None = None
    time_limit_seconds: Seconds | None = None
    stagnation: Stagnation | None = None
    session_close: SessionClose | None = None
    price_source: Literal["tradable", "last", "mid"] = "tradable"

    @model_validator(mode="after")
    def _parts_fit(self) -> Plan:
        problems = dict(self._misfits())
        if problems:
            raise InvalidPlan(problems)
        return self

    def _misfits(self) -> Iterator[tuple[str, str]]:
        for index, rung in enumerate(self.take_profits):
            if rung.rr is not None and self.stop_loss is None:
                yield f"take_profits.{index}.rr", "needs a stop_loss to measure the risk from"
            times = [step.after_seconds for step in rung.schedule or ()]
            for number, (earlier, later) in enumerate(pairwise(times), start=1):
                if later <= earlier:
                    path = f"take_profits.{index}.schedule.{number}.after_seconds"
                    yield path, f"must be above the {earlier} of the step before it; got {later}"
        if self.break_even is not None:
            rule, rungs = self.break_even, len(self.take_profits)
            if rule.after_rung is not None and rule.after_rung > rungs:
                allowed = f"must be from 1 to {rungs}" if rungs else "needs take_profits to come after"
                yield "break_even.after_rung", f"{allowed}; got {rule.after_rung}"
            if rule.at_profit_pct is not None and rule.offset_pct >= rule.at_profit_pct:
                why = f"must be below at_profit_pct ({rule.at_profit_pct}), or it would fire at once"
                yield "break_even.offset_pct", f"{why}; got {rule.offset_pct}"

    @property
    def atr_periods(self) -> frozenset[int]:
        """Return the periods this plan needs an Average True Range over."""
        asking = [self.stop_loss, *self.trailing]
        return frozenset(part.atr.period for part in asking if part is not None and part.atr is not None)


def _require_one(**given: object) -> None:
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValueError(f"must have exactly one of {', '.join(given)}; got {', '.join(named) or 'none'}")


def parse_plan(given: Any) -> Plan:
    """Return the plan in a JSON object; numbers may be strings.

    :raises InvalidPlan: with the path of every offending field.
    """
    if isinstance(given, Plan):
        return given
    try:
        return Plan.model_validate(given if given is not None else {})
    except ValidationError as error:
        problems: dict[str, str] = {}
        for issue in error.errors():
            if issue["type"] == "too_short" and issue["input"]:
                continue  # it is empty only because its elements are wrong, which is said of each
            path = ".".join(_named(part) for part in _as_written(issue["loc"], given)) or "plan"
            problems.setdefault(path, _worded(issue))
        raise InvalidPlan(problems) from None


def _as_written(loc: tuple[int | str, ...], given: Any) -> tuple[int | str, ...]:
    """Return a path in the plan as it was given: a single trail may be written without a list."""
    single = isinstance(given, dict) and isinstance(given.get("trailing"), dict)
    return (loc[0], *loc[2:]) if single and loc[:2] == ("trailing", 0) else loc


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, decimals as strings, parts that were not given left out."""
    return plan.model_dump(mode="json", exclude_none=True, exclude_unset=True)


def _named(part: int | str) -> str:
    """Return a piece of a path on one line, however it was spelled."""
    named = str(part) if str(part).isprintable() else repr(part)
    return named if len(named) <= _SHOWN else f"{named[:_SHOWN]}..."


#: What is said of a mistake, by pydantic's name for it; `{got}` is what was written, `{expected}` what may be.
_WORDS: Final[dict[str, str]] = {
    "tuple_type": "must be a list of objects; got {got}",
    "too_short": "must not be empty",
    "missing": "is required",
    "literal_error": "must be {expected}; got {got}",
    "bool_parsing": "must be true or false; got {got}",
    "bool_type": "must be true or false; got {got}",
    "string_unicode": "must be text that can be written in UTF-8; got {got}",
    "invalid_key": "is no key; keys are text",
}


def _worded(issue: ErrorDetails) -> str:
    loc, context, got = issue["loc"], issue.get("ctx", {}), _shown(issue["input"])
    match issue["type"]:
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return f"is unknown; known here: {', '.join(_part_at(loc[:-1]).model_fields)}"
        case "model_type":
            return f"must be an object with any of {', '.join(_part_at(loc).model_fields)}; got {got}"
        case "tuple_type" if loc == ("trailing",):
            return f"must be an object or a list of objects; got {got}"
    if issue["type"] in _WORDS:
        return _WORDS[issue["type"]].format(got=got, expected=context.get("expected", ""))
    return f"{issue['msg']}; got {got}"


def _part_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    part: type[BaseModel] = Plan
    for key in loc:
        field = part.model_fields.get(key) if isinstance(key, str) else None
        part = next(_parts_in(field.annotation), part) if field else part
    return part


def _parts_in(annotation: Any) -> Iterator[type[BaseModel]]:
    inner = get_args(annotation)
    if not inner and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in inner:
        yield from _parts_in(each)


def _shown(given: object) -> str:
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, dict):
        return "an object"
    if isinstance(given, list | tuple):
        return "a list"
    text = str(Decimal(given)) if isinstance(given, int) else str(given)
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return repr(text) if isinstance(given, str) else text
