"""Fifty megabytes of output, through the proxy kernel, without and with the tunnel, and past it, in turn."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.direct import direct_kernel
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Measure, Row, Target, summarize
from benchmarks.kernel_clients import KernelClient, WebSocketClient, execute, front_end
from benchmarks.product import product

__all__ = ["measure"]

_KERNEL = "colab-bridge-local"
_TARGET = Target(measure=Measure.RATIO, limit=0.5, at_least=True)


def measure(*, quick: bool) -> Iterator[Row]:
    """Measure 500,000 lines of 100 characters, and 50 pieces of 1 MB; a fifth of both when ``quick``."""
    lines, pieces, rounds = (100_000, 10, 3) if quick else (500_000, 50, 5)
    shapes = {
        f"{lines:,} lines of 100 B": f"for i in range({lines}): print('%099d' % i)",
        f"{pieces} pieces of 1 MB": f"for i in range({pieces}): print('x' * 999_999, flush=True)",
    }
    megabytes = pieces
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
        for what, code in shapes.items():
            rates = _in_turn(ways, code, megabytes, rounds)
            yield Row(
                item="output",
                what=f"{what} through the proxy kernel",
                unit="MB/s",
                ours=summarize(rates["proxy"], larger_is_better=True),
                other=summarize(rates["direct"], larger_is_better=True),
                against="direct",
                target=_TARGET,
            )
            for other, against, target in (("direct", "direct", None), ("local", "local ipykernel", _TARGET)):
                yield Row(
                    item="output",
                    what=f"{what} through the proxy kernel and the tunnel",
                    unit="MB/s",
                    ours=summarize(rates["tunnel"], larger_is_better=True),
                    other=summarize(rates[other], larger_is_better=True),
                    against=against,
                    target=target,
                    measure=Measure.RATIO,
                )


def _in_turn(ways: dict[str, KernelClient], code: str, megabytes: int, rounds: int) -> dict[str, list[float]]:
    """Return megabytes a second for each way, the first round left out because it warms up."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in sorted(ways, reverse=number % 2 == 1):
            done = execute(ways[name], code)
            if done.stdout_characters != megabytes * 1_000_000:
                missing = megabytes * 1_000_000 - done.stdout_characters
                raise BenchmarkError(f"{missing:,} characters are missing over the way {name!r}")
            if number:
                rates[name].append(megabytes / done.seconds)
    return rates
