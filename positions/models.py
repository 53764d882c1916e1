"""What we hold and what it is worth. The database refuses what must never be true; see each constraint's name."""

from __future__ import annotations

from decimal import Decimal

from django.db import models
from django.db.models import CheckConstraint, F, Q, UniqueConstraint

from positions.fields import EncryptedField, NumberField
from positions.states import PositionStatus
from positions.values import AssetClass, LossAction, Side, TradingState


class Account(models.Model):
    """One account at one broker."""

    name = models.SlugField(max_length=64, unique=True)
    broker = models.CharField(max_length=32, help_text="Adapter: paper, alpaca.")
    base_url = models.URLField(
        max_length=200, blank=True, help_text="Where the broker answers; empty means its default."
    )
    credentials = EncryptedField(null=True, blank=True)
    trading_state = models.CharField(
        max_length=16, choices=[(state, state) for state in TradingState], default=TradingState.ACTIVE
    )
    max_order_notional = NumberField(null=True, blank=True, help_text="Largest entry order, quantity x price.")
    max_open_positions = models.PositiveIntegerField(null=True, blank=True)
    max_daily_loss = NumberField(
        null=True, blank=True, help_text="Largest loss of one UTC day, realised and not; empty means any."
    )
    max_drawdown = NumberField(
        null=True, blank=True, help_text="Largest fall from the best P&L since the limit was set; empty means any."
    )
    loss_action = models.CharField(
        max_length=16,
        choices=[(action, action) for action in LossAction],
        default=LossAction.REDUCE_ONLY,
        db_default=LossAction.REDUCE_ONLY,
        help_text="At a loss limit no entries are taken; flatten also leaves every position at once.",
    )
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            CheckConstraint(
                name="account_trading_state_is_known",
                condition=Q(trading_state__in=[str(state) for state in TradingState]),
            ),
            CheckConstraint(
                name="account_notional_limit_is_positive",
                condition=Q(max_order_notional__isnull=True) | Q(max_order_notional__gt=0),
            ),
            CheckConstraint(
                name="account_loss_limits_are_positive",
                condition=(Q(max_daily_loss__isnull=True) | Q(max_daily_loss__gt=0))
                & (Q(max_drawdown__isnull=True) | Q(max_drawdown__gt=0)),
                violation_error_message="A loss limit is an amount of money above 0; leave it empty for none.",
            ),
            CheckConstraint(
                name="account_loss_action_is_known", condition=Q(loss_action__in=[str(action) for action in LossAction])
            ),
        ]

    def __str__(self) -> str:
        return self.name


class LossWatch(models.Model):
    """What an account with a loss limit has made so far, what its losses are measured from, and the breach it had.

    All P&L is the account's cumulative one in the quote currency: realised of all its positions, net of fees, plus
    unrealised. A breach stays (`hit_at`), with the figures as they were then, until a person resets it.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="loss_watch")
    since = models.DateTimeField(help_text="When the watch began, or was last reset.")
    settled_pnl = NumberField(default=Decimal(0), help_text="Of closed positions that are no longer summed up.")
    pnl = NumberField(null=True, blank=True, help_text="As noted last.")
    noted_at = models.DateTimeField(null=True, blank=True)
    day = models.DateField(null=True, blank=True, help_text="The UTC day the daily loss is counted in.")
    day_start_pnl = NumberField(null=True, blank=True)
    best_pnl = NumberField(null=True, blank=True, help_text="The highest since there is a drawdown limit.")
    hit_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=16, blank=True, help_text="The limit that was hit: daily_loss, drawdown.")
    action = models.CharField(max_length=16, blank=True, help_text="What was to be done when it was hit.")
    state_before = models.CharField(max_length=16, blank=True, help_text="The trading state a reset gives back.")

    class Meta:
        constraints = [
            CheckConstraint(
                name="losswatch_breach_is_whole",
                condition=Q(hit_at__isnull=True, reason="", action="", state_before="")
                | Q(
                    hit_at__isnull=False,
                    reason__in=["daily_loss", "drawdown"],
                    action__in=[str(action) for action in LossAction],
                    state_before__in=[str(state) for state in TradingState],
                ),
            ),
            CheckConstraint(
                name="losswatch_day_has_its_start",
                condition=Q(day__isnull=True, day_start_pnl__isnull=True, pnl__isnull=True, noted_at__isnull=True)
                | Q(day__isnull=False, day_start_pnl__isnull=False, pnl__isnull=False, noted_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.account_id}: {self.reason or 'within its limits'}"


class TradingSwitch(models.Model):
    """The kill switch over all accounts: one row, which holds whatever an account's own says."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    state = models.CharField(
        max_length=16, choices=[(state, state) for state in TradingState], default=TradingState.ACTIVE
    )
    note = models.TextField(blank=True)
    set_by = models.CharField(max_length=150, blank=True)
    set_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            CheckConstraint(name="switch_is_one_row", condition=Q(id=1)),
            CheckConstraint(
                name="switch_state_is_known", condition=Q(state__in=[str(state) for state in TradingState])
            ),
        ]

    def __str__(self) -> str:
        return f"all accounts: {self.state}"


