"""The command line of the proxy kernel, as front ends write it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Arguments", "parse_arguments"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the proxy kernel was started with.

    Attributes:
        connection_file: Absolute path of the file with addresses and keys.
        runtime: Name of a configured runtime; None for the default of the project.
        session: Name of a session; None for the one that belongs to project and runtime.
        kernel_name: Kernelspec on the runtime; None for its default.
        project: Absolute path of the project's root; None to look for it above the working folder.
        provider: Kind of runtime, where no configured one is named.
        options: Options for that provider.
        asks: Ask in the first cell which machine it is to be.
    """

    connection_file: Path
    runtime: str | None = None
    session: str | None = None
    kernel_name: str | None = None
    project: Path | None = None
    provider: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    asks: bool = False


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Parse the arguments after the program's name.

    The connection file may be written as ``PATH``, ``-f PATH`` and ``--f=PATH``: kernelspecs use the first two, and VS
    Code rewrites command lines to the third.

    Raises:
        SystemExit: they make no sense; a usage message was printed to stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m colab_bridge.kernels.proxy",
        description="A kernel for Jupyter front ends; started by them, not by hand.",
        allow_abbrev=False,
    )
    parser.add_argument("positional", nargs="?", metavar="CONNECTION_FILE")
    parser.add_argument("-f", "--f", dest="connection_file", metavar="CONNECTION_FILE")
    parser.add_argument("--runtime", metavar="NAME", help="a configured runtime")
    parser.add_argument("--session", metavar="NAME", help="a session by name")
    parser.add_argument("--kernel-name", metavar="NAME", help="kernelspec on the runtime")
    parser.add_argument("--provider", metavar="NAME", help="kind of runtime")
    parser.add_argument("--gpu", metavar="NAMES", help="order of preference, such as A100,T4")
    parser.add_argument("--tpu", metavar="NAMES", help="order of preference")
    parser.add_argument("--ask", action="store_true", help="ask in the first cell which machine it is to be")
    parser.add_argument("--project", metavar="FOLDER", help="root of the project")
    found = parser.parse_args(argv)
    file = found.connection_file or found.positional
    if not file:
        parser.error("a connection file is needed: this program is started by Jupyter front ends")
    return Arguments(
        connection_file=Path(file).absolute(),
        runtime=found.runtime,
        session=found.session,
        kernel_name=found.kernel_name,
        project=Path(found.project).expanduser().absolute() if found.project else None,
        provider=found.provider,
        options={name: value for name in ("gpu", "tpu") if (value := getattr(found, name))},
        asks=found.ask,
    )
