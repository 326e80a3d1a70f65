"""Words and columns that several commands show."""

from __future__ import annotations

import os
import time
from typing import Any

from colab_bridge.cli.context import Invocation
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import UserError

__all__ = ["age", "default_session", "pick_run", "run_rows", "size", "title_text"]

RUN_HEAD = ("run", "kind", "status", "exit", "age", "session", "what")


def age(since: object) -> str:
    """Return how long ago something was, in one unit."""
    if not isinstance(since, (int, float)) or not since:
        return "-"
    return span(time.time() - since)


def span(seconds: float) -> str:
    """Return a length of time in one unit."""
    seconds = max(0.0, seconds)
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(count: object) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / 1048576:.0f} MiB" if isinstance(count, (int, float)) else "-"


def title_text(title: object, cwd: str, width: int = 60) -> str:
    """Return what is run as a table shows it: a path from here where it lies below, and cut in front of its name."""
    text = str(title)
    if os.path.isabs(text):
        if text.startswith(cwd.rstrip(os.sep) + os.sep):
            text = os.path.relpath(text, cwd)
        return text if len(text) <= width else "…" + text[1 - width :]
    return text if len(text) <= width else text[: width - 1] + "…"


def run_rows(runs: list[dict[str, Any]]) -> list[list[object]]:
    """Return the rows of a table of runs."""
    return [
        [
            run.get("id"),
            run.get("kind"),
            run.get("status"),
            "-" if run.get("exit_code") is None else run.get("exit_code"),
            age(run.get("created_at")),
            run.get("session"),
            str(run.get("title"))[:60],
        ]
        for run in runs
    ]


def default_session(invocation: Invocation, client: DaemonClient) -> str:
    """Return the name of the session that commands of the project use: the one asked for last, else its own.

    Raises:
        UserError: the project has none.
    """
    found = client.get("/v1/sessions", project=invocation.project).get("sessions") or []
    if not found:
        raise UserError(
            f"no session belongs to {invocation.project}",
            hint="See all: colab-bridge sessions; or make one: colab-bridge new",
        )
    own = max(found, key=lambda session: (session.get("chosen_at") or 0.0, bool(session.get("default"))))
    return str(own["name"])


def pick_run(invocation: Invocation, client: DaemonClient, name: str | None, *, running_first: bool) -> dict[str, Any]:
    """Return the run that a command means.

    Args:
        invocation: This call.
        client: The daemon.
        name: Id of a run; the project's newest when omitted, or that of all projects when this one has none.
        running_first: Prefer one that runs now.

    Raises:
        UserError: there is none.
    """
    if name is not None:
        return client.get(f"/v1/runs/{segment(name)}")
    for project in (invocation.project, None):
        runs = client.get("/v1/runs", limit=50, project=project).get("runs") or []
        now = [run for run in runs if run.get("status") in ("queued", "running")]
        if running_first and now:
            return dict(now[0])
        if runs:
            return dict(runs[0])
    raise UserError("nothing has been run yet", hint="Try: colab-bridge exec 'print(1)'")
