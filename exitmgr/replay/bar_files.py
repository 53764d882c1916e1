"""Reads bars from CSV and Parquet files; whatever is not a bar is refused with its line and what would be right.

Columns are checked whole. Only a file that is refused is read a second time, to say where.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from exitmgr.replay.bars import Floats, Numbers, Series, exact, microseconds
from exitmgr.replay.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

PRICES: Final = ("open", "high", "low", "close")
REQUIRED: Final = ("ts", "symbol", *PRICES)
OPTIONAL: Final = ("volume",)
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
#: So many significant digits survive a float, so prices with no more are told apart by their floats.
_DIGITS_OF_A_FLOAT: Final = 15
_TS_HINT: Final = "must be ISO 8601 with Z or an offset, such as 2008-09-29T13:30:00Z"


def read_bars(path: Path) -> dict[str, Series]:
    """Return the bars of each symbol in a file.

    :raises InvalidInput: the file cannot be read, or has rows that are no bars, out of order or given twice.
    """
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
        table = _read_parquet(path) if parquet else _read_csv(path)
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror or error}") from None
    return _Columns(path, table, parquet=parquet).series()


def _read_csv(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    with _text(path) as lines:
        header = next(csv.reader(lines), [])
    wanted = _wanted(path, [name.removeprefix("\ufeff") for name in header])
    texts = {name: pa.large_string() for name in wanted}
    convert = arrow_csv.ConvertOptions(column_types=texts, include_columns=wanted, strings_can_be_null=False)
    try:
        return arrow_csv.read_csv(path, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise _ragged(path, columns=len(header)) or InvalidInput(f"{path}: {_first_line(error)}") from None


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        wanted = _wanted(path, parquet.read_schema(path).names)
        return parquet.read_table(path, columns=wanted)
    except pa.ArrowException as error:
        raise InvalidInput(f"{path}: {_first_line(error)}") from None


def _wanted(path: Path, names: list[str]) -> list[str]:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        have = ", ".join(names) or "nothing"
        columns = "columns" if len(missing) > 1 else "column"
        raise InvalidInput(f"{path}: needs the {columns} {', '.join(missing)}; its header has {have}")
    twice = [name for name in (*REQUIRED, *OPTIONAL) if names.count(name) > 1]
    if twice:
        raise InvalidInput(f"{path}: the column {twice[0]} is given twice")
    return [name for name in (*REQUIRED, *OPTIONAL) if name in names]


def _text(path: Path) -> io.TextIOWrapper:
    import pyarrow as pa

    return io.TextIOWrapper(pa.input_stream(str(path)), encoding="utf-8", errors="replace", newline="")


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the fields of each row after the header; empty lines are no rows."""
    with _text(path) as lines:
        reader = csv.reader(lines)
        next(reader, None)
        for record in reader:
            if record:
                yield reader.line_num, record


def _ragged(path: Path, *, columns: int) -> InvalidInput | None:
    for line, record in _records(path):
        if len(record) != columns:
            return InvalidInput(f"{path}, line {line}: must have {columns} fields as the header has; got {len(record)}")
    return None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


