"""``colab-bridge exec``, also called ``execute``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

__all__ = ["exec_"]


@click.command("exec")
@target_options
@click.option("-f", "--file", metavar="FILE", help="Take the code from a file.")
@click.option("-c", "--code", metavar="CODE", help="The code, as an option.")
@click.option("--allow-stale", is_flag=True, help="Run also when the files cannot be brought up.")
@json_option
@click.argument("source", metavar="CODE", required=False)
@click.pass_obj
def exec_(
    invocation: Invocation,
    /,
    source: str | None,
    code: str | None,
    file: str | None,
    allow_stale: bool,
    **options: str | bool | None,
) -> int:
    """Run CODE in the session's kernel; "-" reads it from standard input.

    Variables are kept for the next call. The value of a last expression is printed, as in a notebook.

    \b
      colab-bridge exec 'x = 20'
      colab-bridge exec 'x + 22'
      colab-bridge exec -f setup.py
      echo 'print(x)' | colab-bridge exec -
    """
    from colab_bridge.cli.start_run import start_run

    text = _code(source, code, file)
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    return start_run(invocation, target, {"kind": "code", "code": text, "allow_stale": allow_stale})


def _code(source: str | None, code: str | None, file: str | None) -> str:
    given = [value for value in (source, code, file) if value is not None]
    if len(given) != 1:
        message = "no code was given" if not given else "code was given more than once"
        raise UserError(message, hint="colab-bridge exec 'print(1)'   or: exec -f FILE   or: exec - (standard input)")
    if file is not None and file != "-":
        from colab_bridge.cli.source import read_source  # it reads encodings, which most calls do not need

        return read_source(Path(file))
    if "-" in (source, file):
        return sys.stdin.read()
    return given[0]
