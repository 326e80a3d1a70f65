"""Send a run request and follow it, for all commands that run something."""

from __future__ import annotations

from typing import Any

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.printer import JsonPrinter, Printer, ProgramPrinter
from colab_bridge.cli.target import Target
from colab_bridge.cli.watch import watch

__all__ = ["start_run", "starting_text"]


def start_run(invocation: Invocation, target: Target, request: dict[str, Any]) -> int:
    """Start a run, follow it to its end and return its exit status.

    Args:
        invocation: This call.
        target: Where it is to run.
        request: The members that say what to run.

    Raises:
        ColabBridgeError: it could not be started or followed.
    """
    body = {**invocation.base(), **target.for_run(), **request}
    client = invocation.client()
    return watch(client, body, _printer(invocation, target, request), invocation.console)


def _printer(invocation: Invocation, target: Target, request: dict[str, Any]) -> Printer:
    console, outputs = invocation.console, invocation.paths.outputs_dir
    if invocation.as_json:
        return JsonPrinter(console, outputs)
    starting = starting_text(target)
    notebook = request.get("notebook")
    if notebook:
        from colab_bridge.cli.notebook_printer import NotebookPrinter  # only a notebook needs it

        return NotebookPrinter(
            console, notebook.get("output_path") or notebook["path"], invocation.cwd, starting=starting
        )
    return ProgramPrinter(console, outputs, starting=starting)


def starting_text(target: Target) -> str:
    """Say what is being waited for before a run begins."""
    if target.session:
        return f"waiting for session {target.session}"
    if target.url:
        return "reaching the Jupyter server"
    if target.runtime and target.runtime != "local":
        return f"starting the runtime {target.runtime}"
    return "starting the local runtime"
