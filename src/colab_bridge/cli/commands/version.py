"""``colab-bridge version``."""

from __future__ import annotations

import platform

import click

from colab_bridge import __version__
from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option

__all__ = ["version"]


@click.command()
@json_option
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Show the version."""
    if invocation.as_json:
        invocation.console.json({"version": __version__, "python": platform.python_version()})
    else:
        invocation.console.out(f"colab-bridge {__version__}\n")
