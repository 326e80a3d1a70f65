"""``colab-bridge edit``."""

from __future__ import annotations

import posixpath
import tempfile
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import move, session_of
from colab_bridge.cli.root import session_option
from colab_bridge.errors import UserError

__all__ = ["edit"]


@click.command()
@session_option
@click.argument("path")
@click.pass_obj
def edit(invocation: Invocation, path: str, session: str | None) -> None:
    """Open a file of the runtime in your editor ($VISUAL or $EDITOR), and put it back when you close it."""
    if not invocation.console.interactive:
        raise UserError("an editor needs a terminal", hint=f"colab-bridge download {path}")
    client = invocation.client()
    name = session_of(invocation, client, session)
    with tempfile.TemporaryDirectory(prefix="colab-bridge-edit-") as folder:
        here = Path(folder) / posixpath.basename(path)
        move(invocation, client, name, "download", {"local": str(here), "remote": path})
        before = here.read_bytes()
        click.edit(filename=str(here))
        if here.read_bytes() == before:
            invocation.console.note(f"{path}: not changed")
            return
        move(invocation, client, name, "upload", {"local": str(here), "remote": path})
    invocation.console.note(f"{path}: saved")
