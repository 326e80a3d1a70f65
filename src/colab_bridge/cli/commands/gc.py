"""``colab-bridge gc``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option

__all__ = ["gc"]


@click.command()
@json_option
@click.pass_obj
def gc(invocation: Invocation) -> None:
    """Release the Colab runtimes that this machine has asked for and no session holds.

    Runtimes that were opened in a browser or by another program are never touched; end them with `stop ID`.
    """
    invocation.doing = "looking for forgotten runtimes"
    found = invocation.client().post("/v1/account/gc", {"env": invocation.environment()})
    invocation.console.clear_progress()
    if invocation.as_json:
        invocation.console.json(found)
        return
    released = found.get("released") or []
    for runtime in released:
        invocation.console.note(f"released {runtime.get('id')} ({runtime.get('hardware')})")
    if not released:
        invocation.console.note("nothing to release; all runtimes of the account: colab-bridge ps --all")
