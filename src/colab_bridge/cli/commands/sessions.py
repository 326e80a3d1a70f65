"""``colab-bridge sessions``, also called ``ps``."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age
from colab_bridge.cli.root import json_option

__all__ = ["SESSION_HEAD", "session_rows", "sessions"]

RUNTIME_HEAD = ("runtime", "hardware", "units/h", "age", "session", "made by", "account")
SESSION_HEAD = ("session", "state", "provider", "kernels", "age", "runtime", "project")


@click.command("sessions")
@click.option("--project", "only_here", is_flag=True, help="Only those of this project.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also all runtimes of all Google accounts.")
@json_option
@click.pass_obj
def sessions(invocation: Invocation, only_here: bool, everything: bool) -> None:
    """List the sessions on this machine; * marks the ones that a project uses without -s."""
    project = invocation.project if only_here else None
    client = invocation.client()
    found = client.get("/v1/sessions", project=project).get("sessions") or []
    owned = client.post("/v1/account/runtimes", {"env": invocation.environment()}) if everything else {}
    if invocation.as_json:
        invocation.console.json({"sessions": found, **owned})
        return
    if found:
        invocation.console.table(SESSION_HEAD, session_rows(found))
    else:
        invocation.console.note("no sessions; the first run makes one, or: colab-bridge new -s NAME")
    if everything:
        _runtimes(invocation, owned)


def _runtimes(invocation: Invocation, owned: dict[str, Any]) -> None:
    console, runtimes = invocation.console, owned.get("runtimes") or []
    for account in owned.get("accounts") or []:
        count = account["runtimes"]
        found = account["problem"] or f"{count} Colab runtime{'' if count == 1 else 's'}"
        console.note(f"account {account['account'] or 'unknown'}: {found}")
    if runtimes:
        console.table(RUNTIME_HEAD, [_runtime_row(each) for each in runtimes])
    if any(not each.get("session") for each in runtimes):
        console.hint("use one: colab-bridge adopt ID   end one: colab-bridge stop ID")


def _runtime_row(runtime: dict[str, Any]) -> list[object]:
    rate = runtime.get("rate_hourly")
    return [
        runtime["id"],
        runtime["hardware"],
        f"{rate:.2f}" if isinstance(rate, (int, float)) else "-",
        age(runtime.get("since")),
        runtime.get("session") or "-",
        _origin(runtime),
        runtime.get("account") or "-",
    ]


def _origin(runtime: dict[str, Any]) -> str:
    if runtime.get("ours"):
        return str(runtime.get("label") or "colab-bridge")
    return str(runtime.get("label") or "browser or another program")


def session_rows(found: list[dict[str, Any]]) -> list[list[object]]:
    """Return the rows of a table of sessions."""
    return [
        [
            f"{session.get('name')}{'*' if session.get('default') else ''}",
            session.get("state"),
            f"{session.get('provider')}{' isolated' if session.get('isolated') else ''}",
            len(session.get("kernels") or []),
            age(session.get("created_at")),
            session.get("label") or session.get("url") or "-",
            session.get("project"),
        ]
        for session in found
    ]
