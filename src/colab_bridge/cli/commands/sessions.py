"""``colab-bridge sessions``, also called ``ps``."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age
from colab_bridge.cli.root import json_option

__all__ = ["SESSION_HEAD", "session_rows", "sessions"]

SESSION_HEAD = ("session", "state", "provider", "kernels", "age", "runtime", "project")


@click.command("sessions")
@click.option("--project", "only_here", is_flag=True, help="Only those of this project.")
@json_option
@click.pass_obj
def sessions(invocation: Invocation, only_here: bool) -> None:
    """List the sessions on this machine; * marks the ones that a project uses without -s."""
    project = invocation.project if only_here else None
    found = invocation.client().get("/v1/sessions", project=project).get("sessions") or []
    if invocation.as_json:
        invocation.console.json({"sessions": found})
    elif found:
        invocation.console.table(SESSION_HEAD, session_rows(found))
    else:
        invocation.console.note("no sessions; the first run makes one, or: colab-bridge new -s NAME")


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
