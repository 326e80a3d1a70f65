"""``colab-bridge schedule``: what is run again and again."""

from __future__ import annotations

import time
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import title_text
from colab_bridge.cli.root import json_option
from colab_bridge.cli.target import Target
from colab_bridge.client.daemon import segment
from colab_bridge.errors import UserError

__all__ = ["add_schedule", "schedule"]

_HEAD = ("schedule", "rule", "next", "last run", "what")


@click.group("schedule")
def schedule() -> None:
    """See and remove what is run again and again; make a schedule with `run --every` or `run --cron`.

    \b
      colab-bridge run --every 6h sync.py                every six hours, beginning now
      colab-bridge run --cron "0 7 * * 1-5" report.ipynb  at 7:00 local time on working days
      colab-bridge schedule list
      colab-bridge schedule remove SCHEDULE

    Times that pass while this machine is off are made up for by one run. While a run goes on, its next time is left
    out.
    """


@schedule.command("list")
@click.option("-a", "--all", "all_projects", is_flag=True, help="Of all projects.")
@json_option
@click.pass_obj
def list_schedules(invocation: Invocation, all_projects: bool) -> None:
    """List schedules, oldest first."""
    project = None if all_projects else invocation.project
    found = invocation.client().get("/v1/schedules", project=project).get("schedules") or []
    console = invocation.console
    if invocation.as_json:
        console.json({"schedules": found})
        return
    if not found:
        console.note("no schedules in this project; make one: colab-bridge run --every 1d SCRIPT (all projects: --all)")
        return
    console.table(_HEAD, [_row(one, invocation.cwd) for one in found])
    for one in found:
        if one.get("last_error"):
            console.note(f"{one.get('id')}: {one['last_error']}")


@schedule.command("remove")
@click.argument("name", metavar="SCHEDULE")
@json_option
@click.pass_obj
def remove_schedule(invocation: Invocation, name: str) -> None:
    """Forget SCHEDULE; a run of it that goes on is left alone."""
    done = invocation.client().delete(f"/v1/schedules/{segment(name)}")
    if invocation.as_json:
        invocation.console.json(done)
    else:
        invocation.console.note(f"removed {done.get('removed')}")


def add_schedule(
    invocation: Invocation, target: Target, request: dict[str, Any], *, every: str | None, cron: str | None
) -> int:
    """Make a schedule and say how to see its runs; its id alone goes to stdout.

    Args:
        invocation: This call.
        target: Where it is to run.
        request: The members that say what to run.
        every: An interval.
        cron: A crontab line.

    Raises:
        UserError: both or a rule that cannot be read were given.
    """
    if every and cron:
        raise UserError("--every and --cron exclude one another", hint="Leave out one of them.")
    body = {**invocation.base(), **target.for_run(), **request, "detached": True}
    rule = f"every {every}" if every else f"cron {cron}"
    made = invocation.client().post("/v1/schedules", {"rule": rule, "request": body})
    console = invocation.console
    if invocation.as_json:
        console.json({"schedule": made})
        return 0
    console.account(made.get("account"))
    console.out(f"{made.get('id')}\n")
    console.note(f"{made.get('rule')}, next at {_clock(made.get('next_at'))}; its runs: colab-bridge job list")
    console.note(f"end it: colab-bridge schedule remove {made.get('id')}")
    return 0


def _row(found: dict[str, Any], cwd: str) -> list[object]:
    return [
        found.get("id"),
        found.get("rule"),
        _clock(found.get("next_at")),
        found.get("last_run") or "-",
        title_text(found.get("title"), cwd),
    ]


def _clock(moment: object) -> str:
    """Return local date and time of Unix seconds."""
    if not isinstance(moment, (int, float)):
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