class Instrument(models.Model):
    """Something that can be held, with the increments its venue trades it in."""

    symbol = models.CharField(max_length=32, unique=True)
    asset_class = models.CharField(
        max_length=16, choices=[(kind, kind) for kind in AssetClass], default=AssetClass.EQUITY
    )
    tick = NumberField(default=Decimal("0.01"), help_text="Smallest price step.")
    lot = NumberField(default=Decimal(1), help_text="Smallest quantity step.")
    min_notional = NumberField(default=Decimal(0))
    dust = NumberField(default=Decimal("0.001"), help_text="A remainder below this counts as closed.")
    collar_pct = NumberField(
        default=Decimal(20), help_text="A single print further than this many percent away needs a second one."
    )
    confirm_seconds = models.PositiveIntegerField(
        null=True, blank=True, help_text="A print outside the collar that stands so long is believed without a second."
    )
    max_age_seconds = models.PositiveIntegerField(default=60, help_text="An older price decides nothing.")
    max_spread_pct = NumberField(
        null=True, blank=True, help_text="A wider spread, in percent of the mid, is not believed; empty means any is."
    )
    calendar = models.CharField(
        max_length=16, default="XNYS", help_text="Exchange calendar (ISO 10383); 24/7 for crypto."
    )
    shortable = models.BooleanField(default=True)
    tradable = models.BooleanField(default=True)

    class Meta:
        constraints = [
            CheckConstraint(
                name="instrument_steps_are_positive",
                condition=Q(tick__gt=0, lot__gt=0, dust__gte=0, min_notional__gte=0, collar_pct__gt=0),
            ),
            CheckConstraint(
                name="instrument_ages_and_spread_are_positive",
                condition=Q(max_age_seconds__gt=0) & (Q(max_spread_pct__isnull=True) | Q(max_spread_pct__gt=0)),
            ),
            CheckConstraint(
                name="instrument_confirms_before_it_ages",
                condition=Q(confirm_seconds__isnull=True) | Q(confirm_seconds__lt=F("max_age_seconds")),
                violation_error_message="A print must be confirmed before it is too old: confirm_seconds below "
                "max_age_seconds.",
            ),
            CheckConstraint(name="instrument_symbol_is_not_empty", condition=~Q(symbol="")),
        ]

    def __str__(self) -> str:
        return self.symbol


