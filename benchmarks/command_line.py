"""Whole processes: what a user waits for after Enter."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.product import console_script, product

__all__ = ["measure"]

_TIMEOUT_S = 60.0


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure ``exec pass`` with a running kernel, and ``--version``, against the bare interpreter.

    Args:
        quick: Fewer rounds.
    """
    script = console_script()
    bare = [sys.executable, "-c", "pass"]
    with product() as found:
        commands = {"bare": bare, "exec": [script, "exec", "pass"], "version": [script, "--version"]}
        times = _in_turn(commands, found.project, rounds=10 if quick else 40)
    other = summarize(times["bare"])
    yield Row(
        item="command-line",
        what="colab-bridge exec 'pass', warm",
        unit="ms",
        ours=summarize(times["exec"]),
        other=other,
        against="python -c pass",
        target=Target(measure=Measure.RATIO, limit=12.0),
    )
    yield Row(
        item="command-line",
        what="colab-bridge --version",
        unit="ms",
        ours=summarize(times["version"]),
        other=other,
        against="python -c pass",
        target=Target(measure=Measure.DIFFERENCE, limit=120.0),
    )


def _in_turn(commands: Mapping[str, Sequence[str]], cwd: Path, *, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds for each command; the first two rounds fill the caches of the system and do not count."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            took = _time(command, cwd)
            if number >= 2:
                times[name].append(took)
    return times


def _time(command: Sequence[str], cwd: Path) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    took = (time.perf_counter() - begun) * 1000
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return took
