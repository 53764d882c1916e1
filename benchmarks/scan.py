"""What a scan costs when nothing fires: every symbol changed, ten thousand positions against a million."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from benchmarks.ground import Ground, percentile
from exitmgr.scans import scan

SYMBOLS = 5_000
SIZES = (10_000, 1_000_000)
ROUNDS = 15


def run(ground: Ground) -> dict[str, Any]:
    """Measure both sizes side by side, remove the rows made for it, and return the figures."""
    for name in ("feed", "scan", "beat", "stop"):
        ground.stack.stop_process(name)  # the scan is called here, alone
    result: dict[str, Any] = {"symbols": SYMBOLS}
    try:
        for size in SIZES:
            _make_rows(ground.account.pk, size)
            spans = [_one_scan() for _ in range(ROUNDS)]
            result[f"scan_ms_p50_{size}"] = percentile(spans, 50)
            remove_rows()
    finally:
        remove_rows()
        for name in ("stop", "beat", "scan", "feed"):
            ground.stack.start_process(name)
    small, large = (result[f"scan_ms_p50_{size}"] for size in SIZES)
    return {**result, "million_over_ten_thousand": large / small}


def _one_scan() -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE positions_quote SET dirty = true, seq = seq + 1, received_at = clock_timestamp()"
            " WHERE source = 'bench'"
        )
    begin = time.perf_counter()
    done = scan(now=datetime.now(UTC))
    span = 1000 * (time.perf_counter() - begin)
    assert done.symbols == SYMBOLS, done
    assert done.orders == 0, done
    return span


def _make_rows(account_id: int, size: int) -> None:
    """Fill the tables in SQL: `size` long positions at 100 with a stop at 99 and a target at 102, none reached."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO positions_instrument (symbol, asset_class, tick, lot, min_notional, dust, collar_pct, calendar,
                                              shortable, tradable, max_age_seconds)
            SELECT 'SCAN.' || n, 'equity', 0.01, 1, 0, 0.001, 20, 'XNYS', true, false, 60
              FROM generate_series(1, %s) AS n
            """,
            [SYMBOLS],
        )
        cursor.execute(
            """
            INSERT INTO positions_quote (instrument_id, last, bid, ask, last_low, last_high, bid_low, bid_high, ask_low,
                                         ask_high, mid_low, mid_high, seq, from_seq, dirty, source, source_at,
                                         received_at)
            SELECT id, 100, 100, 100.02, 100, 100, 100, 100, 100.02, 100.02, 100.01, 100.01, 1, 1, true, 'bench', now(),
                   now()
              FROM positions_instrument WHERE symbol LIKE 'SCAN.%%'
            """
        )
        cursor.execute(
            """
            INSERT INTO positions_position (account_id, instrument_id, strategy, side, status, quantity, exited,
                                            reserved, entry_cost, exit_value, fees, realized_pnl, exit_seq,
                                            exit_reason, opened_at)
            SELECT %s, i.id, 'bench', 1, 'open', 10, 0, 0, 1000, 0, 0, 0, 0, '', now()
              FROM generate_series(1, %s / %s) AS n, positions_instrument i WHERE i.symbol LIKE 'SCAN.%%'
            """,
            [account_id, size, SYMBOLS],
        )
        cursor.execute(
            """
            INSERT INTO exitmgr_bracket (position_id, mode, status, plan, target_prices, error, created_at, notes,
                                         overrides)
            SELECT id, 'synthetic', 'active', '{}', '[]', '', now(), '[]', '{}'
              FROM positions_position WHERE strategy = 'bench'
            """
        )
        for reason, direction, level, urgency in (("stop_loss", "fall", 99, 10), ("take_profit_1", "rise", 102, 40)):
            cursor.execute(
                """
                INSERT INTO exitmgr_trigger (bracket_id, position_id, instrument_id, slot, kind, act, after, basis,
                                             direction, level, steps, order_type, time_in_force, fraction_pct, reason,
                                             urgency, rung, status, armed_seq, armed_at)
                SELECT b.id, p.id, p.instrument_id, %s, 'level', 'exit', '', 'bid', %s, %s, '[]', 'market', '', 100, %s,
                       %s, 0, 'armed', 0, now()
                  FROM exitmgr_bracket b JOIN positions_position p ON p.id = b.position_id WHERE p.strategy = 'bench'
                """,
                [reason, direction, level, reason, urgency],
            )
        for table in ("positions_quote", "positions_position", "exitmgr_bracket", "exitmgr_trigger"):
            cursor.execute(f"ANALYZE {table}")


def remove_rows() -> None:
    """Empty the tables of what these benchmarks made."""
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE exitmgr_trail, exitmgr_trailcohort, exitmgr_trigger, exitmgr_bracket, orders_fill, orders_order,"
            " positions_position, positions_bar"
        )
        cursor.execute(
            "DELETE FROM positions_quote q USING positions_instrument i"
            " WHERE i.id = q.instrument_id AND i.symbol LIKE 'SCAN.%'"
        )
        cursor.execute("DELETE FROM positions_instrument WHERE symbol LIKE 'SCAN.%'")
