"""One execution of ``pass``, from the request to reply and idle, over each way in turn."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from benchmarks.direct import direct_kernel
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.kernel_clients import KernelClient, WebSocketClient, execute, front_end
from benchmarks.product import product

__all__ = ["measure"]

_KERNEL = "colab-bridge-local"
_WARM_UP = 20
_IN_A_ROW = 25


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure the proxy kernel, its own Jupyter server without us, and a plain local kernel.

    Args:
        quick: Fewer rounds.
    """
    rounds = 75 if quick else 300
    with (
        product() as found,
        direct_kernel(found.jupyter()) as socket,
        front_end(_KERNEL, found.project) as proxied,
        front_end(_KERNEL, found.project, COLAB_BRIDGE_TRANSPORT="tunnel") as tunnelled,
        front_end("python3", found.project) as local,
    ):
        found.must_have_tunnel()
        ways: dict[str, KernelClient] = {
            "proxy": proxied,
            "tunnel": tunnelled,
            "direct": WebSocketClient(socket),
            "local": local,
        }
        times = _in_turn(ways, rounds)
    ours, tunnel, direct, plain = (summarize(times[name]) for name in ("proxy", "tunnel", "direct", "local"))
    target = Target(measure=Measure.DIFFERENCE, limit=3.0)
    what = "`pass` through the proxy kernel"
    yield Row(item="round-trip", what=what, unit="ms", ours=ours, other=direct, against="direct", target=target)
    yield Row(
        item="round-trip",
        what=f"{what} and the tunnel",
        unit="ms",
        ours=tunnel,
        other=direct,
        against="direct",
        target=Target(measure=Measure.DIFFERENCE, limit=4.0),
    )
    yield Row(
        item="round-trip",
        what=f"{what}, for reference",
        unit="ms",
        ours=ours,
        other=plain,
        against="local ipykernel",
        measure=Measure.DIFFERENCE,
    )


def _in_turn(ways: dict[str, KernelClient], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds for each way: some in a row, as a notebook of short cells makes them, then the next way."""
    for client in ways.values():
        for _ in range(_WARM_UP):
            execute(client, "pass")
    times: dict[str, list[float]] = {name: [] for name in ways}
    gc.disable()  # ours, not theirs: this process only takes the time
    try:
        for _ in range(rounds // _IN_A_ROW):
            for name, client in ways.items():
                times[name] += [execute(client, "pass").seconds * 1000 for _ in range(_IN_A_ROW)]
    finally:
        gc.enable()
    return times
