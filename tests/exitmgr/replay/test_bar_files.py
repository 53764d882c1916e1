"""Reading bars: exact numbers from CSV and Parquet, and a refusal with file and line for whatever is not a bar."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exitmgr.replay.bar_files import read_bars
from exitmgr.replay.errors import InvalidInput

HEADER = "ts,symbol,open,high,low,close,volume"
GOOD = "2008-09-29T13:30:00Z,AAPL,100,101,99,100,5"
D = Decimal


def write(tmp_path, *lines, header=HEADER, name="bars.csv"):
    """Write a CSV file."""
    path = tmp_path / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def refusal(path):
    """Return why a file is refused, without the folder."""
    with pytest.raises(InvalidInput) as error:
        read_bars(path)
    return str(error.value).replace(f"{path.parent}/", "")


def test_numbers_are_exact_and_symbols_apart(tmp_path):
    path = write(
        tmp_path,
        "2008-09-29T13:30:00Z,MSFT,25.123456789012345678,25.2,25.1,25.15,1",
        "2008-09-29T15:30:00+02:00,AAPL,100,101.50,99,1e2,2",
        "2008-09-29T13:31:00Z,MSFT,25,25,25,25,3",
        "20080929T133200Z,AAPL,100,101,99,100,4",
    )
    series = read_bars(path)
    assert sorted(series) == ["AAPL", "MSFT"]
    assert [series["MSFT"].bar(0).open, series["MSFT"].bar(1).open] == [D("25.123456789012345678"), D(25)]
    aapl = series["AAPL"]
    assert (aapl.bar(0).ts, aapl.bar(0).start.isoformat()) == ("2008-09-29T15:30:00+02:00", "2008-09-29T13:30:00+00:00")
    assert (aapl.bar(1).ts, aapl.bar(1).start.isoformat()) == ("20080929T133200Z", "2008-09-29T13:32:00+00:00")
    assert (aapl.bar_seconds, series["MSFT"].bar_seconds, len(aapl)) == (120, 60, 2)
    assert (aapl.bar(0).high, aapl.bar(0).close) == (D("101.5"), D(100))


@pytest.mark.parametrize(
    ("_case", "header", "line"),
    [
        ("columns in another order", "close,low,high,open,symbol,ts", "100,99,101,100,AAPL,2008-09-29T13:30:00Z"),
        ("more columns", HEADER + ",vwap", GOOD + ",100.2"),
        ("spaces around numbers", HEADER, "2008-09-29T13:30:00Z,AAPL, 100 ,101, 99,100 ,5"),
        ("a byte order mark", "\ufeff" + HEADER, GOOD),
        ("quoted fields", HEADER, '"2008-09-29T13:30:00Z","AAPL","100","101","99","100","5"'),
    ],
)
def test_it_reads(_case, tmp_path, header, line):
    bar = read_bars(write(tmp_path, line, header=header))["AAPL"].bar(0)
    assert (bar.open, bar.high, bar.low, bar.close) == (D(100), D(101), D(99), D(100))


@pytest.mark.parametrize(
    ("_case", "lines", "why"),
    [
        ("no offset", ["2008-09-29T13:30:00,AAPL,1,1,1,1,1"], "line 2: ts must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z; got '2008-09-29T13:30:00'"),
        ("no time", [GOOD, "yesterday,AAPL,1,1,1,1,1"], "line 3: ts must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z; got 'yesterday'"),
        ("not a number", [GOOD, "", "2008-09-29T13:31:00Z,AAPL,1,x,1,1,1"], "line 4: high must be a number above 0; got 'x'"),
        ("an empty field", ["2008-09-29T13:31:00Z,AAPL,1,1,,1,1"], "line 2: low must be a number above 0; got nothing"),
        ("NaN", ["2008-09-29T13:31:00Z,AAPL,1,NaN,1,1,1"], "line 2: high must be a number above 0; got 'NaN'"),
        ("infinite", ["2008-09-29T13:31:00Z,AAPL,1,inf,1,1,1"], "line 2: high must be a number above 0; got 'inf'"),
        ("negative", ["2008-09-29T13:31:00Z,AAPL,1,1,-1,1,1"], "line 2: low must be a number above 0; got '-1'"),
        ("zero", ["2008-09-29T13:31:00Z,AAPL,0,1,0,1,1"], "line 2: open must be a number above 0; got '0'"),
        ("negative volume", ["2008-09-29T13:31:00Z,AAPL,1,1,1,1,-1"], "line 2: volume must be a number at least 0; got '-1'"),
        ("high below low", ["2008-09-29T13:31:00Z,AAPL,1,1,2,1.5,1"], "line 2: high must not lie below low; got high 1 and low 2"),
        ("close above high", ["2008-09-29T13:31:00Z,AAPL,1,1.5,1,2,1"], "line 2: high must not lie below close; got high 1.5 and close 2"),
        ("no symbol", ["2008-09-29T13:31:00Z,,1,1,1,1,1"], "line 2: symbol is missing"),
        ("given twice", [GOOD, GOOD], "line 3: the bar of AAPL at 2008-09-29T13:30:00Z is given twice"),
        ("unsorted", [GOOD, "2008-09-28T13:30:00Z,AAPL,1,1,1,1,1"], "line 3: the bar of AAPL at 2008-09-28T13:30:00Z comes after 2008-09-29T13:30:00Z; sort the bars by ts"),
        ("a field short", [GOOD, "2008-09-29T13:31:00Z,AAPL,1,1,1,1"], "line 3: must have 7 fields as the header has; got 6"),
    ],
)  # fmt: skip
def test_what_is_no_bar_is_refused_with_its_line(_case, tmp_path, lines, why):
    assert refusal(write(tmp_path, *lines)) == f"bars.csv, {why}"


@pytest.mark.parametrize(
    ("_case", "header", "why"),
    [
        ("a column missing", "ts,symbol,open,high,low", "bars.csv: needs the column close; its header has ts, symbol, open, high, low"),
        ("two missing", "ts,open,high,low", "bars.csv: needs the columns symbol, close; its header has ts, open, high, low"),
        ("no header", "", "bars.csv: needs the columns ts, symbol, open, high, low, close; its header has nothing"),
        ("a column twice", HEADER + ",high", "bars.csv: the column high is given twice"),
    ],
)  # fmt: skip
def test_a_header_that_does_not_fit_is_refused(_case, tmp_path, header, why):
    assert refusal(write(tmp_path, header=header)) == why


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "none.csv") == "none.csv: No such file or directory"


def test_a_header_alone_is_a_file_without_bars(tmp_path):
    assert read_bars(write(tmp_path)) == {}


def parquet(tmp_path, **columns):
    """Write a Parquet file of one good bar with some columns replaced."""
    given = {
        "ts": pa.array([1222695000_000000], pa.timestamp("us", "UTC")), "symbol": pa.array(["AAPL"]),
        "open": pa.array([100.1]), "high": pa.array([101.3]), "low": pa.array([99.0]), "close": pa.array([100.2]),
    }  # fmt: skip
    path = tmp_path / "bars.parquet"
    pq.write_table(pa.table(given | columns), path)
    return path


@pytest.mark.parametrize(
    ("_case", "columns"),
    [
        ("floats as they are written", {}),
        ("decimals", {"high": pa.array([D("101.30")], pa.decimal128(20, 2))}),
        ("texts", {"high": pa.array(["101.3"])}),
        ("a dictionary of symbols", {"symbol": pa.array(["AAPL"]).dictionary_encode()}),
        ("times in another zone", {"ts": pa.array([1222695000], pa.timestamp("s", "America/New_York"))}),
        ("times in nanoseconds", {"ts": pa.array([1222695000_000000_000], pa.timestamp("ns", "UTC"))}),
        ("times as text", {"ts": pa.array(["2008-09-29T13:30:00Z"])}),
    ],
)
def test_parquet(_case, tmp_path, columns):
    bar = read_bars(parquet(tmp_path, **columns))["AAPL"].bar(0)
    assert (bar.ts, bar.open, bar.high) == ("2008-09-29T13:30:00Z", D("100.1"), D("101.3"))


@pytest.mark.parametrize(
    ("_case", "columns", "why"),
    [
        ("times without a zone", {"ts": pa.array([1], pa.timestamp("us"))}, ": the times in ts have no zone; store them as UTC"),
        ("times as numbers", {"ts": pa.array([1])}, ": the column ts must hold times; it holds int64"),
        ("prices as truth values", {"open": pa.array([True])}, ": the column open must hold numbers; it holds bool"),
        ("a price missing", {"low": pa.array([None], pa.float64())}, ", row 1: low is missing"),
        ("NaN", {"low": pa.array([float("nan")])}, ", row 1: low must be a number above 0; got nan"),
    ],
)  # fmt: skip
def test_parquet_that_does_not_fit_is_refused(_case, tmp_path, columns, why):
    assert refusal(parquet(tmp_path, **columns)) == f"bars.parquet{why}"


def test_extremes_are_exact_where_floats_cannot_tell_prices_apart(tmp_path):
    high, low = "101.1234567890123456", "99.1234567890123456"
    path = write(
        tmp_path,
        f"2008-09-29T13:30:00Z,AAPL,100,{high}1,{low}2,100,1",
        f"2008-09-29T13:31:00Z,AAPL,100,{high}3,{low}1,100,1",
        f"2008-09-29T13:32:00Z,AAPL,100,{high}2,{low}3,100,1",
    )
    series = read_bars(path)["AAPL"]
    assert len(set(series.highs)) == len(set(series.lows)) == 1
    assert (series.highest(0, 3), series.lowest(0, 3)) == (D(f"{high}3"), D(f"{low}1"))
    assert (series.highest(0, 1), series.lowest(2, 3)) == (D(f"{high}1"), D(f"{low}3"))
