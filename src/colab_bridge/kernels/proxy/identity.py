"""What the daemon is told about the front end, so that it can find a kernel again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colab_bridge._util.process import identify
from colab_bridge.config.caller import caller_env
from colab_bridge.config.project import find_root
from colab_bridge.kernels.proxy.arguments import Arguments

__all__ = ["front_end_of", "kernel_request"]


def front_end_of(environ: Mapping[str, str]) -> str:
    """Return ``jupyter``, ``vscode`` or ``unknown``.

    VS Code's extension host gives its children ``VSCODE_PID``; its terminal does not, so a JupyterLab that is started
    there is not taken for VS Code. Jupyter's servers name the notebook in ``JPY_SESSION_NAME``.
    """
    if environ.get("JPY_SESSION_NAME"):
        return "jupyter"
    if environ.get("VSCODE_PID"):
        return "vscode"
    return "jupyter" if environ.get("JPY_PARENT_PID") else "unknown"


def process_of(pid: int) -> dict[str, Any] | None:
    """Return what a later daemon needs to know whether this very process still runs."""
    found = identify(pid)
    return {"pid": found.pid, "create_time": found.create_time} if found else None


def kernel_request(arguments: Arguments, environ: Mapping[str, str], cwd: Path, parent_pid: int) -> dict[str, Any]:
    """Return the body of ``POST /v1/kernels``.

    Args:
        arguments: The command line.
        environ: Our environment.
        cwd: Our working folder; all front ends start kernels in the notebook's folder.
        parent_pid: Process that started us.
    """
    notebook = environ.get("JPY_SESSION_NAME", "")
    identity = {
        # Not resolve(): a symbolic link stays what the user calls it.
        "notebook": os.path.abspath(cwd / notebook) if notebook else None,
        "connection_file": str(arguments.connection_file),
        "parent_pid": parent_pid,
        "process": process_of(os.getpid()),
        "cwd": str(cwd),
        "spec": arguments.kernel_name or arguments.runtime or arguments.session or _machine(arguments) or "default",
        "front_end": front_end_of(environ),
    }
    body: dict[str, Any] = {
        "project": str(arguments.project or find_root(cwd)),
        "cwd": str(cwd),
        "identity": identity,
        "env": caller_env(environ),
    }
    for name in ("runtime", "session", "kernel_name", "provider", "options"):
        if value := getattr(arguments, name):
            body[name] = value
    return body


def _machine(arguments: Arguments) -> str:
    """Return what tells kernels on different machines of one notebook apart."""
    return " ".join([arguments.provider or "", *arguments.options.values()]).strip()
