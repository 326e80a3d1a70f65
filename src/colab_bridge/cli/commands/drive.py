"""``colab-bridge drive``: Google Drive on a Colab runtime."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

__all__ = ["drive"]

_MOUNT = """\
import sys
try:
    from google.colab import drive
except ImportError:
    sys.exit("Drive can be mounted on Colab runtimes only")
try:
    drive.mount(sys.argv[1], force_remount=sys.argv[2] == "again")
except Exception as error:
    sys.exit(f"Drive is not mounted: {error}")
"""


@click.group()
def drive() -> None:
    """Use Google Drive on a Colab runtime."""


@drive.command()
@target_options
@click.option("--force", is_flag=True, help="Mount it anew where it is mounted already.")
@json_option
@click.argument("place", default="/content/drive")
@click.pass_obj
def mount(invocation: Invocation, /, place: str, force: bool, **options: str | bool | None) -> int:
    """Mount your Drive at PLACE on the runtime, /content/drive by default.

    The first time a page is named on which you agree, with the account of the runtime.
    """
    from colab_bridge.cli.start_run import start_run

    if not place.startswith("/"):
        raise UserError("PLACE is a path on the runtime", hint="give it from the root on, such as /content/drive")
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    argv = [place, "again" if force else "once"]
    return start_run(invocation, target, {"kind": "script", "path": "-", "source": _MOUNT, "argv": argv})
