"""``python -m benchmarks [NAME...] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import (
    building_blocks,
    colab_start,
    command_line,
    daemon_idle,
    daemon_memory,
    output_rate,
    round_trip,
    sync_busy,
    sync_cells,
    sync_delta,
    sync_disk,
    sync_first,
    sync_pair,
    tunnel_idle,
)
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Row
from benchmarks.table import render, verdict
from colab_bridge import __version__
from colab_bridge.errors import ColabBridgeError

__all__ = ["main"]

_ITEMS: dict[str, Callable[..., Iterator[Row]]] = {
    "round-trip": round_trip.measure,
    "output": output_rate.measure,
    "command-line": command_line.measure,
    "idle": daemon_idle.measure,
    "memory": daemon_memory.measure,
    "tunnel-idle": tunnel_idle.measure,
    "parts": building_blocks.measure,
    "sync-disk": sync_disk.measure,
    "sync-copy": sync_first.measure,
    "delta-changed": sync_delta.measure_changed,
    "delta-inserted": sync_delta.measure_inserted,
    "delta-appended": sync_delta.measure_appended,
    "sync": sync_pair.measure,
    "sync-busy": sync_busy.measure,
    "sync-cells": sync_cells.measure,
    "colab-start": colab_start.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print one table.

    Args:
        argv: Arguments after the program's name; those of the process when omitted.

    Returns:
        0 when all targets hold, 1 when one is missed or could not be measured.
    """
    arguments = _parser().parse_args(argv)
    rows: list[Row] = []
    failed = False
    for name in arguments.names or _ITEMS:
        _say(f"measuring {name} ...")
        try:
            rows += _ITEMS[name](quick=arguments.quick)
        except (BenchmarkError, ColabBridgeError, OSError) as error:
            _say(f"{name} could not be measured: {error}")
            failed = True
    print(render(rows))
    print(f"\n{verdict(rows)}; {_machine()}")
    if arguments.json:
        _write(arguments.json, rows)
    return 1 if failed or any(row.holds is False for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures Colab Bridge side by side with what it stands in for."
    )
    parser.add_argument("names", nargs="*", choices=[*_ITEMS, []], metavar="NAME", help=f"of: {', '.join(_ITEMS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller data: a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to a file")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} processors{load}"


def _write(path: Path, rows: Sequence[Row]) -> None:
    document = {
        "version": __version__,
        "machine": _machine(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rows": [row.as_json() for row in rows],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
