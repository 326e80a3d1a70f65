"""The group that holds all commands, and the options that many of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from colab_bridge import __version__
from colab_bridge.cli.group import LazyGroup

__all__ = ["build_root", "json_option", "session_option", "target_options", "target_options_without_r"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_HELP = """Your own editor, folder and notebooks; a remote machine's kernels underneath.

\b
  colab-bridge run analysis.ipynb      a notebook, outputs written into it
  colab-bridge run train.py --lr 0.1   a script, with its arguments
  colab-bridge run -- nvidia-smi       a command on the runtime
  colab-bridge exec 'print(1 + 1)'     code; variables are kept for the next call
  colab-bridge status                  what is there and what runs

The first command starts what it needs. Without any setting, code runs on this machine.
"""


def build_root(table: Mapping[str, tuple[str, str]]) -> click.Group:
    """Return the group ``colab-bridge``.

    Args:
        table: The commands, see :class:`LazyGroup`.
    """
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
    group = LazyGroup(
        "colab-bridge",
        table=table,
        help=_HELP,
        callback=_without_command,
        invoke_without_command=True,
        context_settings=settings,
    )
    click.version_option(__version__, message="%(prog)s %(version)s")(group)
    return group


def _without_command() -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _set_json(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        context.find_root().obj.as_json = True
    return value


def json_option(command: _Command) -> _Command:
    """Add ``--json``, which :attr:`Invocation.as_json` then tells."""
    return click.option(
        "--json", is_flag=True, expose_value=False, is_eager=True, callback=_set_json, help="Print one JSON document."
    )(command)


def session_option(command: _Command) -> _Command:
    """Add ``-s NAME``."""
    return click.option("-s", "--session", metavar="NAME", help="Session to use; the project's own when left out.")(
        command
    )


def target_options(command: _Command) -> _Command:
    """Add the options that say where code runs: session, runtime, provider, URL, isolated, hardware."""
    return _target_options(command, "-r", "--runtime")


def target_options_without_r(command: _Command) -> _Command:
    """Add the same options, where ``-r`` means something else to everybody: ``pip install -r``."""
    return _target_options(command, "--runtime")


def _target_options(command: _Command, *runtime: str) -> _Command:
    decorators = [
        session_option,
        click.option(*runtime, metavar="NAME", help="Configured runtime to use, see `colab-bridge config`."),
        click.option("--provider", metavar="NAME", help="Kind of runtime: local, jupyter or colab."),
        click.option("--url", metavar="URL", help="A Jupyter server, with ?token=... as the browser shows it."),
        click.option("--isolated", is_flag=True, help="A local runtime in a folder of its own."),
        click.option("--gpu", metavar="NAMES", help="Colab: GPU, or an order of preference: A100,L4,T4."),
        click.option("--tpu", metavar="NAMES", help="Colab: TPU, or an order of preference: V6E1,V5E1."),
        click.option("--high-mem", is_flag=True, help="Colab: more memory, where there is a choice."),
        click.option("--runtime-version", metavar="LABEL", help="Colab: image of the machine, such as 2026.01."),
        click.option("--wait", metavar="SPAN", help="Colab: wait so long for a free machine: 30m, 2h."),
        click.option("--account", metavar="EMAIL", help="Colab: account that pays; the one in use when left out."),
        click.option("--budget", type=click.FloatRange(0), metavar="UNITS", help="Colab: most compute units to use."),
        click.option("--no-budget", is_flag=True, help="Colab: no limit, also where the settings have one."),
        click.option("--idle-minutes", type=click.FloatRange(0, 1440), metavar="N", help="Colab: idle limit."),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command
