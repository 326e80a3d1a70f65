"""``colab-bridge download``."""

from __future__ import annotations

from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import copy_files
from colab_bridge.cli.root import json_option, session_option

__all__ = ["download"]


@click.command()
@session_option
@json_option
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path), default=Path())
@click.pass_obj
def download(invocation: Invocation, source: str, target: Path, session: str | None) -> None:
    """Copy a file or folder from the runtime, verified; a cut copy goes on where it ended.

    Results in the workspace need no download: they are here after each run.
    """
    copy_files(invocation, "download", session, here=target, there=source)
