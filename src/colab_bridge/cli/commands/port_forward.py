"""``colab-bridge port-forward``: a port here that leads to a program on the runtime."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import session_of
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.connect import revive
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import TransientError, UserError

__all__ = ["parse_ports", "port_forward"]


@click.command()
@session_option
@json_option
@click.argument("ports", metavar="PORT[:LOCAL]...", nargs=-1, required=True)
@click.pass_obj
def port_forward(invocation: Invocation, ports: tuple[str, ...], session: str | None) -> int:
    """Open ports of the runtime here, until Ctrl-C.

    Any protocol over TCP passes, and connections live through a cut link. LOCAL is the same number where it is left out
    and free.

    \b
      colab-bridge port-forward 6006            TensorBoard at http://127.0.0.1:6006
      colab-bridge port-forward 7860:9000
    """
    wanted = [parse_ports(text) for text in ports]
    client = invocation.client()
    name = session_of(invocation, client, session)
    wishes = [{"port": port, "local_port": local} for port, local in wanted]
    try:
        while True:
            opened = _hold(invocation, client, name, wishes)
            # The daemon was killed or started anew: the same ports, at the next one.
            wishes = [{"port": forward["port"], "local_port": forward["local_port"]} for forward in opened]
            client = revive()
    except KeyboardInterrupt:
        return 130


def _hold(
    invocation: Invocation, client: DaemonClient, session: str, wishes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Open ports and keep them open until the daemon ends; return them."""
    opened: list[dict[str, Any]] = []
    with client.stream("POST", f"/v1/sessions/{segment(session)}/forwards", {"ports": wishes}) as events:
        try:
            for event in events:
                if event["type"] == "open":
                    opened = event["forwards"]
                    _show(invocation, session, opened)
        except TransientError:
            if not opened:
                raise
    return opened


def _show(invocation: Invocation, session: str, opened: list[dict[str, Any]]) -> None:
    console = invocation.console
    if invocation.as_json:
        console.json({"forwards": opened})
        return
    for forward in opened:
        if forward["warning"]:
            console.note(forward["warning"])
        console.out(f"127.0.0.1:{forward['local_port']} -> {session}:{forward['port']}\n")


def parse_ports(text: str) -> tuple[int, int | None]:
    """Read ``PORT`` or ``PORT:LOCAL``; ``LOCAL`` 0 is any free one.

    Raises:
        UserError: it is none.
    """
    port, colon, local = text.partition(":")
    numbers = [int(part) if part.isascii() and part.isdigit() else -1 for part in (port, local if colon else "0")]
    if not 1 <= numbers[0] <= 65_535 or not 0 <= numbers[1] <= 65_535:
        raise UserError(f"{text[:40]!r} is no port", hint="write it like 6006 or 6006:9000")
    return numbers[0], numbers[1] if colon else None
