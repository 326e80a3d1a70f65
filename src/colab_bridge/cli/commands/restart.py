"""``colab-bridge restart``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.daemon import segment

__all__ = ["restart"]


@click.command()
@session_option
@json_option
@click.argument("name", metavar="[SESSION]", required=False)
@click.pass_obj
def restart(invocation: Invocation, name: str | None, session: str | None) -> None:
    """Start the kernel of a session anew: its variables are lost, files are not."""
    client = invocation.client()
    wanted = name or session or default_session(invocation, client)
    invocation.doing = "restarting the kernel"
    done = client.post(f"/v1/sessions/{segment(wanted)}/restart")
    if invocation.as_json:
        invocation.console.json(done)
    else:
        new = "the kernel is new" if done["restarted"] else "it has no kernel; the next run gets a new one"
        invocation.console.note(f"{wanted}: {new}")
