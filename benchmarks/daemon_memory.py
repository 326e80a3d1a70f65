"""How the daemon grows while a lot of output passes and one of its viewers cannot keep up."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from benchmarks.direct import BlockingSocket
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.product import Product, product

__all__ = ["measure"]

_LOOK_EVERY_S = 0.02
# The slow viewer takes 64 KiB a turn of some 30 ms, about 2 MB/s.
_SIP_BYTES = 64 * 1024
_SIP_EVERY_S = 0.02
_SMALL_BUFFER = 64 * 1024
_TARGET = Target(measure=Measure.VALUE, limit=150.0)


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the growth of the daemon's memory during 100 MB of output with a slow viewer attached.

    Args:
        quick: 20 MB only.
    """
    megabytes = 20 if quick else 100
    shapes = {
        "lines of 100 B": f"for i in range({megabytes * 10_000}): print('%099d' % i)",
        "pieces of 1 MB": f"for i in range({megabytes}): print('x' * 999_999, flush=True)",
        "one single piece": f"print('x' * {megabytes * 1_000_000 - 1})",
    }
    for what, code in shapes.items():
        with product() as found, _slow_viewer(found):
            growth = _growth(found.daemon, lambda code=code, found=found: found.execute(code))  # type: ignore[misc]
        yield Row(
            item="memory",
            what=f"daemon's growth, {megabytes} MB as {what}, a slow viewer",
            unit="MB",
            ours=summarize([growth]),
            # Such a message does not exist in practice; its number is shown because it is the worst case.
            target=None if what.startswith("one") else _TARGET,
            measure=Measure.VALUE,
        )
    yield from _single_message(megabytes)


def _single_message(megabytes: int) -> Iterator[Row]:
    """Measure one message that is as large as all that output, with two viewers: the notebook writer and a terminal."""
    code = f"from IPython.display import HTML, display; display(HTML('x' * {megabytes * 1_000_000}))"
    with product() as found:
        path = found.project / "one.ipynb"
        path.write_text(json.dumps(_notebook(code)), encoding="utf-8")
        found.run_notebook(path)  # everything that is loaded once has been loaded then
        path.write_text(json.dumps(_notebook(code)), encoding="utf-8")
        growth = _growth(found.daemon, lambda: found.run_notebook(path))
    yield Row(
        item="memory",
        what=f"daemon's growth, one message of {megabytes} MB, a notebook and a viewer",
        unit="MB",
        ours=summarize([growth]),
        target=Target(measure=Measure.VALUE, limit=3.5 * megabytes),
        measure=Measure.VALUE,
    )


def _notebook(code: str) -> dict[str, Any]:
    cell = {
        "cell_type": "code",
        "id": "one",
        "source": code,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}


def _growth(daemon: psutil.Process, work: Callable[[], None]) -> float:
    """Return by how many megabytes a process grew at most while something was done."""
    before = daemon.memory_info().rss
    highest = before
    done = threading.Event()

    def look() -> None:
        nonlocal highest
        while not done.wait(_LOOK_EVERY_S):
            highest = max(highest, daemon.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (max(highest, daemon.memory_info().rss) - before) / 1e6


@contextlib.contextmanager
def _slow_viewer(found: Product) -> Iterator[None]:
    """Attach a client to the kernel that reads far slower than the kernel writes."""
    kernel = found.client.get("/v1/kernels", session=found.session)["kernels"][0]["id"]
    address = found.client.address
    socket = BlockingSocket(
        address.port,
        f"/v1/kernels/{kernel}/channels?after=0",
        {"Authorization": f"Bearer {address.token}"},
        receive_buffer=_SMALL_BUFFER,
    )
    done = threading.Event()

    def sip() -> None:
        while not done.wait(_SIP_EVERY_S):
            socket.receive_slowly(_SIP_BYTES)

    reader = threading.Thread(target=sip)
    reader.start()
    try:
        yield
    finally:
        done.set()
        reader.join()
        socket.close()
