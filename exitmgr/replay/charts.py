"""Charts of single positions as plain Plotly figures: candles, the entry, where the exits lay, and the exits taken."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from html import escape
from typing import Any, Final

from exitmgr.replay.bars import Series, moment, spell_moment
from exitmgr.replay.compare import Scenario
from exitmgr.replay.engine import Ready, Settings, trace
from exitmgr.replay.results import Outcome, spell

#: More candles than this are drawn together, several bars in one.
MOST_CANDLES: Final = 400
_BEFORE: Final = 10  #: candles shown before the entry
_AFTER: Final = 5
_LONGEST_GAP: Final = timedelta(days=5)  #: of a market that is closed; more is a hole in the data
_COLOURS: Final = {"stop": "#c0392b", "trail": "#d35400", "even": "#8e44ad", "target": "#1e8449"}


def choose(scenario: Scenario, *, wanted: Sequence[str], most: int) -> list[int]:
    """Return which positions to draw, by their place: those named, or as many as told of the best and the worst.

    :raises KeyError: a named position is not there.
    """
    outcomes = scenario.outcomes
    places = {str(outcome.holding.id): number for number, outcome in enumerate(outcomes)}
    if wanted:
        return [places[name] for name in dict.fromkeys(wanted)]
    seen = [number for number, outcome in enumerate(outcomes) if outcome.end > outcome.first]
    ranked = sorted(seen, key=lambda number: outcomes[number].total_pnl)
    if len(ranked) <= most:
        return sorted(ranked)
    return sorted({*ranked[: most // 2], *ranked[-(most - most // 2) :]})


def figure_of(one: Ready, outcome: Outcome, *, settings: Settings) -> dict[str, Any]:
    """Return one position's chart, as Plotly's JSON."""
    series = one.series
    width = max(1, -(-(outcome.end - outcome.first) // MOST_CANDLES))  # bars in a candle, rounded up
    first, end = outcome.first, outcome.end
    held = _spans(first, end, width)
    before = _spans(max(first % width, first - _BEFORE * width, _near(series, first, -1, width)), first, width)
    after = _spans(end, min(len(series), end + _AFTER * width, _near(series, end - 1, 1, width)), width)
    data = [_candles(series, [*before, *held, *after])]
    if held:
        data += _exit_lines(one, settings, [first, *(span.stop for span in held)])
    data += _entry(one)
    data += _exits(outcome, series)
    holding = one.holding
    return {
        "data": data,
        "layout": {
            "title": {"text": escape(f"{holding.id}: {holding.side.word} {spell(holding.quantity)} {holding.symbol}")},
            "xaxis": {"rangeslider": {"visible": False}, "type": "date"},
            "yaxis": {"title": {"text": "price"}},
            "legend": {"orientation": "h"},
            "margin": {"t": 50, "l": 60, "r": 20, "b": 40},
            "template": {"layout": {"font": {"family": "sans-serif"}}},
        },
    }


def _near(series: Series, index: int, way: int, width: int) -> int:
    """Return the index up to which bars before or after a bar are near enough in time to be shown with it."""
    here = moment(int(series.starts[min(max(index, 0), len(series) - 1)]))
    reach = max(_LONGEST_GAP, timedelta(seconds=2 * _BEFORE * width * (series.bar_seconds or 0)))
    return series.first_at(here + way * reach)


def _spans(first: int, end: int, width: int) -> list[slice]:
    return [slice(start, min(start + width, end)) for start in range(first, end, width)]


def _candles(series: Series, spans: Sequence[slice]) -> dict[str, Any]:
    return {
        "type": "candlestick",
        "name": "price",
        "x": [_time(series, span.start) for span in spans],
        "open": [float(series.opens[span.start]) for span in spans],
        "high": [float(series.highs[span].max()) for span in spans],
        "low": [float(series.lows[span].min()) for span in spans],
        "close": [float(series.closes[span.stop - 1]) for span in spans],
    }


def _exit_lines(one: Ready, settings: Settings, ends: Sequence[int]) -> list[dict[str, Any]]:
    """Return a line for each slot: where it lay after each candle, broken off where it was not armed."""
    traced = list(trace(one, settings=settings, ends=ends))
    times = [_time(one.series, min(end, len(one.series) - 1)) for end in ends]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",  # a line of one point would not be seen
            "name": slot,
            "x": times,
            "y": [_float(levels.get(slot)) for levels in traced],
            "line": {"shape": "hv", "width": 1.5, "color": _colour(slot)},
            "marker": {"size": 3},
            "connectgaps": False,
        }
        for slot in sorted({slot for levels in traced for slot in levels})
    ]


def _entry(one: Ready) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "entry",
            "x": [spell_moment(one.holding.opened_at)],
            "y": [float(one.holding.entry_price)],
            "marker": {"symbol": "circle", "size": 11, "color": "#1f5fa8"},
        }
    ]


def _exits(outcome: Outcome, series: Series) -> list[dict[str, Any]]:
    if not outcome.exits:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "exits",
            "x": [_time(series, exit_.at) for exit_ in outcome.exits],
            "y": [float(exit_.exit_price) for exit_ in outcome.exits],
            "text": [
                f"{exit_.reason}: {spell(exit_.quantity)} at {spell(exit_.exit_price)}" for exit_ in outcome.exits
            ],
            "hoverinfo": "text+x",
            "marker": {"symbol": "x", "size": 11, "color": "#000000"},
        }
    ]


def _colour(slot: str) -> str:
    if slot.startswith("take_profit"):
        return _COLOURS["target"]
    if slot.startswith("trailing"):
        return _COLOURS["trail"]
    return _COLOURS["even" if slot == "break_even" else "stop"]


def _float(number: Decimal | None) -> float | None:
    return None if number is None else float(number)


def _time(series: Series, index: int) -> str:
    return spell_moment(moment(int(series.starts[index])))
