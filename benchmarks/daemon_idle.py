"""What the daemon costs while nothing happens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.product import product

__all__ = ["measure"]

_SETTLE_S = 3.0


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure memory and processor time of a daemon with a session whose kernel is idle.

    Args:
        quick: Look for 5 s instead of 20.
    """
    looks, look_s = (1, 5.0) if quick else (4, 5.0)
    with product() as found:
        time.sleep(_SETTLE_S)  # what is measured is rest, and rest begins some seconds after work
        percents, sizes = _look(found.daemon, looks, look_s)
    yield Row(
        item="idle",
        what="daemon at rest, one idle kernel: memory (RSS)",
        unit="MB",
        ours=summarize(sizes),
        target=Target(measure=Measure.VALUE, limit=80.0),
    )
    yield Row(
        item="idle",
        what="daemon at rest, one idle kernel: processor",
        unit="%",
        ours=summarize(percents),
        target=Target(measure=Measure.VALUE, limit=1.0),
    )


def _look(daemon: psutil.Process, looks: int, look_s: float) -> tuple[list[float], list[float]]:
    """Return percent of one processor for each period, and megabytes at its end."""
    percents, sizes = [], []
    for _ in range(looks):
        before, begun = daemon.cpu_times(), time.perf_counter()
        time.sleep(look_s)
        after, passed = daemon.cpu_times(), time.perf_counter() - begun
        percents.append(100 * (after.user + after.system - before.user - before.system) / passed)
        sizes.append(daemon.memory_info().rss / 1e6)
    return percents, sizes
