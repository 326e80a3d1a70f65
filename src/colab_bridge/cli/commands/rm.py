"""``colab-bridge rm``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import files_path, session_of
from colab_bridge.cli.root import json_option, session_option

__all__ = ["rm"]


@click.command()
@session_option
@click.option("-r", "--recursive", is_flag=True, help="A folder with everything in it.")
@json_option
@click.argument("path")
@click.pass_obj
def rm(invocation: Invocation, path: str, session: str | None, recursive: bool) -> None:
    """Remove a file of the runtime; one of the workspace goes to the trash here too."""
    client = invocation.client()
    name = session_of(invocation, client, session)
    result = client.delete(files_path(name), file=path, recursive="true" if recursive else "false")
    if invocation.as_json:
        invocation.console.json(result)
    else:
        here = "; here it is in the trash: colab-bridge sync trash list" if result.get("here") else ""
        invocation.console.note(f"removed: {path}{here}")
