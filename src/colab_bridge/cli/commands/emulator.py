"""``colab-bridge emulator``: Colab's back end on this machine, for tests."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.failure import INTERRUPTED_STATUS
from colab_bridge.cli.root import json_option
from colab_bridge.errors import UserError

if TYPE_CHECKING:
    from colab_bridge.testing.colab import ColabEmulator, EmulatorOptions

__all__ = ["emulator"]

_MEGABIT_BYTES = 125_000
_READ_BYTES = 4096


@click.command()
@click.option("--port-file", type=click.Path(path_type=Path), help="Also write the line to this file, once it is up.")
@click.option("--stdin-eof", is_flag=True, help="End when stdin is closed, such as by the death of the parent process.")
@click.option("--tier", type=click.Choice(["free", "pro", "pro_plus"]), default="pro", show_default=True)
@click.option("--paid-units", type=click.FloatRange(0), help="Compute units of the account.")
@click.option("--token-ttl", type=click.FloatRange(0, min_open=True), default=3600.0, help="Life of proxy tokens, s.")
@click.option(
    "--idle-timeout", type=click.FloatRange(0, min_open=True), default=5400.0, help="Life without keep-alive, s."
)
@click.option("--keep-alive", type=click.Choice(["answer", "hang"]), default="answer", help="What becomes of pings.")
@click.option("--expired-status", type=click.Choice(["404", "401"]), default="404", help="Answer to a bad proxy token.")
@click.option("--latency", type=click.FloatRange(0), default=0.0, help="Round trip to machines, in milliseconds.")
@click.option("--bandwidth", type=click.FloatRange(0, min_open=True), help="To each machine, in megabits a second.")
@click.option("--ssh", is_flag=True, help="Machines have an SSH server, if sshd is installed here.")
@click.option("--python", default="", help="Interpreter of the machines, with jupyter_server and ipykernel.")
@json_option
@click.pass_obj
def emulator(
    invocation: Invocation,
    port_file: Path | None,
    stdin_eof: bool,
    tier: Literal["free", "pro", "pro_plus"],
    paid_units: float | None,
    token_ttl: float,
    idle_timeout: float,
    keep_alive: Literal["answer", "hang"],
    expired_status: str,
    latency: float,
    bandwidth: float | None,
    ssh: bool,
    python: str,
) -> int:
    """Run an emulator of Colab's back end on this machine.

    For tests: no account, no network, no bill. It prints one line of JSON with the addresses of its services (`env` is
    what a client needs), and runs until Ctrl-C or SIGTERM. All of its machines then end.
    """
    import anyio  # these are here because no other command needs them

    from colab_bridge.testing.colab import EmulatorOptions

    options = EmulatorOptions(
        tier=tier,
        paid_units=paid_units,
        token_ttl_s=token_ttl,
        idle_timeout_s=idle_timeout,
        keep_alive=keep_alive,
        expired_status=int(expired_status),
        latency_s=latency / 1000,
        bytes_per_s=None if bandwidth is None else bandwidth * _MEGABIT_BYTES,
        ssh=ssh,
        python=python,
    )

    def announce(line: dict[str, Any]) -> None:
        text = json.dumps(line) + "\n"
        if port_file is not None:
            _write(port_file, text)
        invocation.console.out(text)

    return anyio.run(_serve, options, announce, stdin_eof)


def _write(path: Path, text: str) -> None:
    from colab_bridge._util.atomic import write_atomic

    try:
        write_atomic(path, text.encode(), mode=0o600)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}", hint="Name a file in a folder that exists."
        ) from error


async def _serve(options: EmulatorOptions, announce: Callable[[dict[str, Any]], None], stdin_eof: bool) -> int:
    """Run until somebody ends it; return the exit status."""
    import asyncio

    import anyio

    from colab_bridge.testing.colab import emulator as run_emulator

    ended, status = anyio.Event(), 0
    # Elsewhere Ctrl-C is an exception in this very coroutine, and there is no other polite signal.
    listen = anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) if os.name == "posix" else nullcontext()
    async with run_emulator(options) as colab:
        with listen as signals:
            announce(_line(colab))

            async def on_signal() -> None:
                nonlocal status
                if signals is not None:
                    status = INTERRUPTED_STATUS if await anext(signals) == signal.SIGINT else 0
                    ended.set()

            if stdin_eof:
                loop = asyncio.get_running_loop()
                then = partial(loop.call_soon_threadsafe, ended.set)
                threading.Thread(target=_read_to_end, args=(then,), daemon=True).start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(on_signal)
                await ended.wait()
                tasks.cancel_scope.cancel()
    return status


def _line(colab: ColabEmulator) -> dict[str, Any]:
    return {
        **colab.urls,
        "control_url": colab.control_url,
        "access_token": colab.access_token,
        "env": colab.env(),
        "pid": os.getpid(),
    }


def _read_to_end(then: Callable[[], object]) -> None:
    """Read stdin until it is closed, past ``sys.stdin``, whose lock would keep the interpreter from ending."""
    try:
        while os.read(0, _READ_BYTES):
            pass
    except OSError:
        pass  # there is no stdin
    then()
