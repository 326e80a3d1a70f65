"""What daemon and agent cost on a runtime with tunnel and file sync, while a run is silent and while nothing runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.product import Product, product
from colab_bridge.client.follow import follow_run

__all__ = ["measure"]

_SETTLE_S = 3.0
_LOOK_S = 5.0
_NAME = "isolated"


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure an isolated local runtime whose folder is kept in step, with one kernel in the tunnel.

    Args:
        quick: Look for 5 s instead of 20, at each.
    """
    looks = 1 if quick else 4
    with product() as found:
        # Only this runtime: the daemon is not to hold two.
        found.client.delete(f"/v1/sessions/{found.session}")
        body: dict[str, Any] = {"project": str(found.project), "name": _NAME, "options": {"isolated": True}, "env": {}}
        found.client.post("/v1/sessions", {**body, "provider": "local"})
        _run(found, "pass")
        found.must_have_tunnel()
        agent = _agent()
        found.client.post("/v1/runs", _request(found, f"import time; time.sleep({_SETTLE_S + looks * _LOOK_S + 1})"))
        time.sleep(_SETTLE_S)
        silent, _ = _look([found.daemon], looks)
        time.sleep(2 * _SETTLE_S)  # the run ends, and rest begins some seconds after work
        percents, sizes = _look([found.daemon, agent], looks)
    yield _row("daemon while a tunnelled run is silent: processor", "%", silent[0], 2.0)
    yield _row("daemon at rest, one tunnelled and synced session: memory (RSS)", "MB", sizes[0], 80.0)
    yield _row("daemon at rest, one tunnelled and synced session: processor", "%", percents[0], 0.5)
    yield _row("agent at rest: memory (RSS)", "MB", sizes[1], 40.0)
    yield _row("agent at rest: processor", "%", percents[1], 0.5)


def _request(found: Product, code: str) -> dict[str, Any]:
    project = str(found.project)
    return {"kind": "code", "code": code, "project": project, "cwd": project, "env": {}, "session": _NAME}


def _run(found: Product, code: str) -> None:
    for event in follow_run(found.client, _request(found, code)):
        if event["type"] == "finished" and event["status"] != "ok":
            raise BenchmarkError(f"the code ended with {event['status']}: {event.get('error')}")


def _agent() -> psutil.Process:
    """Return the agent that this benchmark's runtime has started."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("COLAB_BRIDGE_HOME") == os.environ["COLAB_BRIDGE_HOME"]
            if ours and "serve" in process.cmdline() and any(".pyz" in word for word in process.cmdline()):
                return process
    raise BenchmarkError("the agent was not found")


def _look(processes: Sequence[psutil.Process], looks: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return for each process percent of one processor in each period, and megabytes at its end."""
    percents: list[list[float]] = [[] for _ in processes]
    sizes: list[list[float]] = [[] for _ in processes]
    for _ in range(looks):
        before, begun = [_seconds(process) for process in processes], time.perf_counter()
        time.sleep(_LOOK_S)
        passed = time.perf_counter() - begun
        for number, process in enumerate(processes):
            percents[number].append(100 * (_seconds(process) - before[number]) / passed)
            sizes[number].append(process.memory_info().rss / 1e6)
    return percents, sizes


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _row(what: str, unit: str, values: list[float], limit: float) -> Row:
    target = Target(measure=Measure.VALUE, limit=limit)
    return Row(item="tunnel-idle", what=what, unit=unit, ours=summarize(values), target=target)
