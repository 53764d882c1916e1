"""What a stack that is started by hand plays."""

from __future__ import annotations

from pathlib import Path

from config.stack.market import open_market, sessions_from
from tests.simulator.box import eventually, start_box


def test_sessions_are_those_bundled_from_a_day_on():
    assert sessions_from("2010-05-26") == ["2010-05-26", "2010-05-27", "2010-05-28"]
    assert sessions_from("2011-01-01") == []


def test_the_market_opens_with_every_symbol(tmp_path: Path):
    box = start_box(tmp_path)
    try:
        told = open_market(url=box.url, control_token=box.control_token)

        assert told == "plays 2010-04-20 to 2010-05-28, a day in 10 minutes"
        status = box.control("GET", "/replay")
        assert (status["state"], status["session"]) == ("running", "2010-04-20")
        symbols = "AAPL,GOOG,IBM,MSFT"
        eventually(lambda: len(box.api("GET", f"/v2/stocks/quotes/latest?symbols={symbols}")[1]["quotes"]) == 4)
    finally:
        box.stop()
