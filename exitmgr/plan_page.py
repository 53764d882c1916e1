"""The page of the admin site on which a plan is changed: look at what would change first, then mean it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from exitmgr.brackets import open_bracket
from exitmgr.leaving import actor_of, held_figures, one_or_404, page_context
from exitmgr.models import Bracket
from exitmgr.plan_edits import PlanRefused, WouldFireNow, change_plan, preview_plan
from exitmgr.plan_form import PlanForm, plan_text
from exitmgr.plan_previews import PlanPreview, standing_triggers
from exitmgr.queries import positions_on_the_desk
from exitmgr.rules.plan import InvalidPlan, Plan, parse_plan, plan_as_json
from exitmgr.states import TriggerStatus
from positions.admin import show_value
from positions.models import Position

_LONGEST_NOTE: Final = 500


def plan_page(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponse:
    """Ask how the plan should be, show what that would change, and change it once it is confirmed."""
    position = one_or_404(positions_on_the_desk(), object_id)
    bracket = open_bracket(position)
    told: PlanPreview | None = None
    if request.method == "POST" and "confirmed" in request.POST:
        told = _change(request, position)
        if told is None:
            return redirect("admin:positions_position_change", position.pk)
        form = _form(bracket, None)
    else:
        form = _form(bracket, request.POST if request.method == "POST" else None)
        if form.is_bound and form.is_valid():
            told = _previewed(position, form)
    context = {
        **page_context(model_admin, request, title="Change plan"),
        "position": position,
        "held": held_figures(position),
        "form": form,
        "preview": told,
        "fires": ", ".join(told.would_fire) if told else "",
        "rows": list(_rows(bracket, told)) if told else [],
        "document": plan_text(told.plan) if told else "",
        "based_on": json.dumps(bracket.plan if bracket else {}),
        "note": request.POST.get("note", ""),
        "back": reverse("admin:positions_position_change", args=[position.pk]),
    }
    return render(request, "exitmgr/plan.html", context)


def _form(bracket: Bracket | None, data: Any) -> PlanForm:
    standing = standing_triggers(bracket)
    return PlanForm(
        data,
        current=bracket.plan if bracket else {},
        stop_price=bracket.stop_price if bracket else None,
        target_prices=bracket.target_prices if bracket else (),
        fired_rungs={row.rung for row in standing.values() if row.rung and row.status == TriggerStatus.FIRED},
    )


def _previewed(position: Position, form: PlanForm) -> PlanPreview | None:
    try:
        return preview_plan(position, form.plan, now=datetime.now(UTC))
    except InvalidPlan as error:
        form.blame(error)
    except PlanRefused as error:
        form.add_error(None, str(error))
    return None


def _change(request: HttpRequest, position: Position) -> PlanPreview | None:
    """Change the plan as it was shown; return what it would do instead when that is not what was shown."""
    now, given = datetime.now(UTC), request.POST
    meant = set(given.get("would_fire", "").split())
    try:
        plan, based_on = _confirmed(given)
        if meant:
            told = preview_plan(position, plan, now=now)
            if not meant.issuperset(told.would_fire):
                raise WouldFireNow(told)
        change_plan(
            position_id=position.pk, plan=plan, now=now, actor=actor_of(request), based_on=based_on,
            confirm=bool(meant), note=given.get("note", "")[:_LONGEST_NOTE],
        )  # fmt: skip
    except WouldFireNow as error:
        messages.warning(request, "Nothing was changed yet: the price has moved, look again.")
        return error.preview
    except (PlanRefused, InvalidPlan, Position.DoesNotExist) as error:
        messages.error(request, f"Nothing was changed: {error}")
    else:
        messages.success(request, "The plan was changed.")
    return None


def _confirmed(given: Mapping[str, str]) -> tuple[Plan, Any]:
    """Return the plan that was shown and the one it was made from.

    :raises PlanRefused: they are not what this page wrote.
    """
    try:
        return parse_plan(json.loads(given.get("document", ""), parse_float=Decimal)), json.loads(given["based_on"])
    except (KeyError, ValueError, RecursionError):
        raise PlanRefused("the request was not made by this page") from None


def _rows(bracket: Bracket | None, told: PlanPreview) -> Iterator[tuple[str, str, str, bool]]:
    """Yield (what, before, after, whether it differs) of prices, then of each part of the plan that differs."""
    prices = [
        ("Stop-loss", _price(told.stop_before), _price(told.stop_after)),
        ("Nearest stop of all", _price(told.tightest_before), _price(told.tightest_after)),
        ("Targets", _prices(told.targets_before), _prices(told.targets_after)),
    ]
    for name, before, after in prices:
        yield name, before, after, before != after
    was, will_be = bracket.plan if bracket else {}, plan_as_json(told.plan)
    for part in dict.fromkeys([*was, *will_be]):
        if was.get(part) != will_be.get(part):
            yield part, _part(was.get(part)), _part(will_be.get(part)), True


def _price(price: Decimal | None) -> str:
    return show_value(price, places=4)


def _prices(prices: tuple[Decimal, ...]) -> str:
    return ", ".join(map(_price, prices)) or "-"


def _part(part: Any) -> str:
    return "-" if part is None else json.dumps(part)
