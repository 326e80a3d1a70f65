"""``colab-bridge run``: a script, a module, a notebook or a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

__all__ = ["run", "split_arguments"]


class _RunCommand(click.Command):
    """A command whose own options end where the program begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the program's arguments away from the parser."""
        own, what, rest = split_arguments(args, _options_with_value(self))
        ctx.meta["colab_bridge.what"] = what
        ctx.meta["colab_bridge.rest"] = rest
        return super().parse_args(ctx, own)


def _options_with_value(command: click.Command) -> frozenset[str]:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag]
    return frozenset(name for option in options for name in option.opts)


def split_arguments(args: list[str], with_value: frozenset[str]) -> tuple[list[str], str, list[str]]:
    """Part the arguments of ``run`` into ours and the program's.

    Args:
        args: Everything after ``run``.
        with_value: Our options that take a value.

    Returns:
        Our options; what to run (``command``, ``module``, ``notebook``, ``stdin``, ``script``, or empty when nothing is
        named); and the rest, beginning with the name of what to run. All arguments after a notebook are ours, because a
        notebook takes none.
    """
    index = 0
    while index < len(args):
        word = args[index]
        if word == "--":
            return args[:index], "command", args[index + 1 :]
        if word == "-":
            return args[:index], "stdin", args[index:]
        if word == "-m":
            return args[:index], "module", args[index + 1 :]
        if not word.startswith("-"):
            if word.endswith(".ipynb"):
                return [*args[:index], *args[index + 1 :]], "notebook", [word]
            return args[:index], "script", args[index:]
        index += 2 if word in with_value else 1
    return args, "", []


@click.command(cls=_RunCommand, options_metavar="[OPTIONS]", context_settings={"ignore_unknown_options": False})
@target_options
@click.option("-o", "--output", metavar="OUT", help="Notebook: write to this file and leave the input alone.")
@click.option(
    "--param", "params", metavar="K=V", multiple=True, help="Notebook: value for its cell tagged 'parameters'."
)
@click.option("--resume", is_flag=True, help="Notebook: go on from the first cell that failed or did not run.")
@click.option("--kernel", metavar="NAME", help="Notebook: kernelspec to use instead of the notebook's own.")
@click.option("--keep-going", is_flag=True, help="Notebook: run the cells after one that fails.")
@click.option("-d", "--detach", is_flag=True, help="Return at once; it goes on with nobody attached, see `job`.")
@click.option("--notify", is_flag=True, help="Tell me when it has ended, fails or asks something (if over a minute).")
@click.option("--allow-stale", is_flag=True, help="Run also when the files cannot be brought up.")
@click.option("--every", metavar="SPAN", help="Run it now and again after each SPAN: 30m, 6h, 1d.")
@click.option("--cron", metavar="LINE", help='Run it at the local times of a crontab line: "0 7 * * 1-5".')
@json_option
@click.argument("target", metavar="TARGET [ARGS]...", required=False)
@click.pass_context
def run(
    context: click.Context,
    /,
    target: str | None,
    output: str | None,
    params: tuple[str, ...],
    resume: bool,
    keep_going: bool,
    kernel: str | None,
    detach: bool,
    notify: bool,
    allow_stale: bool,
    every: str | None,
    cron: str | None,
    **options: str | bool | None,
) -> int:
    """Run a script, a module, a notebook or a command, here or on a runtime.

    Output appears as it comes, and the exit status is the program's own. Everything after the script's name belongs to
    the script.

    \b
      colab-bridge run train.py --lr 0.1        a script with arguments
      colab-bridge run -m package.module ARGS   a module
      colab-bridge run - < script.py            a script from standard input
      colab-bridge run -- nvidia-smi            a command
      colab-bridge run nb.ipynb                 a notebook; outputs go into it
      colab-bridge run nb.ipynb -o out.ipynb --param year=2026
      colab-bridge run -d nb.ipynb              a job: goes on when you leave
      colab-bridge run --every 1d nb.ipynb      again and again, see `schedule`

    As the first line of an executable script: #!/usr/bin/env -S colab-bridge run
    """
    from colab_bridge.cli.start_run import start_job, start_run

    invocation: Invocation = context.obj
    what, rest = context.meta["colab_bridge.what"], context.meta["colab_bridge.rest"]
    if target is not None:
        raise UserError(
            f"a notebook takes no arguments, but '{target[:60]}' was given", hint="Give values with: --param NAME=VALUE"
        )
    if what != "notebook" and (output or params or resume or keep_going or kernel):
        raise UserError(
            "-o, --param, --resume, --keep-going and --kernel are for notebooks", hint="see: colab-bridge run --help"
        )
    if what == "notebook":
        request = _notebook(invocation, rest[0], output, params, resume=resume, keep_going=keep_going)
        request["notebook"]["kernel_name"] = kernel
    else:
        request = _program(invocation, what, rest)
    where = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    request |= {"notify": notify, "allow_stale": allow_stale}
    if every or cron:
        from colab_bridge.cli.commands.schedule import add_schedule  # few runs are scheduled

        return add_schedule(invocation, where, request, every=every, cron=cron)
    return (start_job if detach else start_run)(invocation, where, request)


def _program(invocation: Invocation, what: str, rest: list[str]) -> dict[str, Any]:
    if not what or not rest:
        needed = {"command": "a command after --", "module": "a module after -m"}.get(what, "a script or a notebook")
        raise UserError(f"nothing to run: {needed} is missing", hint="see: colab-bridge run --help")
    if what == "command":
        return {"kind": "command", "command": rest}
    if what == "module":
        return {"kind": "module", "module": rest[0], "argv": rest[1:]}
    if what == "stdin":
        return {"kind": "script", "path": "-", "source": sys.stdin.read(), "argv": rest[1:]}
    from colab_bridge.cli.source import read_source  # it reads encodings, which only scripts need

    path = Path(rest[0])
    source = read_source(path)
    return {"kind": "script", "path": os.path.join(invocation.cwd, path), "source": source, "argv": rest[1:]}


def _notebook(
    invocation: Invocation, name: str, output: str | None, params: tuple[str, ...], *, resume: bool, keep_going: bool
) -> dict[str, Any]:
    path = Path(name)
    if path.is_dir():
        raise UserError(f"{path} is a folder", hint="Name a notebook in it.", code="CB-USER-FOLDER")
    if not path.exists():
        raise UserError(
            f"there is no notebook {path}", hint="Check the name; `ls` shows what is here.", code="CB-USER-NOFILE"
        )
    from colab_bridge.cli.parameters import parse_parameters  # only notebooks have parameters

    return {
        "kind": "notebook",
        "notebook": {
            "path": os.path.normpath(os.path.join(invocation.cwd, path)),
            "output_path": os.path.normpath(os.path.join(invocation.cwd, output)) if output else None,
            "parameters": parse_parameters(params),
            "resume": resume,
            "keep_going": keep_going,
        },
    }
