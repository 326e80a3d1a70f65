"""``colab-bridge sync``: the folder and the workspace on a runtime, kept in step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age, default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.cli.sync_text import amount, show_conflict, show_diff, show_report, show_status
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import UserError

__all__ = ["sync"]

_SYNC_S = 3600.0
_side_option = click.option("--remote", is_flag=True, help="The trash of the runtime instead of this machine's.")


class _Pair:
    """The session that a command means, and calls about its folders."""

    def __init__(self, invocation: Invocation, session: str | None) -> None:
        self.invocation = invocation
        self.client: DaemonClient = invocation.client()
        self.name = session or default_session(invocation, self.client)
        invocation.doing = "syncing"

    def get(self, verb: str = "", **query: object) -> dict[str, Any]:
        return self.client.get(self._path(verb), timeout_s=_SYNC_S, **query)

    def post(self, verb: str = "", body: object = None) -> dict[str, Any]:
        return self.client.post(self._path(verb), body, timeout_s=_SYNC_S)

    def _path(self, verb: str) -> str:
        return f"/v1/sessions/{segment(self.name)}/sync" + (f"/{verb}" if verb else "")

    def show_json(self, value: dict[str, Any]) -> bool:
        if self.invocation.as_json:
            self.invocation.console.json(value)
        return self.invocation.as_json


@click.group(invoke_without_command=True)
@session_option
@click.option("--dry-run", is_flag=True, help="Only show the exact plan.")
@json_option
@click.pass_context
def sync(context: click.Context, session: str | None, dry_run: bool) -> None:
    """Bring this folder and the workspace on the runtime to agreement, now.

    Nothing is needed for ordinary work: files go up before each run and results come down after it. What both sides
    changed is kept in both versions, and deletions go to a trash.
    """
    if context.invoked_subcommand is not None:
        context.meta["sync.session"] = session
        return
    pair = _Pair(context.find_root().obj, session)
    if dry_run:
        _diff(pair)
        return
    report = pair.post("", {})
    if not pair.show_json(report):
        show_report(pair.invocation.console, report)


def _pair(invocation: Invocation, session: str | None) -> _Pair:
    context = click.get_current_context()
    return _Pair(invocation, session or context.meta.get("sync.session"))


@sync.command()
@session_option
@json_option
@click.pass_obj
def status(invocation: Invocation, session: str | None) -> None:
    """Show how the two folders stand: what is held, what stays here and why."""
    pair = _pair(invocation, session)
    value = pair.get()
    if not pair.show_json(value):
        show_status(invocation.console, value)


@sync.command()
@session_option
@json_option
@click.pass_obj
def diff(invocation: Invocation, session: str | None) -> None:
    """Show what a sync would do now."""
    _diff(_pair(invocation, session))


def _diff(pair: _Pair) -> None:
    value = pair.get("diff")
    if not pair.show_json(value):
        show_diff(pair.invocation.console, value)


@sync.command()
@session_option
@json_option
@click.pass_obj
def pause(invocation: Invocation, session: str | None) -> None:
    """Stop the sync for now; code runs with the files that are there, and says so."""
    _switch(_pair(invocation, session), "pause", "paused; go on with: colab-bridge sync resume")


@sync.command()
@session_option
@json_option
@click.pass_obj
def resume(invocation: Invocation, session: str | None) -> None:
    """Go on after a pause."""
    _switch(_pair(invocation, session), "resume", "the folders are kept in step again")


def _switch(pair: _Pair, verb: str, text: str) -> None:
    value = pair.post(verb)
    if not pair.show_json(value):
        pair.invocation.console.note(f"{pair.name}: {text}")


@sync.command()
@session_option
@json_option
@click.argument("which", metavar="[ID|PATH]", required=False)
@click.pass_obj
def conflicts(invocation: Invocation, session: str | None, which: str | None) -> None:
    """Show the versions that lost their place to another one, and how they differ."""
    pair = _pair(invocation, session)
    found = pair.get("conflicts")
    chosen = [copy for copy in found["conflicts"] if which in (None, copy["id"], copy["path"])]
    if which is not None and not chosen:
        raise UserError(f"no kept version is called {which[:100]!r}", hint="See all: colab-bridge sync conflicts")
    if pair.show_json({"conflicts": chosen}):
        return
    if not chosen:
        invocation.console.note("there are no conflicts")
    elif which is None and len(chosen) > 1:
        rows = [[c["id"], c["kind"], c["path"], amount(c["size"]), age(c["at"])] for c in chosen]
        invocation.console.table(("id", "kind", "path", "size", "age"), rows)
        invocation.console.hint("both versions of one: colab-bridge sync conflicts ID")
    else:
        for copy in chosen:
            show_conflict(invocation.console, copy)


@sync.command()
@session_option
@click.option("--take", type=click.Choice(["current", "kept"]), required=True, help="Which version stays.")
@click.option("--all", "everything", is_flag=True, help="Every conflict.")
@json_option
@click.argument("which", metavar="[ID|PATH]", required=False)
@click.pass_obj
def resolve(invocation: Invocation, session: str | None, which: str | None, take: str, everything: bool) -> None:
    """Settle a conflict: leave what stands there, or take the kept version (the other one goes to the trash)."""
    if (which is not None) == everything:
        raise UserError("name what is meant, or say --all", hint="See the conflicts: colab-bridge sync conflicts")
    pair = _pair(invocation, session)
    value = pair.post("resolve", {"id": which or "", "all": everything, "take": take})
    if pair.show_json(value):
        return
    for copy in value["settled"]:
        invocation.console.note(f"{copy['path']}: settled with the {take} version")
    if not value["settled"]:
        invocation.console.note("there are no conflicts")


def _decision(verb: str, help_text: str) -> click.Command:
    """Return the command for one way to decide about what is held."""

    @session_option
    @click.option("--all", "everything", is_flag=True, help="Everything that is held.")
    @json_option
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @click.pass_obj
    def decide(invocation: Invocation, session: str | None, ids: tuple[str, ...], everything: bool) -> None:
        _decide(_pair(invocation, session), verb, ids, everything=everything)

    return sync.command(verb, help=help_text)(decide)


approve = _decision("approve", "Let happen what is held; deletions still go to the trash.")
reject = _decision("reject", "Undo on the other side what is held.")


def _decide(pair: _Pair, verb: str, ids: tuple[str, ...], *, everything: bool) -> None:
    if bool(ids) == everything:
        raise UserError("name what is meant, or say --all", hint="See what is held: colab-bridge sync status")
    value = pair.post(verb, {"ids": list(ids), "all": everything})
    if not pair.show_json(value):
        show_report(pair.invocation.console, value["report"])


@sync.group()
def trash() -> None:
    """See and bring back what the sync has taken out of a folder."""


@trash.command("list")
@session_option
@_side_option
@json_option
@click.pass_obj
def list_trash(invocation: Invocation, session: str | None, remote: bool) -> None:
    """List the trash, newest first."""
    pair = _pair(invocation, session)
    value = pair.get("trash", side="remote" if remote else "local")
    if pair.show_json(value):
        return
    rows = [[i["id"], i["kind"], i["path"], amount(i["size"]), age(i["at"])] for i in value["items"][:200]]
    if rows:
        invocation.console.table(("id", "kind", "path", "size", "age"), rows)
    else:
        invocation.console.note("the trash is empty")


@trash.command("restore")
@session_option
@_side_option
@click.option("--to", metavar="PATH", help="Another place in the folder.")
@json_option
@click.argument("entry", metavar="ID")
@click.pass_obj
def restore_trash(invocation: Invocation, session: str | None, entry: str, to: str | None, remote: bool) -> None:
    """Bring something back."""
    pair = _pair(invocation, session)
    value = pair.post("trash/restore", {"id": entry, "to": to, "side": "remote" if remote else "local"})
    if not pair.show_json(value):
        invocation.console.note(f"restored: {value['restored']}")


@sync.command()
@session_option
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, help="How many.")
@json_option
@click.pass_obj
def history(invocation: Invocation, session: str | None, limit: int) -> None:
    """Show what was synced, newest first."""
    pair = _pair(invocation, session)
    value = pair.get("history", limit=limit)
    if pair.show_json(value):
        return
    rows = [[age(h["at"]), h["reason"], h["line"], amount(h["sent"]), amount(h["received"])] for h in value["history"]]
    if rows:
        invocation.console.table(("age", "why", "what", "sent", "received"), rows)
    else:
        invocation.console.note("nothing was synced yet")


@sync.command()
@session_option
@json_option
@click.pass_obj
def bench(invocation: Invocation, session: str | None) -> None:
    """Measure what keeping in step costs on this link."""
    pair = _pair(invocation, session)
    value = pair.post("bench")
    if pair.show_json(value):
        return
    rows = [
        [o["operation"], o["round_trips"], amount(o["sent"]), amount(o["received"]), f"{o['seconds'] * 1000:.1f} ms"]
        for o in value["operations"]
    ]
    invocation.console.table(("operation", "round trips", "sent", "received", "best"), rows)
    invocation.console.note(f"{value['files']} files; one round trip takes {value['round_trip_s'] * 1000:.1f} ms")


@sync.command()
@session_option
@json_option
@click.argument("path")
@click.pass_obj
def include(invocation: Invocation, session: str | None, path: str) -> None:
    """Take a path along that was left out; writes it into .colabbridgeignore."""
    pair = _pair(invocation, session)
    value = pair.post("include", {"path": _in_project(invocation, path)})
    if not pair.show_json(value):
        invocation.console.note(f"{value['path']} travels from now on")
        show_report(invocation.console, value["report"])


def _in_project(invocation: Invocation, path: str) -> str:
    """Return a path relative to the project; what is relative may be meant from here or from the project's root."""
    project = Path(invocation.project)
    here = Path(os.path.normpath(Path(invocation.cwd) / path))
    full = here if os.path.lexists(here) else Path(os.path.normpath(project / path))
    try:
        return full.relative_to(project).as_posix()
    except ValueError as error:
        raise UserError(f"{path} is not in {project}", hint="Give a path in the project.") from error
