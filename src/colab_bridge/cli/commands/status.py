"""``colab-bridge status``: everything on one screen."""

from __future__ import annotations

import time
from typing import Any

import click

from colab_bridge.cli.console import Console
from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age, default_session, size, span
from colab_bridge.cli.machine_text import machine_text
from colab_bridge.cli.progress import progress_text
from colab_bridge.cli.root import json_option
from colab_bridge.client.daemon import segment

__all__ = ["status"]


@click.command()
@click.option(
    "--watch",
    "interval_s",
    type=click.FloatRange(1, 3600),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="Show the machine of the project's session every 2 (or so many) seconds, until Ctrl-C.",
)
@json_option
@click.pass_obj
def status(invocation: Invocation, interval_s: float | None) -> None:
    """See the daemon, the sessions with their machines and kernels, and what runs."""
    if interval_s is not None:
        _watch(invocation, interval_s)
        return
    found = invocation.client().get("/v1/status", machines=1)
    console = invocation.console
    if invocation.as_json:
        console.json(found)
        return
    daemon = found.get("daemon") or {}
    uptime = daemon.get("uptime_s")
    up = span(uptime) if isinstance(uptime, (int, float)) else "-"
    memory = size(daemon.get("rss_bytes"))
    console.out(f"daemon   process {daemon.get('pid')}, version {daemon.get('version')}, up {up}, {memory}\n")
    here = invocation.project
    for session in sorted(found.get("sessions") or [], key=lambda s: s.get("project") != here):
        _session(console, session, here)
    if not found.get("sessions"):
        console.out("session  none; the first run makes one\n")
    for run in found.get("runs") or []:
        _run(console, run)
    if not found.get("runs"):
        console.out("running  nothing\n")
    for notice in daemon.get("notices") or []:
        text = notice.get("text") if isinstance(notice, dict) else notice
        console.out(f"notice   {text}\n")


def _watch(invocation: Invocation, interval_s: float) -> None:
    client = invocation.client()
    name = default_session(invocation, client)
    while True:
        found = client.get(f"/v1/sessions/{segment(name)}/machine")
        if invocation.as_json:
            invocation.console.json(found)
        else:
            text = machine_text(found.get("found")) or "nobody can look at this machine"
            invocation.console.out(f"{time.strftime('%H:%M:%S')} {name}: {text}\n")
        time.sleep(interval_s)


def _session(console: Console, session: dict[str, Any], here: str) -> None:
    mark = " (this project's own)" if session.get("default") and session.get("project") == here else ""
    console.out(f"session  {session.get('name')}{mark}: {session.get('state')}\n")
    isolated = ", isolated" if session.get("isolated") else ""
    console.out(
        f"         runtime  {session.get('provider')}{isolated}, {session.get('label') or session.get('url') or '-'}\n"
    )
    console.out(f"         project  {session.get('project')}\n")
    if machine := machine_text(session.get("machine")):
        console.out(f"         machine  {machine}\n")
    if kept := session.get("kept"):
        _kept(console, session, kept)
    if agent := session.get("transport"):
        _agent(console, agent)
    for kernel in session.get("kernels") or []:
        key = kernel.get("key") if kernel.get("purpose") == "notebook" else kernel.get("purpose")
        console.out(
            f"         kernel   {kernel.get('spec')}, {kernel.get('state')}: {key}, {age(kernel.get('created_at'))}\n"
        )
        if kernel.get("transport_reason"):
            console.out(f"                  over the {kernel.get('transport')}, because {kernel['transport_reason']}\n")


def _kept(console: Console, session: dict[str, Any], kept: dict[str, Any]) -> None:
    """Show whether a runtime that somebody pays for is kept, until when, and what it has used."""
    release_at = kept.get("release_at")
    until = f"; released at {time.strftime('%H:%M', time.localtime(release_at))}" if release_at else ""
    pinged = f", last sign to Google {age(kept['pinged_at'])} ago" if kept.get("pinged_at") else ""
    console.out(f"         kept     {kept.get('state')}: {kept.get('why')}{until}{pinged}\n")
    units, rate = kept.get("units"), kept.get("rate_hourly")
    if isinstance(units, (int, float)) and isinstance(rate, (int, float)):
        of = f" of {kept['budget']:g}" if kept.get("budget") else ""
        console.out(f"         uses     {units:.2f}{of} compute units, {rate:.2f} an hour\n")
    if kept.get("problem"):
        console.out(f"                  {kept['problem']}\n")
    if kept.get("state") != "in use" and (session.get("machine") or {}).get("cards"):
        end = f"colab-bridge stop {session.get('name')}"
        console.out(f"         idle     its GPU does nothing and is paid for; end it: {end}\n")


def _agent(console: Console, agent: dict[str, Any]) -> None:
    """Show how the runtime's agent is reached, and each thing that is not as it should be in a line of its own."""
    way = {"tunnel": "tunnel", "control": "tunnel over the control channel"}.get(str(agent.get("mode")), "websocket")
    state = "" if agent.get("state") in ("connected", "gone") else f", {agent.get('state')}"
    why = f": {agent['text']}" if agent.get("text") else ""
    console.out(f"         link     {way}{state}{why}\n")
    for sentence in agent.get("degraded") or []:
        console.out(f"                  {sentence}\n")


def _run(console: Console, run: dict[str, Any]) -> None:
    progress = progress_text(run.get("progress"))
    far = f", {progress}" if progress else ""
    console.out(f"running  {run.get('id')}: {run.get('title')}{far}, for {age(run.get('created_at'))}\n")
    console.out(f"         come back: colab-bridge attach {run.get('id')}\n")
    if run.get("output_may_be_lost"):
        console.out(f"         output may be missing: {run['output_may_be_lost']}\n")
