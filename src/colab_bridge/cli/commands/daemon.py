"""``colab-bridge daemon``: the background process."""

from __future__ import annotations

from collections import deque

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import size, span
from colab_bridge.cli.root import json_option
from colab_bridge.client.connect import connect, stop_daemon
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.errors import TransientError

__all__ = ["daemon"]


@click.group()
def daemon() -> None:
    """Look after the background process that holds sessions and runs.

    Every command starts it when it is not there. It may be stopped or killed at any time: kernels and runtimes go on,
    and the next command picks them up again.
    """


@daemon.command()
@click.option("--foreground", is_flag=True, help="Run it in this terminal or under a service manager.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="TCP port on loopback; a free one when left out."
)
@json_option
@click.pass_obj
def start(invocation: Invocation, foreground: bool, port: int) -> int:
    """Start the daemon if it does not run."""
    if foreground:
        from colab_bridge.daemon.main import main as serve  # a second of imports that no other command needs

        return serve(["--port", str(port)])
    running = _running(invocation)
    client = running or invocation.client(port=port)
    _show(invocation, client, "runs already" if running else "started")
    return 0


@daemon.command()
@json_option
@click.pass_obj
def stop(invocation: Invocation) -> None:
    """Stop the daemon; kernels and runtimes go on."""
    client = _running(invocation)
    if client is not None:
        stop_daemon(client)
    if invocation.as_json:
        invocation.console.json({"running": False, "stopped": client is not None})
    else:
        invocation.console.note("the daemon is stopped" if client else "no daemon was running")


@daemon.command()
@json_option
@click.pass_obj
def restart(invocation: Invocation) -> None:
    """Stop the daemon and start it again; kernels and runtimes go on."""
    client = _running(invocation)
    if client is not None:
        stop_daemon(client)
    _show(invocation, invocation.client(), "restarted" if client else "started")


@daemon.command("status")
@json_option
@click.pass_obj
def daemon_status(invocation: Invocation) -> None:
    """Say whether the daemon runs. This command never starts it."""
    client = _running(invocation)
    if client is not None:
        _show(invocation, client, "runs")
    elif invocation.as_json:
        invocation.console.json({"running": False, "pid": None})
    else:
        invocation.console.out("no daemon is running\n")


@daemon.command("logs")
@click.option("-n", "--lines", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many lines.")
@json_option
@click.pass_obj
def daemon_logs(invocation: Invocation, lines: int) -> None:
    """Show the end of the daemon's log."""
    path = invocation.paths.daemon_log
    last: deque[str] = deque(maxlen=lines)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            last.extend(file)
    except FileNotFoundError:
        invocation.console.note(f"there is no log yet ({path})")
    if invocation.as_json:
        invocation.console.json({"path": str(path), "lines": [line.rstrip("\n") for line in last]})
    else:
        for line in last:
            invocation.console.out(line)


def _running(invocation: Invocation) -> DaemonClient | None:
    try:
        return connect(start=False, paths=invocation.paths)
    except TransientError as error:
        if error.code != "CB-TRANSIENT-NO-DAEMON":
            raise
        return None


def _show(invocation: Invocation, client: DaemonClient, what: str) -> None:
    found = client.get("/v1/status").get("daemon") or {}
    if invocation.as_json:
        invocation.console.json({"running": True, **found, "port": client.address.port})
        return
    uptime = found.get("uptime_s")
    up = f", up {span(uptime)}" if isinstance(uptime, (int, float)) else ""
    invocation.console.out(
        f"the daemon {what}: process {found.get('pid')}, port {client.address.port}, "
        f"version {found.get('version')}{up}, {size(found.get('rss_bytes'))}\n"
    )
