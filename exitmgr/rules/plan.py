"""The exit plan as a person writes it: every mistake is refused with its path and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
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


def _number(*, at_most: Decimal) -> BeforeValidator:
    def read(given: object) -> Decimal:
        number = _as_decimal(given)
        if number is None or not number.is_finite() or not 0 < number <= at_most:
            raise ValueError(f"must be a number above 0 and at most {at_most}; got {_shown(given)}")
        if number != number.quantize(Decimal(1).scaleb(-DECIMALS)):
            raise ValueError(f"must have at most {DECIMALS} decimals; got {_shown(given)}")
        return Decimal(f"{number:f}")

    return BeforeValidator(read)


def _as_decimal(given: object) -> Decimal | None:
    if isinstance(given, Decimal):
        return given
    if isinstance(given, str):
        return Decimal(given.strip()) if _NUMBER.fullmatch(given.strip()) else None
    if isinstance(given, float):
        return Decimal(str(given))
    return Decimal(given) if isinstance(given, int) and not isinstance(given, bool) else None


# Field publishes the bounds in the schema, the validator words the refusal
Positive = Annotated[Decimal, Field(gt=0, le=LARGEST), _number(at_most=LARGEST)]
Percentage = Annotated[Decimal, Field(gt=0, le=100), _number(at_most=Decimal(100))]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StopLoss(_Part):
    """Where to give up: percent of the entry price, an absolute price, or a distance from the entry price."""

    pct: Percentage | None = None
    price: Positive | None = None
    distance: Positive | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> StopLoss:
        _require_one(pct=self.pct, price=self.price, distance=self.distance)
        return self


class TakeProfit(_Part):
    """One rung: percent of the entry price, an absolute price, or a multiple of the distance to the stop."""

    pct: Positive | None = None
    price: Positive | None = None
    rr: Positive | None = None
    fraction_pct: Percentage = Decimal(100)

    @model_validator(mode="after")
    def _exactly_one(self) -> TakeProfit:
        _require_one(pct=self.pct, price=self.price, rr=self.rr)
        return self


class Plan(_Part):
    """An exit plan; every part is optional."""

    stop_loss: StopLoss | None = None
    take_profits: tuple[TakeProfit, ...] = ()

    @model_validator(mode="after")
    def _ratio_needs_stop(self) -> Plan:
        if self.stop_loss is None:
            lost = [index for index, rung in enumerate(self.take_profits) if rung.rr is not None]
            if lost:
                why = "needs a stop_loss to measure the risk from"
                raise InvalidPlan({f"take_profits.{index}.rr": why for index in lost})
        return self


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
            path = ".".join(str(part) for part in issue["loc"]) or "plan"
            problems.setdefault(path, _worded(issue))
        raise InvalidPlan(problems) from None


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values, decimals as strings, unset parts left out."""
    return plan.model_dump(mode="json", exclude_none=True)


def _worded(issue: ErrorDetails) -> str:
    loc = issue["loc"]
    match issue["type"]:
        case "value_error":
            return str(issue["ctx"]["error"])
        case "extra_forbidden":
            return f"is unknown; known here: {', '.join(_part_at(loc[:-1]).model_fields)}"
        case "model_type":
            keys = ", ".join(_part_at(loc).model_fields)
            return f"must be an object with any of {keys}; got {_shown(issue['input'])}"
        case "tuple_type":
            return f"must be a list of objects; got {_shown(issue['input'])}"
    return f"{issue['msg']}; got {_shown(issue['input'])}"


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