class _Columns:
    """The columns of one file while they are checked."""

    def __init__(self, path: Path, table: pa.Table, *, parquet: bool) -> None:
        self.path, self.parquet = path, parquet
        self.names = table.column_names
        self.columns: dict[str, Any] = {name: table[name].combine_chunks() for name in self.names}
        for name, column in self.columns.items():
            if column.null_count:
                raise self._refusal(column.is_null().index(True).as_py(), f"{name} is missing")

    def series(self) -> dict[str, Series]:
        """Return the bars by symbol."""
        numbers = {name: self._numbers(name) for name in self.names if name in (*PRICES, *OPTIONAL)}
        self._require_bars(numbers)
        starts = self._starts()
        found = {}
        told_apart = all(self._told_apart(name) for name in ("high", "low"))
        for symbol, rows in self._rows_by_symbol():
            self._require_ascending(symbol, starts[rows], rows)
            opens, highs, lows, closes = (numbers[name][rows] for name in PRICES)
            found[symbol] = Series(
                symbol=symbol, starts=starts[rows], opens=opens, highs=highs, lows=lows, closes=closes,
                rows=rows, columns=self.columns, told_apart=told_apart,
            )  # fmt: skip
        return found

    def _numbers(self, name: str) -> Floats:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.columns[name]
        if _is_text(column):
            try:
                column = pc.cast(column, pa.float64())
            except pa.ArrowInvalid:
                column = self.columns[name] = pc.utf8_trim_whitespace(column)
                self._require_numbers(name, column)
                column = pc.cast(column, pa.float64())
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or _is_decimal(column)):
            raise InvalidInput(f"{self.path}: the column {name} must hold numbers; it holds {column.type}")
        numbers: Floats = _as_numpy(pc.cast(column, pa.float64(), safe=False), np.float64)
        least = "at least 0" if name in OPTIONAL else "above 0"
        bad = ~(np.isfinite(numbers) & (numbers >= 0 if name in OPTIONAL else numbers > 0))
        self._refuse_if(bad, lambda row: f"{name} must be a number {least}; got {self._shown(name, row)}")
        return numbers

    def _require_numbers(self, name: str, column: Any) -> None:
        for row, text in enumerate(column):
            if not _NUMBER.fullmatch(text.as_py()):
                least = "at least 0" if name in OPTIONAL else "above 0"
                raise self._refusal(row, f"{name} must be a number {least}; got {self._shown(name, row)}")

    def _require_bars(self, numbers: dict[str, Floats]) -> None:
        high, low = numbers["high"], numbers["low"]
        for name in ("low", "open", "close"):
            self._refuse_if(high < numbers[name], lambda row, name=name: self._beyond("high", "below", name, row))
            self._refuse_if(low > numbers[name], lambda row, name=name: self._beyond("low", "above", name, row))

    def _beyond(self, extreme: str, where: str, other: str, row: int) -> str:
        wrong, right = exact(self.columns[extreme][row].as_py()), exact(self.columns[other][row].as_py())
        return f"{extreme} must not lie {where} {other}; got {extreme} {wrong:f} and {other} {right:f}"

    def _starts(self) -> Numbers:
        import pyarrow as pa
        import pyarrow.compute as pc

        column, utc = self.columns["ts"], pa.timestamp("us", "UTC")
        if _is_text(column):
            try:
                column = pc.cast(column, utc)
            except pa.ArrowInvalid:
                return self._starts_one_by_one(column)
        elif not pa.types.is_timestamp(column.type):
            raise InvalidInput(f"{self.path}: the column ts must hold times; it holds {column.type}")
        elif column.type.tz is None:
            raise InvalidInput(f"{self.path}: the times in ts have no zone; store them as UTC")
        return _as_numpy(pc.cast(pc.cast(column, utc, safe=False), pa.int64()), np.int64)

    def _starts_one_by_one(self, column: Any) -> Numbers:
        """Return the times of spellings that Arrow does not know, refusing the first that is none."""
        starts = np.empty(len(column), dtype=np.int64)
        for row, text in enumerate(column):
            try:
                starts[row] = microseconds(datetime.fromisoformat(text.as_py().strip()))
            except (ValueError, TypeError, OverflowError):
                raise self._refusal(row, f"ts {_TS_HINT}; got {self._shown('ts', row)}") from None
        return starts

    def _rows_by_symbol(self) -> Iterator[tuple[str, Numbers]]:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.columns["symbol"]
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not _is_text(column):
            raise InvalidInput(f"{self.path}: the column symbol must hold text; it holds {column.type}")
        coded = pc.utf8_trim_whitespace(column).dictionary_encode()
        codes: Numbers = _as_numpy(pc.cast(coded.indices, pa.int64()), np.int64)
        names = coded.dictionary.to_pylist()
        if "" in names:
            raise self._refusal(int(np.flatnonzero(codes == names.index(""))[0]), "symbol is missing")
        grouped = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[grouped], np.arange(len(names) + 1))
        for code, name in enumerate(names):
            yield name, grouped[bounds[code] : bounds[code + 1]]

    def _require_ascending(self, symbol: str, starts: Numbers, rows: Numbers) -> None:
        wrong = np.flatnonzero(np.diff(starts) <= 0)
        if len(wrong):
            before, row = int(rows[wrong[0]]), int(rows[wrong[0] + 1])
            again = starts[wrong[0]] == starts[wrong[0] + 1]
            why = "is given twice" if again else f"comes after {self._written('ts', before)}; sort the bars by ts"
            raise self._refusal(row, f"the bar of {symbol} at {self._written('ts', row)} {why}")

    def _told_apart(self, name: str) -> bool:
        import pyarrow.compute as pc

        column = self.columns[name]
        if _is_decimal(column):
            return bool(column.type.precision <= _DIGITS_OF_A_FLOAT)
        longest = pc.max(pc.utf8_length(column)).as_py() if _is_text(column) else 0
        return (longest or 0) <= _DIGITS_OF_A_FLOAT

    def _refuse_if(self, bad: NDArray[np.bool_], why: Any) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise self._refusal(row, why(row))

    def _refusal(self, row: int, why: str) -> InvalidInput:
        return InvalidInput(f"{self.path}, {self._place(row)}: {why}")

    def _place(self, row: int) -> str:
        if self.parquet:
            return f"row {row + 1}"
        for number, (line, _) in enumerate(_records(self.path)):
            if number == row:
                return f"line {line}"
        return f"line {row + 2}"

    def _shown(self, name: str, row: int) -> str:
        written = self.columns[name][row].as_py()
        return (repr(written[:40]) if written else "nothing") if isinstance(written, str) else str(written)

    def _written(self, name: str, row: int) -> str:
        written = self.columns[name][row].as_py()
        return written.isoformat() if isinstance(written, datetime) else str(written)


def _as_numpy(column: Any, dtype: Any) -> NDArray[Any]:
    """Return a column of 8-byte numbers without copying it; Arrow's own way imports pandas, for 70 MB."""
    return np.frombuffer(column.buffers()[1], dtype=dtype)[column.offset : column.offset + len(column)]


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_decimal(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_decimal(column.type))
