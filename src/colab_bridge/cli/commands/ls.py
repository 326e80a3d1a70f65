"""``colab-bridge ls``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age
from colab_bridge.cli.moving import files_path, session_of
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.cli.sync_text import amount

__all__ = ["ls"]

_STATE_FOLDER = ".colab-bridge"  # what the sync keeps in each root


@click.command()
@session_option
@json_option
@click.argument("path", default=".")
@click.pass_obj
def ls(invocation: Invocation, path: str, session: str | None) -> None:
    """List a folder of the runtime; relative paths begin at the workspace."""
    client = invocation.client()
    found = client.get(files_path(session_of(invocation, client, session)), file=path)
    if invocation.as_json:
        invocation.console.json(found)
        return
    rows = [
        [
            f"{entry['name']}/" if entry["kind"] == "folder" else entry["name"],
            amount(entry["size"]),
            age(entry["mtime"]),
        ]
        for entry in found["entries"]
        if entry["name"] != _STATE_FOLDER
    ]
    if rows:
        invocation.console.table(("name", "size", "age"), rows)
    else:
        invocation.console.note(f"{found['path']} is empty")
