"""``colab-bridge interrupt``."""

from __future__ import annotations

import time
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.cli.verdict import why_it_goes_on
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import UserError

__all__ = ["interrupt"]

#: How long what was interrupted may take to end before it is said to go on, and how often it is looked at, in seconds.
_PATIENCE_S = 3.0
_LOOK_EVERY_S = 0.1
_ASK_TIMEOUT_S = 5.0


@click.command()
@session_option
@click.option("--kill", is_flag=True, help="End the run's kernel instead; its variables are lost.")
@json_option
@click.argument("name", metavar="[SESSION|RUN]", required=False)
@click.pass_obj
def interrupt(invocation: Invocation, name: str | None, session: str | None, kill: bool) -> None:
    """Stop what runs in a session, or one run; variables are kept.

    \b
      colab-bridge interrupt              everything that runs in this project's session
      colab-bridge interrupt RUN          one run
      colab-bridge interrupt RUN --kill   one that ignores it: end its kernel
    """
    client = invocation.client()
    wanted = name or session or default_session(invocation, client)
    done: dict[str, Any]
    if wanted.startswith("run-"):
        path = f"/v1/runs/{segment(wanted)}/"
        client.post(path + "kill", {"restart": False}) if kill else client.post(path + "interrupt")
        done = {"interrupted": [wanted], "killed": kill}
    elif kill:
        raise UserError("--kill needs the id of a run", hint="See what runs: colab-bridge status")
    else:
        done = {**client.post(f"/v1/sessions/{segment(wanted)}/interrupt"), "killed": False}
    goes_on = [] if kill else _going_on(client, wanted, done["interrupted"])
    if goes_on:
        done["goes_on"] = goes_on
    if invocation.as_json:
        invocation.console.json(done)
        return
    if goes_on:
        _say_what_goes_on(invocation, client, wanted)
        return
    what = "ended its kernel" if kill else "interrupted" if done["interrupted"] else "nothing runs there"
    invocation.console.note(f"{wanted}: {what}")


def _going_on(client: DaemonClient, wanted: str, interrupted: list[str]) -> list[str]:
    """Wait a moment for the end of what was interrupted; return what has not ended: a run, or kernels of a session."""
    deadline = time.monotonic() + _PATIENCE_S
    while (left := _busy(client, wanted, interrupted)) and time.monotonic() < deadline:
        # No event tells of kernels of front ends, and following a run would show its output.
        time.sleep(_LOOK_EVERY_S)
    return left


def _busy(client: DaemonClient, wanted: str, interrupted: list[str]) -> list[str]:
    if not interrupted:
        return []
    if wanted.startswith("run-"):
        return [wanted] if client.get(f"/v1/runs/{segment(wanted)}")["status"] == "running" else []
    kernels = client.get("/v1/kernels", session=wanted)["kernels"]
    return [kernel["id"] for kernel in kernels if kernel["id"] in interrupted and kernel["state"] == "busy"]


def _say_what_goes_on(invocation: Invocation, client: DaemonClient, wanted: str) -> None:
    """Say that the interrupt has changed nothing yet, why as far as it can be seen, and what does."""
    running = client.get("/v1/status")["runs"]
    runs = [run["id"] for run in running if wanted in (run["id"], run["session"])]
    why = why_it_goes_on(client, runs[0], _ASK_TIMEOUT_S) if runs else ""
    reason = f" ({why})" if why else ""
    invocation.console.note(f"{wanted}: it was asked to stop and goes on{reason}")
    for run in runs:
        invocation.console.note(f"its kernel can be ended: colab-bridge interrupt {run} --kill")
    if not runs:
        invocation.console.note("its front end can restart the kernel")
