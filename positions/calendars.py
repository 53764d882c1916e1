"""The exchange calendars that are known by name, and when each usually closes. Pure, and light for every process.

The names are those of the package exchange_calendars, less the ones it cannot build; a test compares both.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from difflib import get_close_matches
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

#: The calendar of a venue that never closes.
ALWAYS_OPEN: Final = "24/7"


class Hours(NamedTuple):
    """When an exchange usually closes: its zone, the time there, and on which days from Monday to Sunday."""

    zone: str
    close: str
    days: str = "1111100"


USUAL_HOURS: Final[dict[str, Hours]] = {
    "24/5": Hours("UTC", "00:00", days="0111110"),
    "AIXK": Hours("Asia/Almaty", "17:00"),
    "BVMF": Hours("America/Sao_Paulo", "18:00"),
    "CMES": Hours("America/Chicago", "17:00"),
    "IEPA": Hours("America/New_York", "18:00"),
    "XAMS": Hours("Europe/Amsterdam", "17:30"),
    "XASX": Hours("Australia/Sydney", "16:00"),
    "XBDA": Hours("Atlantic/Bermuda", "16:30"),
    "XBKK": Hours("Asia/Bangkok", "16:30"),
    "XBOG": Hours("America/New_York", "16:00"),
    "XBOM": Hours("Asia/Kolkata", "15:30"),
    "XBRA": Hours("Europe/Bratislava", "15:30"),
    "XBRU": Hours("Europe/Brussels", "17:30"),
    "XBUD": Hours("Europe/Budapest", "17:00"),
    "XBUE": Hours("America/Argentina/Buenos_Aires", "17:00"),
    "XCBF": Hours("America/Chicago", "15:15"),
    "XCSE": Hours("Europe/Copenhagen", "17:00"),
    "XDUB": Hours("Europe/Dublin", "16:28"),
    "XDUS": Hours("Europe/Brussels", "22:00"),
    "XEEE": Hours("Europe/Berlin", "18:00"),
    "XETR": Hours("Europe/Berlin", "17:30"),
    "XEUR": Hours("Europe/Berlin", "22:00"),
    "XFRA": Hours("Europe/Berlin", "17:30"),
    "XHAM": Hours("Europe/Brussels", "22:00"),
    "XHEL": Hours("Europe/Helsinki", "18:30"),
    "XHKG": Hours("Asia/Hong_Kong", "16:00"),
    "XICE": Hours("Atlantic/Reykjavik", "15:30"),
    "XIDX": Hours("Asia/Jakarta", "15:50"),
    "XIST": Hours("Europe/Istanbul", "18:00"),
    "XJSE": Hours("Africa/Johannesburg", "17:00"),
    "XKAR": Hours("Asia/Karachi", "15:30"),
    "XKLS": Hours("Asia/Kuala_Lumpur", "17:00"),
    "XKRX": Hours("Asia/Seoul", "15:30"),
    "XLIM": Hours("America/Lima", "16:00"),
    "XLIS": Hours("Europe/Lisbon", "16:30"),
    "XLIT": Hours("Europe/Vilnius", "16:00"),
    "XLJU": Hours("Europe/Ljubljana", "15:15"),
    "XLON": Hours("Europe/London", "16:30"),
    "XLUX": Hours("Europe/Luxembourg", "17:40"),
    "XMAD": Hours("Europe/Madrid", "17:30"),
    "XMEX": Hours("America/Mexico_City", "15:00"),
    "XMIL": Hours("Europe/Rome", "17:30"),
    "XMOS": Hours("Europe/Moscow", "18:45"),
    "XNYS": Hours("America/New_York", "16:00"),
    "XNZE": Hours("Pacific/Auckland", "16:45"),
    "XOSL": Hours("Europe/Oslo", "16:20"),
    "XPAR": Hours("Europe/Paris", "17:30"),
    "XPHS": Hours("Asia/Manila", "15:30"),
    "XPRA": Hours("Europe/Prague", "16:20"),
    "XRIS": Hours("Europe/Riga", "16:00"),
    "XSAU": Hours("Asia/Riyadh", "15:00", days="1111001"),
    "XSES": Hours("Asia/Singapore", "17:00"),
    "XSGO": Hours("America/Santiago", "17:00"),
    "XSHG": Hours("Asia/Shanghai", "15:00"),
    "XSTO": Hours("Europe/Stockholm", "17:30"),
    "XSTU": Hours("Europe/Berlin", "22:00"),
    "XSWX": Hours("Europe/Zurich", "17:30"),
    "XTAE": Hours("Asia/Tel_Aviv", "17:15"),
    "XTAI": Hours("Asia/Taipei", "13:30"),
    "XTAL": Hours("Europe/Tallinn", "16:00"),
    "XTKS": Hours("Asia/Tokyo", "15:30"),
    "XTSE": Hours("America/Toronto", "16:00"),
    "XWAR": Hours("Europe/Warsaw", "17:00"),
    "XWBO": Hours("Europe/Vienna", "17:30"),
    "XZAG": Hours("Europe/Zagreb", "16:00"),
    "us_futures": Hours("America/New_York", "18:00"),
}

#: What people may call an exchange, and the name its calendar goes by.
ALIASES: Final[dict[str, str]] = {
    "ARCX": "XNYS",
    "ASX": "XASX",
    "BATS": "XNYS",
    "BMF": "BVMF",
    "BSE": "XBOM",
    "CBOT": "CMES",
    "CFE": "XCBF",
    "CME": "CMES",
    "COMEX": "CMES",
    "FWB": "XFRA",
    "HKEX": "XHKG",
    "ICE": "IEPA",
    "ICEUS": "IEPA",
    "JKT": "XIDX",
    "JPX": "XTKS",
    "LSE": "XLON",
    "LUXSE": "XLUX",
    "NASDAQ": "XNYS",
    "NYFE": "IEPA",
    "NYMEX": "CMES",
    "NYSE": "XNYS",
    "OOTC": "XNYS",
    "OSE": "XOSL",
    "SIX": "XSWX",
    "SSE": "XSHG",
    "TASE": "XTAE",
    "TSX": "XTSE",
    "XASE": "XNYS",
    "XNAS": "XNYS",
    "XTSX": "XTSE",
}


class UnknownCalendar(ValueError):
    """There is no calendar of that name; the message names the nearest ones."""


def require_calendar(name: str) -> str:
    """Return the name if there is such a calendar.

    :raises UnknownCalendar: there is none; says what may have been meant.
    """
    if name == ALWAYS_OPEN or name in USUAL_HOURS:
        return name
    meant = ALIASES.get(name.upper())
    near = [meant] if meant else get_close_matches(name.upper(), [*USUAL_HOURS, ALWAYS_OPEN], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "use the exchange's market identifier (ISO 10383)"
    raise UnknownCalendar(f"there is no exchange calendar {name!r}; {hint} Around the clock is {ALWAYS_OPEN}")


def usual_close(calendar: str, *, after: datetime) -> datetime | None:
    """Return when the exchange closes next by its usual hours, which know of no holidays and half days.

    None where it never closes.

    :raises UnknownCalendar: there is no such calendar.
    """
    if require_calendar(calendar) == ALWAYS_OPEN:
        return None
    hours = USUAL_HOURS[calendar]
    zone, at = _zone(hours.zone), time.fromisoformat(hours.close)
    day = after.astimezone(zone).date()
    closes = (datetime.combine(day + timedelta(days=ahead), at, zone) for ahead in range(9))
    return next(close.astimezone(UTC) for close in closes if hours.days[close.weekday()] == "1" and close > after)


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