class Position(models.Model):
    """One holding that has to be left one day. Several may be open in one symbol.

    `reserved` is what live exits have claimed; it is written only under the position's lock.
    """

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="positions", db_index=False)
    instrument = models.ForeignKey(Instrument, on_delete=models.PROTECT, related_name="positions")
    strategy = models.CharField(max_length=64, blank=True)
    side = models.SmallIntegerField(choices=[(side.value, side.word) for side in Side])
    status = models.CharField(
        max_length=16, choices=[(status, status) for status in PositionStatus], default=PositionStatus.OPEN
    )
    quantity = NumberField(help_text="Entered in all.")
    exited = NumberField(default=Decimal(0), help_text="Sold (or bought back) so far.")
    reserved = NumberField(default=Decimal(0), help_text="Claimed by live exit orders.")
    entry_cost = NumberField(help_text="Quantity x price of the entries, without fees.")
    exit_value = NumberField(default=Decimal(0))
    fees = NumberField(default=Decimal(0))
    realized_pnl = NumberField(default=Decimal(0), help_text="Net of fees; final once closed.")
    exit_seq = models.PositiveIntegerField(default=0, help_text="Exits decided so far; part of their client order ids.")
    exit_reason = models.CharField(max_length=32, blank=True)
    last_exit_price = NumberField(null=True, blank=True)
    last_exit_at = models.DateTimeField(null=True, blank=True)
    last_exit_order_id = models.BigIntegerField(null=True, blank=True)
    peak = NumberField(null=True, blank=True, help_text="Highest price since the entry; final once closed.")
    trough = NumberField(null=True, blank=True, help_text="Lowest price since the entry; final once closed.")
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    frozen_at = models.DateTimeField(
        null=True, blank=True, help_text="No trigger fires until a person has settled why; people may still leave it."
    )
    frozen_why = models.TextField(blank=True, db_default="")
    settled = models.BooleanField(
        default=False, db_default=False, help_text="Closed, and its P&L is part of the account's settled sum."
    )

    class Meta:
        constraints = [
            CheckConstraint(name="position_side_is_long_or_short", condition=Q(side__in=[1, -1])),
            CheckConstraint(
                name="position_status_is_known", condition=Q(status__in=[str(status) for status in PositionStatus])
            ),
            CheckConstraint(name="position_quantity_is_positive", condition=Q(quantity__gt=0)),
            CheckConstraint(name="position_cost_is_positive", condition=Q(entry_cost__gt=0)),
            CheckConstraint(
                name="position_never_sells_more_than_it_holds", condition=Q(exited__gte=0, exited__lte=F("quantity"))
            ),
            CheckConstraint(
                name="position_live_exits_never_exceed_the_remainder",
                condition=Q(reserved__gte=0, reserved__lte=F("quantity") - F("exited")),
            ),
            CheckConstraint(
                name="position_closed_has_its_time",
                condition=Q(status=PositionStatus.CLOSED, closed_at__isnull=False)
                | (~Q(status=PositionStatus.CLOSED) & Q(closed_at__isnull=True)),
            ),
        ]
        indexes = [
            models.Index(
                fields=["account", "instrument"], name="position_open", condition=~Q(status=PositionStatus.CLOSED)
            ),
            models.Index(fields=["-opened_at"], name="position_by_time"),
            models.Index(
                fields=["account", "instrument", "last_exit_at"],
                name="position_last_left",
                condition=Q(last_exit_at__isnull=False),
            ),
            models.Index(
                fields=["id"],
                name="position_extremes_not_noted",
                condition=Q(status=PositionStatus.CLOSED, peak__isnull=True),
            ),
            models.Index(
                fields=["account"],
                name="position_closed_not_settled",
                condition=Q(status=PositionStatus.CLOSED, settled=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{Side(self.side).word} {self.quantity} {self.instrument} #{self.pk}"

    @property
    def remaining(self) -> Decimal:
        """Return the quantity still held."""
        return self.quantity - self.exited

    @property
    def available(self) -> Decimal:
        """Return the quantity no live exit has claimed."""
        return self.quantity - self.exited - self.reserved

    @property
    def average_entry(self) -> Decimal:
        """Return the average entry price."""
        return self.entry_cost / self.quantity


class Quote(models.Model):
    """The latest price of one instrument, with the extremes since it was last scanned.

    `dirty` says that something happened since (a price, a newly armed trigger); `from_seq` is the sequence number
    the interval of the extremes began with.
    """

    instrument = models.OneToOneField(Instrument, on_delete=models.CASCADE, primary_key=True, related_name="quote")
    last = NumberField()
    bid = NumberField()
    ask = NumberField()
    last_low = NumberField()
    last_high = NumberField()
    bid_low = NumberField()
    bid_high = NumberField()
    ask_low = NumberField()
    ask_high = NumberField()
    mid_low = NumberField(help_text="Lowest middle of bid and ask at one moment.")
    mid_high = NumberField()
    seq = models.BigIntegerField(default=1)
    from_seq = models.BigIntegerField(default=1)
    dirty = models.BooleanField(default=True)
    source = models.CharField(max_length=32)
    source_at = models.DateTimeField()
    received_at = models.DateTimeField()
    scanned_at = models.DateTimeField(null=True, blank=True)
    suspect = NumberField(null=True, blank=True, help_text="A print outside the collar that waits for a second one.")
    suspect_bid = NumberField(null=True, blank=True, help_text="That print whole.")
    suspect_ask = NumberField(null=True, blank=True)
    suspect_last = NumberField(null=True, blank=True)
    suspect_source = models.CharField(max_length=32, blank=True, db_default="")
    suspect_at = models.DateTimeField(null=True, blank=True, help_text="When that print was made.")
    suspect_heard_at = models.DateTimeField(null=True, blank=True, help_text="Since when it waits, by our clock.")
    bar_open = NumberField(null=True, blank=True, help_text="The bar in the making, of the last price.")
    bar_low = NumberField(null=True, blank=True)
    bar_high = NumberField(null=True, blank=True)

    class Meta:
        constraints = [
            CheckConstraint(name="quote_prices_are_positive", condition=Q(last__gt=0, bid__gt=0, ask__gt=0)),
            CheckConstraint(name="quote_is_not_crossed", condition=Q(bid__lte=F("ask"))),
            CheckConstraint(
                name="quote_extremes_hold_the_price",
                condition=Q(
                    bid_low__lte=F("bid"),
                    bid_high__gte=F("bid"),
                    ask_low__lte=F("ask"),
                    ask_high__gte=F("ask"),
                    last_low__lte=F("last"),
                    last_high__gte=F("last"),
                    mid_low__lte=F("mid_high"),
                ),
            ),
            CheckConstraint(
                name="quote_suspect_is_whole",
                condition=Q(suspect__isnull=True)
                | Q(
                    suspect_bid__isnull=False,
                    suspect_ask__isnull=False,
                    suspect_last__isnull=False,
                    suspect_at__isnull=False,
                    suspect_heard_at__isnull=False,
                ),
            ),
        ]
        indexes = [models.Index(fields=["instrument"], name="quote_has_a_suspect", condition=Q(suspect__isnull=False))]

    def __str__(self) -> str:
        return f"{self.instrument_id}: {self.bid}/{self.ask}"


class Session(models.Model):
    """One trading session of an exchange, from its calendar: half days, holidays and daylight saving included."""

    calendar = models.CharField(max_length=16)
    opens_at = models.DateTimeField()
    closes_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(name="session_is_unique", fields=["calendar", "opens_at"]),
            CheckConstraint(name="session_ends_after_it_begins", condition=Q(closes_at__gt=F("opens_at"))),
        ]
        indexes = [models.Index(fields=["calendar", "closes_at"], name="session_next_close")]

    def __str__(self) -> str:
        return f"{self.calendar} {self.opens_at:%Y-%m-%d}"


class Bar(models.Model):
    """Open, high, low, close and volume over a span that starts at `start` and lasts `seconds`."""

    instrument = models.ForeignKey(Instrument, on_delete=models.CASCADE, related_name="bars")
    start = models.DateTimeField()
    seconds = models.PositiveIntegerField()
    open = NumberField()
    high = NumberField()
    low = NumberField()
    close = NumberField()
    volume = NumberField(default=Decimal(0))

    class Meta:
        constraints = [
            UniqueConstraint(name="bar_is_unique", fields=["instrument", "seconds", "start"]),
            CheckConstraint(
                name="bar_extremes_hold_open_and_close",
                condition=Q(low__gt=0, low__lte=F("open"), high__gte=F("open"), volume__gte=0, seconds__gt=0)
                & Q(low__lte=F("close"), high__gte=F("close")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.instrument_id} {self.start:%Y-%m-%d %H:%M} {self.seconds}s"


class RefusedPrice(models.Model):
    """How many prices of an instrument were refused, by reason; one row a reason, counted up."""

    symbol = models.CharField(max_length=32)
    reason = models.CharField(max_length=32)
    count = models.PositiveBigIntegerField(default=0)
    last_seen_at = models.DateTimeField()
    last_price = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [UniqueConstraint(name="refused_price_is_counted_once", fields=["symbol", "reason"])]

    def __str__(self) -> str:
        return f"{self.symbol} {self.reason} {self.count}"
