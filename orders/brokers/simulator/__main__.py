"""Runs the simulator: python -m orders.brokers.simulator, or python orders/brokers/simulator.

Started as a directory it loads nothing outside itself, not even the packages it lies in.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "simulator"

from .command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
