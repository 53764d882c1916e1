"""The form in which a person changes a plan: fields for the usual moves, the whole plan as JSON for everything else."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from exitmgr.plan_edits import merged_plan
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan, plan_as_json
from positions.wire import spell

_BOTH: Final = "Change either the fields or the plan as JSON, not both."
_AS_JSON: Final = "Change it in the plan as JSON."


class PlanForm(forms.Form):
    """How a plan should be; once it is valid `plan` holds it. Fields that are left alone change nothing."""

    plan: Plan

    def __init__(
        self,
        data: Any = None,
        *,
        current: Mapping[str, Any],
        stop_price: Decimal | None,
        target_prices: Sequence[str],
        fired_rungs: Collection[int],
    ) -> None:
        super().__init__(data)
        self.current = current
        before = parse_plan(current)
        self.rungs = len(before.take_profits)
        self.fields["stop_price"] = _number("Stop price", stop_price, help_text="Empty: no stop-loss.")
        for number, (rung, price) in enumerate(zip(before.take_profits, target_prices, strict=False), start=1):
            why = f"Closes {rung.fraction_pct:f} % of what remains. Empty: no such target."
            fixed = number in fired_rungs or rung.schedule is not None
            if fixed:
                why = "Has fired." if number in fired_rungs else f"Moves as time passes. {_AS_JSON}"
            label = f"Target {number} price"
            self.fields[f"target_{number}"] = _number(label, Decimal(price), help_text=why, disabled=fixed)
        self.fields["new_target"] = _number("Another target, price", None)
        self.fields["new_fraction"] = _number(
            "Another target, percentage", None, help_text="Of what remains; all of it when empty."
        )
        self._add_trail(before)
        self._add_break_even(before)
        self.fields["time_limit_seconds"] = _number(
            "Time limit", before.time_limit_seconds, help_text="Seconds from the entry on. Empty: none."
        )
        self.fields["document"] = forms.CharField(
            label="The whole plan",
            required=False,
            max_length=20_000,
            initial=json.dumps(current, indent=2),
            help_text="As the API takes it. For everything that has no field above.",
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 12, "spellcheck": "false", "class": "font-mono"}),
        )
        self.fields["note"] = forms.CharField(
            required=False,
            max_length=500,
            label="Why",
            help_text="Kept in the journal.",
            widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        )

    def clean(self) -> dict[str, Any]:
        """Work out the plan; each mistake is shown at the field it was made in."""
        given: dict[str, Any] = super().clean() or {}
        document = self._document(given.get("document", ""))
        if document is None:
            return given
        parts = self._parts(given)
        if document != self.current and parts:
            self.add_error("document", _BOTH)
            return given
        try:
            self.plan = merged_plan(self.current, parts) if parts else parse_plan(document)
        except InvalidPlan as error:
            self.blame(error)
        return given

    def blame(self, error: InvalidPlan) -> None:
        """Show what is wrong with the plan at the fields it came from."""
        for path, text in error.problems.items():
            field = self._field_of(path)
            self.add_error(field, text if field != "document" else f"{path}: {text}")

    def _add_trail(self, before: Plan) -> None:
        fixed = len(before.trailing) > 1 or any(trail.atr is not None for trail in before.trailing)
        why = f"There are several trails, or one by ATR. {_AS_JSON}" if fixed else "Both empty: no trail."
        shown = [(trail.pct, trail.distance, trail.activation_pct) for trail in before.trailing if not fixed]
        pct, distance, activation_pct = shown[0] if shown else (None, None, None)
        self.fields["trail_pct"] = _number("Trail, percent", pct, help_text=why, disabled=fixed)
        self.fields["trail_distance"] = _number("Trail, distance", distance, disabled=fixed)
        self.fields["trail_activation_pct"] = _number(
            "Trail starts at a profit of", activation_pct, disabled=fixed,
            help_text="Percent of the entry price; at once when empty.",
        )  # fmt: skip

    def _add_break_even(self, before: Plan) -> None:
        rule = before.break_even
        fixed = rule is not None and rule.at_profit_pct is None
        why = f"It is set after a rung. {_AS_JSON}" if fixed else "Percent of the entry price. Empty: none."
        start, offset = (rule.at_profit_pct, rule.offset_pct) if rule is not None else (None, None)
        self.fields["break_even_pct"] = _number("Break-even at a profit of", start, help_text=why, disabled=fixed)
        self.fields["break_even_offset_pct"] = _number(
            "Break-even offset", offset, disabled=fixed, help_text="Percent beyond the entry price."
        )

    def _document(self, text: str) -> Any:
        try:
            return json.loads(text or "{}", parse_float=Decimal, object_pairs_hook=_object)
        except RecursionError:
            self.add_error("document", "is nested too deeply")
        except ValueError as error:
            self.add_error("document", f"is not valid JSON: {error}")
        return None

    def _parts(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts of the plan that the fields change."""
        changed, parts = {name for name in self.changed_data if name in given}, dict[str, Any]()
        if "stop_price" in changed:
            kept = self._terms(self.current.get("stop_loss"))
            parts["stop_loss"] = {**kept, "price": given["stop_price"]} if given["stop_price"] else None
        if any(name.startswith("target_") or name in ("new_target", "new_fraction") for name in changed):
            parts["take_profits"] = self._targets(given, changed)
        if changed & {"trail_pct", "trail_distance", "trail_activation_pct"}:
            trail = {"pct": given["trail_pct"], "distance": given["trail_distance"]}
            parts["trailing"] = _filled({**trail, "activation_pct": given["trail_activation_pct"]}) or None
        if changed & {"break_even_pct", "break_even_offset_pct"}:
            terms = {"at_profit_pct": given["break_even_pct"], "offset_pct": given["break_even_offset_pct"]}
            kept = {name: part for name, part in (self.current.get("break_even") or {}).items() if name not in terms}
            parts["break_even"] = {**kept, **_filled(terms)} if given["break_even_pct"] else None
        if "time_limit_seconds" in changed:
            parts["time_limit_seconds"] = given["time_limit_seconds"] or None
        return parts

    def _targets(self, given: Mapping[str, Any], changed: Collection[str]) -> list[dict[str, Any]]:
        rungs: list[dict[str, Any]] = []
        for number, rung in enumerate(self.current.get("take_profits", ()), start=1):
            name = f"target_{number}"
            if name not in changed:
                rungs.append(rung)
            elif given[name]:
                rungs.append({**self._terms(rung), "price": given[name]})
        added = _filled({"price": given["new_target"], "fraction_pct": given["new_fraction"]})
        return [*rungs, added] if added else rungs

    def _terms(self, part: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what stays of a stop or target when its price is given anew."""
        return {
            name: value for name, value in (part or {}).items() if name not in ("pct", "price", "distance", "atr", "rr")
        }

    def _field_of(self, path: str) -> str:
        """Return the field a path of the plan was written in: the JSON, unless a field was changed."""
        part, _, rest = path.partition(".")
        names: list[str] = []
        if part == "take_profits":
            index, _, key = rest.partition(".")
            number = int(index) + 1 if index.isdecimal() else 0
            new = "new_fraction" if key == "fraction_pct" else "new_target"
            names = [f"target_{number}" if number <= self.rungs else new, "new_target", "new_fraction"]
        elif part == "trailing":
            names = [f"trail_{rest.rpartition('.')[2]}", "trail_pct", "trail_distance", "trail_activation_pct"]
        elif part == "break_even":
            names = ["break_even_offset_pct" if rest.endswith("offset_pct") else "break_even_pct", "break_even_pct"]
        elif part in ("stop_loss", "time_limit_seconds"):
            names = ["stop_price" if part == "stop_loss" else part]
        return next((name for name in names if name in self.changed_data), "document")


def plan_text(plan: Plan) -> str:
    """Return a plan as the form's JSON field takes it."""
    return json.dumps(plan_as_json(plan))


def _number(label: str, value: Decimal | int | None, *, help_text: str = "", disabled: bool = False) -> forms.CharField:
    """Return a field for a number; the plan's own validation reads it, so that it is refused in the same words."""
    return forms.CharField(
        label=label,
        required=False,
        max_length=64,
        initial="" if value is None else spell(Decimal(value)),
        disabled=disabled,
        help_text=help_text,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


def _filled(terms: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in terms.items() if text}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    return found
