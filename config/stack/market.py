"""The market of a stack that is started by hand: bundled days, played slowly, so that there is something to trade."""

import csv

from config.embedded import ROOT
from config.simulator import Simulator

BARS = ROOT / "orders" / "brokers" / "simulator" / "bars" / "us_daily.csv"
FIRST_SESSION = "2010-04-20"  #: from here on the bars have no gap and no split; the flash crash is among them
SECONDS_PER_SESSION = 600
STEPS_PER_SESSION = 600


def sessions_from(first: str) -> list[str]:
    """Return the bundled sessions from a day (YYYY-MM-DD) on, in their order."""
    with BARS.open(newline="") as file:
        return sorted({row["ts"][:10] for row in csv.DictReader(file) if row["ts"][:10] >= first})


def open_market(*, url: str, control_token: str) -> str:
    """Let the simulated broker play, a price of each symbol a second, and return in words what it plays.

    :raises ControlRefused: the simulator says what is wrong.
    """
    sessions = sessions_from(FIRST_SESSION)
    simulator = Simulator(url=url, control_token=control_token)
    try:
        simulator.play(sessions=sessions, symbols=None, seconds=SECONDS_PER_SESSION, steps=STEPS_PER_SESSION)
    finally:
        simulator.close()
    return f"plays {sessions[0]} to {sessions[-1]}, a day in {SECONDS_PER_SESSION // 60} minutes"
