"""What a new high costs when ten thousand trailing stops follow one symbol, beside writing each of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db import connection

from benchmarks.ground import Ground, percentile
from benchmarks.scan import remove_rows
from exitmgr.models import TrailCohort, Trigger
from exitmgr.scans import scan
from exitmgr.trails import join_cohorts

TRAILS = 10_000
TICKS = 200
WRITES = 20
_NAME = "SCAN.TRAIL"


def run(ground: Ground) -> dict[str, Any]:
    """Measure both side by side, remove the rows made for it, and return the figures."""
    for name in ("feed", "scan", "beat", "stop"):
        ground.stack.stop_process(name)  # the scan is called here, alone
    try:
        instrument_id = _make_rows(ground.account.pk)
        cohorts_before = TrailCohort.objects.count()
        merging = _tick(instrument_id, Decimal(120))
        spans = [_tick(instrument_id, Decimal(120) + Decimal(number) / 100) for number in range(1, TICKS + 1)]
        writes = [_write_each(instrument_id) for _ in range(WRITES)]
        fired = _count_fired(instrument_id)
    finally:
        remove_rows()
        for name in ("stop", "beat", "scan", "feed"):
            ground.stack.start_process(name)
    tick, write = percentile(spans, 50), percentile(writes, 50)
    return {
        "trails": TRAILS,
        "cohorts_before_the_first_high": cohorts_before,
        "first_high_merges_them_ms": merging,
        "new_high_ms_p50": tick,
        "new_high_ms_p95": percentile(spans, 95),
        "writing_each_trail_ms_p50": write,
        "times_cheaper": write / tick,
        "then_one_fall_fires_a_second": fired,
    }


def _tick(instrument_id: int, price: Decimal) -> float:
    _set_price(instrument_id, price)
    begin = time.perf_counter()
    done = scan(now=datetime.now(UTC), instrument_ids=[instrument_id])
    span = 1000 * (time.perf_counter() - begin)
    assert done.orders == 0, done
    assert TrailCohort.objects.get(instrument=instrument_id).best == price
    return span


def _write_each(instrument_id: int) -> float:
    """Do what a stop price in each trail's row would need at every new high."""
    begin = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE exitmgr_trigger SET seen_price = 120 * (100 - offset_pct) / 100 WHERE instrument_id = %s",
            [instrument_id],
        )
        assert cursor.rowcount == TRAILS
    return 1000 * (time.perf_counter() - begin)


def _count_fired(instrument_id: int) -> float:
    """Return how many trails a second one fall through all of them turns into exit orders."""
    _set_price(instrument_id, Decimal(60))
    begin = time.perf_counter()
    done = scan(now=datetime.now(UTC), instrument_ids=[instrument_id])
    assert done.orders == TRAILS, done
    return TRAILS / (time.perf_counter() - begin)


def _set_price(instrument_id: int, price: Decimal) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE positions_quote SET dirty = true, seq = seq + 1, received_at = clock_timestamp(), bid = %(price)s,"
            " ask = %(price)s, last = %(price)s, bid_low = least(bid_low, %(price)s),"
            " bid_high = greatest(bid_high, %(price)s), ask_low = least(ask_low, %(price)s),"
            " ask_high = greatest(ask_high, %(price)s), last_low = least(last_low, %(price)s),"
            " last_high = greatest(last_high, %(price)s), mid_low = least(mid_low, %(price)s),"
            " mid_high = greatest(mid_high, %(price)s) WHERE instrument_id = %(id)s",
            {"price": price, "id": instrument_id},
        )


def _make_rows(account_id: int) -> int:
    """Fill the tables in SQL: longs with entries from 100 to 110, each with a trail of its own from its entry."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO positions_instrument (symbol, asset_class, tick, lot, min_notional, dust, collar_pct, calendar,
                                              shortable, tradable, max_age_seconds)
            VALUES (%s, 'equity', 0.01, 1, 0, 0.001, 20, 'XNYS', true, false, 60) RETURNING id
            """,
            [_NAME],
        )
        instrument_id = int(cursor.fetchone()[0])
        cursor.execute(
            """
            INSERT INTO positions_quote (instrument_id, last, bid, ask, last_low, last_high, bid_low, bid_high, ask_low,
                                         ask_high, mid_low, mid_high, seq, from_seq, dirty, source, source_at,
                                         received_at)
            VALUES (%s, 110, 110, 110, 110, 110, 110, 110, 110, 110, 110, 110, 1, 1, true, 'bench', now(), now())
            """,
            [instrument_id],
        )
        cursor.execute(
            """
            INSERT INTO positions_position (account_id, instrument_id, strategy, side, status, quantity, exited,
                                            reserved, entry_cost, exit_value, fees, realized_pnl, exit_seq,
                                            exit_reason, opened_at)
            SELECT %s, %s, 'bench', 1, 'open', 10, 0, 0, 1000 + n * 0.01, 0, 0, 0, 0, '', now()
              FROM generate_series(1, %s) AS n
            """,
            [account_id, instrument_id, TRAILS],
        )
        cursor.execute(
            """
            INSERT INTO exitmgr_bracket (position_id, mode, status, plan, target_prices, error, created_at, notes,
                                         overrides)
            SELECT id, 'synthetic', 'active', '{}', '[]', '', now(), '[]', '{}'
              FROM positions_position WHERE strategy = 'bench'
            """
        )
        cursor.execute(
            """
            INSERT INTO exitmgr_trigger (bracket_id, position_id, instrument_id, slot, kind, act, after, basis,
                                         direction, offset_pct, steps, order_type, time_in_force, fraction_pct,
                                         reason, urgency, rung, status, armed_seq, armed_at)
            SELECT b.id, p.id, p.instrument_id, 'trailing_1', 'trail', 'exit', '', 'bid', 'fall',
                   20 + (p.id % 2000) * 0.01, '[]', 'market', '', 100, 'trailing_stop', 10, 0, 'armed', 1, now()
              FROM exitmgr_bracket b JOIN positions_position p ON p.id = b.position_id WHERE p.strategy = 'bench'
            """
        )
    entries = Trigger.objects.filter(instrument=instrument_id).values_list("pk", "position__entry_cost")
    join_cohorts({pk: cost / 10 for pk, cost in entries}, seq=1)
    with connection.cursor() as cursor:
        for table in (
            "positions_position",
            "exitmgr_bracket",
            "exitmgr_trigger",
            "exitmgr_trail",
            "exitmgr_trailcohort",
        ):
            cursor.execute(f"ANALYZE {table}")
    return instrument_id
