"""``colab-bridge install``: Python packages on the runtime."""

from __future__ import annotations

import os
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options_without_r
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

__all__ = ["install"]

# A process of its own: inside a kernel pip takes itself for a notebook's guest and shows HTML.
_PIP = """\
import subprocess, sys
argv = [sys.executable, "-m", "pip", *sys.argv[1:]]
with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
    for line in child.stdout:
        print(line, end="", flush=True)
sys.exit(child.returncode)
"""


@click.command()
@target_options_without_r
@click.option("-r", "--requirement", metavar="FILE", multiple=True, help="Requirements file of the project.")
@json_option
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@click.pass_obj
def install(
    invocation: Invocation,
    /,
    requirement: tuple[str, ...],
    packages: tuple[str, ...],
    **options: str | bool | None,
) -> int:
    """Install Python packages into the environment of the runtime's kernels.

    A kernel that has loaded another version of a package keeps it until `colab-bridge restart`.

    \b
      colab-bridge install -r requirements.txt
      colab-bridge install 'torch>=2.4' einops
    """
    from colab_bridge.cli.start_run import start_run

    if not packages and not requirement:
        raise UserError("nothing to install is named", hint="colab-bridge install -r requirements.txt")
    for name in requirement:
        if not Path(os.path.join(invocation.cwd, name)).is_file():
            raise UserError(f"there is no file {name}", hint="name one of this project", code="CB-USER-NOFILE")
    files = [part for name in requirement for part in ("-r", name)]
    argv = ["install", "--disable-pip-version-check", *files, *packages]
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    return start_run(invocation, target, {"kind": "script", "path": "-", "source": _PIP, "argv": argv})
