"""What a person feels of the sync at each cell: ``pass`` in a notebook, with the folders kept in step and without.

The whole product: front end, proxy kernel, daemon, a real Jupyter server with a folder of its own, its agent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.kernel_clients import ZmqClient, execute, front_end
from benchmarks.product import Product, product
from benchmarks.sync_first import make_tree
from colab_bridge.agent.sync.disk.probe import probe
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.scan import Scanner
from colab_bridge.agent.sync.disk.statcache import StatCache
from colab_bridge.agent.sync.ignore import IgnoreRules

__all__ = ["measure"]

_KERNEL = "colab-bridge-local"
_WARM_UP = 10
_IN_A_ROW = 5
# The barrier before a cell may take 2 ms more than a round trip, the one after it 10 ms more than the walk; on one
# machine a round trip is less than 2 ms.
_MOST_MS = 14.0


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure cells beside 10,000 files that nobody changes; fewer when ``quick``."""
    files, rounds = (2_000, 20) if quick else (10_000, 60)
    with product() as found, ExitStack() as stack:
        here = _project(found, "synced", files, sync=True)
        ways = {
            "synced": stack.enter_context(front_end(_KERNEL, here)),
            "alone": stack.enter_context(front_end(_KERNEL, _project(found, "alone", files, sync=False))),
        }
        root = stack.enter_context(Root.open(here))
        times = _in_turn(ways, Scanner(root, IgnoreRules(), b"k" * 32, StatCache(), probe(root)), rounds)
    walk = summarize(times["walk"]).median
    what = f"`pass` beside {files:,} files, kept in step"
    ours, alone = summarize(times["synced"]), summarize(times["alone"])
    yield Row(
        item="sync-cells", what=what, unit="ms", ours=ours, other=alone, against="sync off", measure=Measure.DIFFERENCE
    )
    yield Row(
        item="sync-cells",
        what=what,
        unit="ms",
        ours=ours,
        other=summarize([value + walk for value in times["alone"]]),
        against="sync off, and a bare walk",
        target=Target(measure=Measure.DIFFERENCE, limit=_MOST_MS),
    )


def _project(found: Product, name: str, files: int, *, sync: bool) -> Path:
    """Make a project that has a runtime with a folder of its own."""
    project = found.folder / name
    (project / ".colab-bridge").mkdir(parents=True)
    settings = f"[local]\nisolated = true\n[sync]\nenabled = {str(sync).lower()}\n"
    (project / "colab-bridge.toml").write_text(settings, encoding="utf-8")
    make_tree(project, files)
    return project


def _in_turn(ways: dict[str, ZmqClient], scanner: Scanner, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds for each way and for a walk: some cells in a row, as a person runs them."""
    for client in ways.values():
        for _ in range(_WARM_UP):
            execute(client, "pass")
    scanner.walk()
    times: dict[str, list[float]] = {name: [] for name in (*ways, "walk")}
    for _ in range(rounds // _IN_A_ROW):
        for name, client in ways.items():
            times[name] += [execute(client, "pass").seconds * 1000 for _ in range(_IN_A_ROW)]
        begun = time.perf_counter()
        scanner.walk()
        times["walk"].append((time.perf_counter() - begun) * 1000)
    return times
