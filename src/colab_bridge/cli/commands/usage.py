"""``colab-bridge usage``."""

from __future__ import annotations

import time
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import title_text
from colab_bridge.cli.root import json_option

__all__ = ["usage"]


@click.command()
@json_option
@click.pass_obj
def usage(invocation: Invocation) -> None:
    """See the account's compute units: what is left, how fast it goes, and which sessions and runs use it."""
    invocation.doing = "asking Colab"
    found = invocation.client().post("/v1/account/usage", {"env": invocation.environment()})
    console = invocation.console
    console.clear_progress()
    if invocation.as_json:
        console.json(found)
        return
    console.out(f"account    {found.get('account') or 'unknown'}\n")
    console.out(f"balance    {_units(found.get('units'))}\n")
    if isinstance(free := found.get("free_units"), (int, float)):
        console.out(f"free       {free:.2f} units left{_refill(found.get('next_refill_at'))}\n")
    console.out(f"rate       {_rate(found)}\n")
    if isinstance(hours := found.get("hours_left"), (int, float)):
        console.out(f"lasts for  {hours:.1f} h at this rate\n")
    for session in found.get("sessions") or []:
        budget = f" of {session['budget']:g}" if session.get("budget") else ""
        units = _units(session.get("units"), "not measured yet")
        console.out(f"session    {session['session']}: {units}{budget}, {session.get('label')}\n")
    for run in found.get("runs") or []:
        title = title_text(run["title"], invocation.cwd)
        console.out(f"run        {run['run']}: {run['units']:.3f} units, {title}\n")


def _units(value: object, unknown: str = "not known") -> str:
    return f"{value:.2f} compute units" if isinstance(value, (int, float)) else unknown


def _rate(found: dict[str, Any]) -> str:
    rate, count = found.get("rate_hourly"), found.get("runtimes")
    if not isinstance(rate, (int, float)):
        return "not known"
    runtimes = f" for {count} runtime{'' if count == 1 else 's'}" if isinstance(count, int) else ""
    return f"{rate:.2f} units an hour{runtimes}"


def _refill(at: object) -> str:
    if not isinstance(at, (int, float)):
        return ""
    return f", more at {time.strftime('%Y-%m-%d %H:%M', time.localtime(at))}"
