"""``colab-bridge download``."""

from __future__ import annotations

from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import move, session_of
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
    client = invocation.client()
    name = session_of(invocation, client, session)
    body = {"local": str(Path(invocation.cwd) / target), "remote": source}
    result = move(invocation, client, name, "download", body)
    if invocation.as_json:
        invocation.console.json(result)
    else:
        done = result["downloaded"]
        invocation.console.note(f"{len(done)} file{'' if len(done) == 1 else 's'} down: {', '.join(done[:3])}")
