"""``colab-bridge upload``."""

from __future__ import annotations

from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import copy_files
from colab_bridge.cli.root import json_option, session_option

__all__ = ["upload"]


@click.command()
@session_option
@json_option
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", default="")
@click.pass_obj
def upload(invocation: Invocation, source: Path, target: str, session: str | None) -> None:
    """Copy a file or folder to the runtime, verified; a cut copy goes on where it ended.

    Files of the project need no upload: they are there before each run.
    """
    copy_files(invocation, "upload", session, here=source, there=target)
