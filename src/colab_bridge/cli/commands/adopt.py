"""``colab-bridge adopt``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option

__all__ = ["adopt"]


@click.command()
@click.option("-s", "--session", metavar="NAME", help="Name of the session; one after the folder when left out.")
@json_option
@click.argument("runtime", metavar="ID")
@click.pass_obj
def adopt(invocation: Invocation, session: str | None, runtime: str) -> None:
    """Make a session of a Colab runtime that is there already, also one that was opened in a browser.

    The ids are in `colab-bridge ps --all`. Its variables, files and kernels stay as they are.
    """
    body = {"runtime": runtime, "project": invocation.project, "name": session, "env": invocation.environment()}
    invocation.doing = f"reaching {runtime[:40]}"
    found = invocation.client().post("/v1/account/adopt", body)
    invocation.console.clear_progress()
    if invocation.as_json:
        invocation.console.json(found)
        return
    invocation.console.account(found.get("account"))
    name = found.get("name")
    invocation.console.note(f"session {name} is ready ({found.get('label')})")
    invocation.console.note(f"use it: colab-bridge exec -s {name} 'print(1)'   end it: colab-bridge stop {name}")
