"""Owns measuring memory by proportional set size: a page shared by n processes counts one n-th in each."""

import contextlib
from pathlib import Path

import psutil


def tree_pss(pid: int) -> int:
    """Return the bytes a process and all its descendants take; 0 once it is gone.

    Reads /proc/PID/smaps_rollup; elsewhere than on Linux resident size is taken, which overstates.
    """
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_pss(member) for member in family)


def _pss(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
