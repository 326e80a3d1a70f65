"""``colab-bridge job``: what runs with nobody attached."""

from __future__ import annotations

from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age, span, title_text
from colab_bridge.cli.progress import progress_text
from colab_bridge.cli.root import json_option
from colab_bridge.client.daemon import DaemonClient, segment

__all__ = ["job"]

_HEAD = ("job", "status", "exit", "age", "progress", "what")
_job_argument = click.argument("name", metavar="[JOB]", required=False)


@click.group("job")
def job() -> None:
    """See, follow and end what runs with nobody attached; start it with `run -d`.

    \b
      colab-bridge run -d train.py       start one
      colab-bridge job list              which there are
      colab-bridge job attach            follow the newest one; Ctrl-C leaves it running
      colab-bridge job result            its exit status and its files

    JOB is an id, or left out for the newest one of this project.
    """


@job.command("list")
@click.option("-a", "--all", "all_projects", is_flag=True, help="Of all projects.")
@json_option
@click.pass_obj
def list_jobs(invocation: Invocation, all_projects: bool) -> None:
    """List jobs, newest first."""
    project = None if all_projects else invocation.project
    found = invocation.client().get("/v1/jobs", project=project, limit=50).get("jobs") or []
    if invocation.as_json:
        invocation.console.json({"jobs": found})
    elif found:
        invocation.console.table(_HEAD, [_row(one, invocation.cwd) for one in found])
    else:
        invocation.console.note("no jobs in this project; start one: colab-bridge run -d SCRIPT (all projects: --all)")


@job.command("status")
@_job_argument
@json_option
@click.pass_obj
def job_status(invocation: Invocation, name: str | None) -> None:
    """See how far JOB is."""
    found = _find(invocation, invocation.client(), name)
    if invocation.as_json:
        invocation.console.json({"job": found})
        return
    for label, text in _status_lines(found):
        invocation.console.out(f"{label:<10}{text}\n")


@job.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on showing until it ends; Ctrl-C leaves it running.")
@_job_argument
@json_option
@click.pass_obj
def job_logs(invocation: Invocation, name: str | None, follow: bool) -> int:
    """Show what JOB has put out so far."""
    from colab_bridge.cli.commands.logs import show_run

    client = invocation.client()
    found = _find(invocation, client, name)
    if follow:
        return _follow(invocation, client, found)
    return show_run(invocation, client, found)


@job.command("attach")
@_job_argument
@json_option
@click.pass_obj
def job_attach(invocation: Invocation, name: str | None) -> int:
    """Follow JOB to its end; Ctrl-C gives the prompt back and leaves it running.

    The exit status is the program's own.
    """
    client = invocation.client()
    found = _find(invocation, client, name)
    if found.get("status") in ("queued", "running"):
        invocation.console.hint("Ctrl-C leaves the job running")
    return _follow(invocation, client, found)


@job.command("cancel")
@click.option("--grace", "grace_s", type=click.FloatRange(0, 60), default=5.0, help="Seconds to end by itself; 5.")
@click.argument("name", metavar="JOB")
@json_option
@click.pass_obj
def job_cancel(invocation: Invocation, name: str, grace_s: float) -> None:
    """End JOB: interrupt it, and end its kernel if it has not ended then."""
    invocation.doing = "waiting for its end"
    done = invocation.client().post(f"/v1/jobs/{segment(name)}/cancel", {"grace_s": grace_s})
    if invocation.as_json:
        invocation.console.json(done)
    else:
        how = "interrupted, it has ended" if done.get("how") == "interrupted" else "it ignored the interrupt: killed"
        invocation.console.note(f"{done.get('cancelled')}: {how}")


@job.command("result")
@_job_argument
@json_option
@click.pass_obj
def job_result(invocation: Invocation, name: str | None) -> int:
    """Show how JOB ended and which files it made; the exit status is the program's own."""
    client = invocation.client()
    found = client.get(f"/v1/jobs/{segment(str(_find(invocation, client, name)['id']))}/result")
    console = invocation.console
    if invocation.as_json:
        console.json({"result": found})
    else:
        error = found.get("error")
        reason = f", {error.get('ename')}: {error.get('evalue')}" if isinstance(error, dict) else ""
        took = f" after {span(float(found.get('duration_s') or 0))}"
        console.note(f"{found.get('id')}: {found.get('status')}, exit status {found.get('exit_code')}{took}{reason}")
        if found.get("output_may_be_lost"):
            console.note(f"warning: output may be missing: {found['output_may_be_lost']}")
        for path in found.get("outputs") or []:
            console.out(f"{path}\n")
    code = found.get("exit_code")
    return code & 0xFF if isinstance(code, int) else 1


def _find(invocation: Invocation, client: DaemonClient, name: str | None) -> dict[str, Any]:
    project = invocation.project if name is None else None
    return client.get(f"/v1/jobs/{segment(name or 'last')}", project=project)


def _follow(invocation: Invocation, client: DaemonClient, found: dict[str, Any]) -> int:
    from colab_bridge.cli.commands.attach import follow_run_of

    # Whatever it was started as: who follows it as a job means to be able to leave it.
    return follow_run_of(invocation, client, {**found, "detached": True})


def _row(found: dict[str, Any], cwd: str) -> list[object]:
    code = found.get("exit_code")
    waiting = "waits for input" if found.get("waiting_for_input") else found.get("status")
    running = found.get("status") in ("queued", "running")
    return [
        found.get("id"),
        waiting,
        "-" if code is None else code,
        age(found.get("created_at")),
        (progress_text(found.get("progress")) if running else "") or "-",
        title_text(found.get("title"), cwd),
    ]


def _status_lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("job", str(found.get("id"))),
        ("what", f"{found.get('kind')}: {found.get('title')}"),
        ("status", str(found.get("status"))),
        ("session", str(found.get("session"))),
    ]
    if found.get("status") in ("queued", "running"):
        lines.append(("running", f"for {age(found.get('created_at'))}"))
        if text := progress_text(found.get("progress")):
            lines.append(("progress", text))
        if found.get("waiting_for_input"):
            lines.append(("waits", f"for input; answer it: colab-bridge job attach {found.get('id')}"))
    else:
        lines.append(("exit", f"{found.get('exit_code')}, {age(found.get('finished_at'))} ago"))
    if found.get("schedule"):
        lines.append(("schedule", str(found["schedule"])))
    return lines
