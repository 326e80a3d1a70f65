"""``colab-bridge logs``: the output of a run, again."""

from __future__ import annotations

import os
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import RUN_HEAD, pick_run, run_rows
from colab_bridge.cli.printer import JsonPrinter, Printer, ProgramPrinter
from colab_bridge.cli.root import json_option
from colab_bridge.client.daemon import DaemonClient, segment

__all__ = ["logs", "show_run"]


@click.command()
@click.option("-l", "--list", "as_list", is_flag=True, help="List the runs of this project.")
@click.option("-a", "--all", "all_projects", is_flag=True, help="With --list: of all projects.")
@click.option("--save", is_flag=True, help="Write the outputs of a notebook run into the notebook once more.")
@click.option("-o", "--output", metavar="OUT", help="With --save: into this file.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing, as `attach` does.")
@json_option
@click.argument("run", required=False)
@click.pass_obj
def logs(
    invocation: Invocation,
    run: str | None,
    as_list: bool,
    all_projects: bool,
    save: bool,
    output: str | None,
    follow: bool,
) -> int:
    """Show the output of RUN again, the newest when none is named.

    \b
      colab-bridge logs                  the newest run of this project
      colab-bridge logs --list           which runs there are
      colab-bridge logs RUN --save       a notebook's outputs, written once more
    """
    client = invocation.client()
    if as_list:
        return _list(invocation, client, all_projects=all_projects)
    found = pick_run(invocation, client, run, running_first=False)
    if save or output:
        return _save(invocation, client, str(found["id"]), output)
    if follow:
        from colab_bridge.cli.commands.attach import follow_run_of  # the other command

        return follow_run_of(invocation, client, found)
    return show_run(invocation, client, found)


def _list(invocation: Invocation, client: DaemonClient, *, all_projects: bool) -> int:
    project = None if all_projects else invocation.project
    runs = client.get("/v1/runs", project=project, limit=50).get("runs") or []
    if invocation.as_json:
        invocation.console.json({"runs": runs})
    elif runs:
        invocation.console.table(RUN_HEAD, run_rows(runs))
    else:
        invocation.console.note("no runs yet in this project (all projects: --all)")
    return 0


def _save(invocation: Invocation, client: DaemonClient, run_id: str, output: str | None) -> int:
    path = os.path.normpath(os.path.join(invocation.cwd, output)) if output else None
    answer = client.post(f"/v1/runs/{segment(run_id)}/save", {"path": path})
    if invocation.as_json:
        invocation.console.json(answer)
    else:
        invocation.console.note(f"saved: {answer.get('path')}")
    return 0


def show_run(invocation: Invocation, client: DaemonClient, run: dict[str, Any]) -> int:
    """Show what a run has put out so far; return 0."""
    run_id = str(run["id"])
    console, outputs = invocation.console, invocation.paths.outputs_dir
    printer: Printer = (
        JsonPrinter(console, outputs, run_id) if invocation.as_json else ProgramPrinter(console, outputs, run_id)
    )
    if invocation.as_json:
        printer.show({"type": "started", "run": run})
    with client.stream("GET", f"/v1/runs/{segment(run_id)}/events", after=0, follow=0) as events:
        for event in events:
            printer.show(event)
    printer.end()
    if run.get("status") in ("queued", "running"):
        console.hint(f"it still runs; follow it: colab-bridge attach {run_id}")
    if run.get("output_may_be_lost"):
        console.note(f"warning: output may be missing: {run['output_may_be_lost']}")
    return 0
