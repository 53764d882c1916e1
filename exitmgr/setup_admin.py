"""The admin site's pages for what people set up: accounts, instruments, users, roles and tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest, HttpResponse
from knox.models import AuthToken
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminURLInputWidget

from exitmgr.account_page import (
    account_flatten_page,
    account_switch_page,
    overall_flatten_page,
    overall_switch_page,
)
from exitmgr.leaving import actor_of
from exitmgr.loss_watches import watch_of
from exitmgr.reference_data import add_instrument, change_account, change_instrument
from exitmgr.tokens import revoke_token
from positions.admin import PlainColumns, RowAdmin, show_value
from positions.calendars import UnknownCalendar, require_calendar
from positions.models import Account, Instrument
from positions.values import TradingState

_STATE_LABELS = {"active": "success", "reduce_only": "warning", "halted": "danger"}


class AccountForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's forms take no parameter at run time
    """Limits, and a way to replace credentials that never shows them."""

    base_url = forms.URLField(
        required=False,
        max_length=200,
        assume_scheme="https",
        help_text="Where the broker answers; its default when empty.",
        widget=UnfoldAdminURLInputWidget,
    )
    key = forms.CharField(
        required=False,
        max_length=200,
        label="New API key",
        help_text="Leave both empty to keep the credentials; stored encrypted, never shown.",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
    )
    secret = forms.CharField(
        required=False,
        max_length=200,
        label="New API secret",
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
    )

    class Meta:
        model = Account
        fields = (
            "base_url", "max_order_notional", "max_open_positions", "max_daily_loss", "max_drawdown", "loss_action",
        )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        """Refuse half a pair of credentials."""
        given: dict[str, Any] = super().clean() or {}
        if bool(given.get("key")) != bool(given.get("secret")):
            raise forms.ValidationError("Give both the new key and the new secret, or neither.")
        return given


@admin.register(Account)
class AccountAdmin(PlainColumns, ModelAdmin):
    """Accounts: limits, credentials to be replaced, and pages that ask before the kill switch is set."""

    form = AccountForm
    list_display = (
        "name", "broker", "state_label", "loss_label", "max_order_notional_plain", "max_open_positions",
        "max_daily_loss_plain", "max_drawdown_plain", "base_url", "updated_at_plain",
    )  # fmt: skip
    list_filter = ("broker", "trading_state")
    search_fields = ("name",)
    ordering: ClassVar[Any] = ("name",)
    readonly_fields = ("name", "broker", "state_label", "created_at_plain", "updated_at_plain", "losses")
    fieldsets: ClassVar[Any] = (
        (None, {"fields": (("name", "broker", "state_label"), "base_url", ("created_at_plain", "updated_at_plain"))}),
        ("Limits", {"fields": (("max_order_notional", "max_open_positions"),)}),
        ("Loss limits", {"fields": (("max_daily_loss", "max_drawdown"), "loss_action", "losses")}),
        ("Credentials", {"fields": (("key", "secret"),)}),
    )

    actions_detail: ClassVar[Any] = ("halt", "reduce_only", "resume", "flatten")
    actions_list: ClassVar[Any] = ("switch_all", "flatten_all")

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return accounts with what they have lost, without their credentials."""
        return Account.objects.select_related("loss_watch").defer("credentials")

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> Any:
        """Return the sections; the fields for credentials only for who may replace them."""
        sections = super().get_fieldsets(request, obj)
        return sections if self.has_change_permission(request, obj) else sections[:-1]

    def has_add_permission(self, _request: HttpRequest) -> bool:
        """Refuse: an account is added where its broker is wired."""
        return False

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Refuse: positions and orders refer to it."""
        return False

    @display(description="trading", ordering="trading_state", label=_STATE_LABELS)
    def state_label(self, account: Account) -> str:
        """Return the trading state."""
        return str(account.trading_state)

    @display(description="loss limit", label={"within": "success", "daily_loss": "danger", "drawdown": "danger"})
    def loss_label(self, account: Account) -> str:
        """Return the limit that was hit and not reset since, or that there is none of that."""
        watch = watch_of(account)
        return "-" if watch is None else watch.reason or "within"

    @admin.display(description="Losses")
    def losses(self, account: Account) -> str:
        """Return what losses are measured from, as noted last, and the limit that was hit."""
        watch = watch_of(account)
        if watch is None or watch.noted_at is None:
            return "not watched"
        figures = [
            f"P&L {show_value(watch.pnl, places=2)} at {watch.noted_at:%Y-%m-%d %H:%M:%S} UTC",
            f"{show_value(watch.day_start_pnl, places=2)} when {watch.day} began",
            f"best {show_value(watch.best_pnl, places=2)}",
        ]
        if watch.hit_at is not None:
            figures.append(f"{watch.reason} limit hit at {watch.hit_at:%Y-%m-%d %H:%M:%S} UTC, not reset yet")
        return "; ".join(figures)

    def has_switch_permission(self, request: HttpRequest, _object_id: Any = None) -> bool:
        """Return whether the user may stop trading and leave everything."""
        return bool(request.user.has_perm("positions.change_tradingswitch"))

    @action(description="Halt…", url_path="halt", icon="front_hand", permissions=["switch"])
    def halt(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send nothing by itself, after a page that asks."""
        return account_switch_page(self, request, object_id, state=TradingState.HALTED)

    @action(description="Reduce only…", url_path="reduce-only", icon="trending_down", permissions=["switch"])
    def reduce_only(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Take no entries, after a page that asks."""
        return account_switch_page(self, request, object_id, state=TradingState.REDUCE_ONLY)

    @action(description="Resume…", url_path="resume", icon="play_arrow", permissions=["switch"])
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Allow everything again, after a page that asks."""
        return account_switch_page(self, request, object_id, state=TradingState.ACTIVE)

    @action(
        description="Flatten…",
        url_path="flatten",
        icon="emergency_home",
        variant=ActionVariant.DANGER,
        permissions=["switch"],
    )
    def flatten(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Leave everything the account holds, after a page that asks for its name."""
        return account_flatten_page(self, request, object_id)

    @action(description="All accounts…", url_path="switch-all", icon="front_hand", permissions=["switch"])
    def switch_all(self, request: HttpRequest) -> HttpResponse:
        """Set what all accounts may do at most, after a page that asks."""
        return overall_switch_page(self, request)

    @action(
        description="Flatten everything…",
        url_path="flatten-all",
        icon="emergency_home",
        variant=ActionVariant.DANGER,
        permissions=["switch"],
    )
    def flatten_all(self, request: HttpRequest) -> HttpResponse:
        """Leave everything in all accounts, after a page that asks."""
        return overall_flatten_page(self, request)

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        """Hand what was changed to the verb that journals it."""
        given = form.cleaned_data
        values = {name: given[name] for name in form.changed_data if name in AccountForm.Meta.fields}
        if given.get("key"):
            values["credentials"] = {"key": given["key"], "secret": given["secret"]}
        change_account(account_id=obj.pk, values=values, now=datetime.now(UTC), actor=actor_of(request))


class InstrumentForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's forms take no parameter at run time
    """An instrument in a calendar that exists."""

    def clean_calendar(self) -> str:
        """Refuse a calendar there is not."""
        try:
            return require_calendar(self.cleaned_data["calendar"])
        except UnknownCalendar as error:
            raise forms.ValidationError(str(error)) from None


@admin.register(Instrument)
class InstrumentAdmin(PlainColumns, ModelAdmin):
    """Instruments and the increments they trade in."""

    form = InstrumentForm
    list_display = (
        "symbol", "asset_class", "tick_plain", "lot_plain", "min_notional_plain", "dust_plain", "collar_pct_plain",
        "calendar", "shortable", "tradable",
    )  # fmt: skip
    list_filter = ("asset_class", "tradable", "shortable", "calendar")
    search_fields = ("symbol",)
    ordering: ClassVar[Any] = ("symbol",)

    def get_readonly_fields(self, request: HttpRequest, obj: Instrument | None = None) -> Any:
        """Return the symbol once it exists: positions know it by that name."""
        return ("symbol",) if obj else ()

    def has_delete_permission(self, _request: HttpRequest, _obj: Any = None) -> bool:
        """Refuse: positions and orders refer to it."""
        return False

    def save_model(self, request: HttpRequest, obj: Instrument, form: Any, change: bool) -> None:
        """Hand what was given to the verb that journals it."""
        now, actor = datetime.now(UTC), actor_of(request)
        if change:
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            change_instrument(instrument_id=obj.pk, values=values, now=now, actor=actor)
        else:
            obj.pk = add_instrument(values=form.cleaned_data, now=now, actor=actor).pk


admin.site.unregister(User)
admin.site.unregister(Group)
admin.site.unregister(AuthToken)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]  # it takes no parameter at run time
    """People."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):
    """Roles."""


@admin.register(AuthToken)
class TokenAdmin(RowAdmin):
    """Tokens of the API: whose, until when; deleting one revokes it. The command line makes them."""

    list_display = ("token_key", "user", "created_plain", "expiry_plain")
    list_select_related = ("user",)
    search_fields = ("token_key", "user__username")
    ordering: ClassVar[Any] = ("-created",)
    fields = ("token_key", "user", "created", "expiry")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may revoke tokens."""
        return bool(request.user.has_perm("knox.delete_authtoken"))

    def delete_model(self, request: HttpRequest, obj: AuthToken) -> None:
        """Hand the token to the verb that journals its end."""
        revoke_token(obj, now=datetime.now(UTC), actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Revoke each chosen token."""
        for row in queryset.select_related("user"):
            self.delete_model(request, row)
