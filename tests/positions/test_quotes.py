"""Writing prices: what reaches the row, what does not, and that several writers agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from positions.feeds.protocol import Tick
from positions.models import Instrument, Quote
from positions.quotes import write_quotes

NOW = datetime(2026, 3, 2, 15, 30, 30, tzinfo=UTC)


@pytest.mark.django_db
def test_smoke() -> None:
    Instrument.objects.create(symbol="AAPL")
    t = Tick("AAPL", Decimal("99.5"), Decimal("100.5"), Decimal(100), NOW)
    out = write_quotes(ticks=[t], source="x", now=NOW)
    print(out)
    q = Quote.objects.get()
    print(q.__dict__)
    out = write_quotes(ticks=[t, Tick("AAPL", None, None, Decimal(101), NOW+timedelta(seconds=1)), Tick("AAPL", None, None, Decimal(50), NOW+timedelta(seconds=1)), Tick("NO", None, None, Decimal(50), NOW+timedelta(seconds=1))], source="x", now=NOW)
    print(out)
    print(Quote.objects.get().__dict__)
    assert 0
