"""``colab-bridge attach``: come back to a run."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import pick_run
from colab_bridge.cli.printer import JsonPrinter, Printer, ProgramPrinter
from colab_bridge.cli.root import json_option
from colab_bridge.cli.watch import watch
from colab_bridge.client.daemon import DaemonClient

__all__ = ["attach", "follow_run_of"]


@click.command()
@json_option
@click.argument("run", required=False)
@click.pass_obj
def attach(invocation: Invocation, run: str | None) -> int:
    """Show what RUN has put out so far and follow it to its end, as if you had never left.

    Without RUN it is the one that runs now in this project. The exit status is the program's own. Ctrl-C interrupts the
    program, but leaves a job running that was started with `run -d`.
    """
    client = invocation.client()
    return follow_run_of(invocation, client, pick_run(invocation, client, run, running_first=True))


def follow_run_of(invocation: Invocation, client: DaemonClient, run: dict[str, Any]) -> int:
    """Replay and follow a run; return its exit status."""
    run_id = str(run["id"])
    console = invocation.console
    printer: Printer
    if invocation.as_json:
        printer = JsonPrinter(console, invocation.paths.outputs_dir, run_id)
    elif run.get("kind") == "notebook":
        from colab_bridge.cli.notebook_printer import NotebookPrinter  # only a notebook needs it

        printer = NotebookPrinter(console, str(run.get("notebook") or run.get("title")), invocation.cwd)
    else:
        printer = ProgramPrinter(console, invocation.paths.outputs_dir, run_id)
    return watch(client, run_id, printer, console, replay=True, leave_on_interrupt=bool(run.get("detached")))
