"""``colab-bridge edit``."""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import move, session_of
from colab_bridge.cli.root import session_option
from colab_bridge.errors import ColabBridgeError, ConflictError, UserError

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
    folder = Path(tempfile.mkdtemp(prefix="colab-bridge-edit-"))
    here, there_now = folder / posixpath.basename(path), folder / "there-now"
    edited = False
    try:
        move(invocation, client, name, "download", {"local": str(here), "remote": path})
        before = here.read_bytes()
        try:
            click.edit(filename=str(here))
        finally:
            edited = here.read_bytes() != before
        if edited:
            move(invocation, client, name, "download", {"local": str(there_now), "remote": path})
            if there_now.read_bytes() != before:
                raise ConflictError(f"{path} was changed on the runtime meanwhile", hint="Look at both.")
            move(invocation, client, name, "upload", {"local": str(here), "remote": path})
    except (ColabBridgeError, click.ClickException, KeyboardInterrupt) as error:
        if edited:
            there_now.unlink(missing_ok=True)
            raise _kept(error, here, path) from None
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)
    invocation.console.note(f"{path}: {'saved' if edited else 'not changed'}")


def _kept(error: BaseException, here: Path, path: str) -> ColabBridgeError:
    """Return the error for an edit that is not on the runtime, and where it is."""
    hint = f"your version is {here}; to put it there all the same: colab-bridge upload {here} {path}"
    if isinstance(error, ColabBridgeError):
        error.hint = hint
        return error
    words = error.format_message() if isinstance(error, click.ClickException) else "stopped"
    return UserError(f"{path} is not saved on the runtime: {words}", hint=hint)
