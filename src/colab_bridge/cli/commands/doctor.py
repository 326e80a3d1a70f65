"""``colab-bridge doctor``: check what this machine needs, and name the one next thing to do."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from colab_bridge import __version__
from colab_bridge.cli import doctor_checks as checks
from colab_bridge.cli.context import Invocation
from colab_bridge.cli.doctor_checks import Check, Machine, Status
from colab_bridge.cli.doctor_credentials import check_credentials
from colab_bridge.cli.doctor_network import check_proxy, check_runtime, runtime_names
from colab_bridge.cli.root import json_option

__all__ = ["doctor", "examine", "next_step", "run_all"]

# With the start of this process the whole command stays below ten seconds.
DEADLINE_S = 8.0
_MARKS = {Status.OK: "✓", Status.WARN: "!", Status.FAIL: "✗"}
_COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command()
@click.option("--tos", is_flag=True, help="Show what these settings do with Colab, and what its terms say; no checks.")
@json_option
@click.pass_context
def doctor(context: click.Context, tos: bool) -> None:
    """Check what this machine needs, in under ten seconds.

    Ends with status 0 when nothing fails, and names at most one next thing to do. Contacts nobody but the runtimes that
    you have configured.
    """
    invocation: Invocation = context.obj
    if tos:
        _show_terms(invocation)
        return
    found = examine(
        Machine(paths=invocation.paths, project=Path(invocation.project), environ=dict(os.environ), version=__version__)
    )
    step = next_step(found)
    if invocation.as_json:
        invocation.console.json({"checks": [check.to_json() for check in found], "next": step})
    else:
        _print(invocation, found, step)
    context.exit(1 if any(check.status is Status.FAIL for check in found) else 0)


def _show_terms(invocation: Invocation) -> None:
    from colab_bridge.cli.terms import TERMS_URL, terms  # with the settings, which a check of them must survive
    from colab_bridge.config.settings import load_settings

    rows = terms(load_settings(invocation.paths, Path(invocation.project), os.environ).settings)
    if invocation.as_json:
        invocation.console.json({"terms": TERMS_URL, "rows": rows})
        return
    for row in rows:
        invocation.console.out(f"{row['what']}\n  here   {row['here']}\n  terms  {row['terms']}\n")
    invocation.console.note(f"the terms themselves: {TERMS_URL}")


def examine(machine: Machine, *, deadline_s: float = DEADLINE_S) -> list[Check]:
    """Carry out all checks.

    Args:
        machine: What to look at; its settings are read here.
        deadline_s: Seconds after which checks that have not ended are reported as such.

    Returns:
        The results, in a fixed order.
    """
    resolved, config = checks.check_config(machine)
    machine = replace(machine, resolved=resolved)
    named: list[tuple[str, Callable[[], list[Check]]]] = [
        ("python", partial(checks.check_python, machine)),
        ("packages", partial(checks.check_packages, machine)),
        ("folders", partial(checks.check_folders, machine)),
        ("disk", partial(checks.check_disk, machine)),
        ("config", lambda: config),
        ("loopback", partial(checks.check_loopback, machine)),
        ("daemon", partial(checks.check_daemon, machine)),
        ("interpreter", partial(checks.check_interpreter, machine)),
        ("kernelspecs", partial(checks.check_kernelspecs, machine)),
        ("proxy", partial(check_proxy, machine)),
        ("clock", partial(checks.check_clock, machine)),
        ("account", partial(check_credentials, machine)),
    ]
    named += [(f"runtime:{name}", partial(check_runtime, machine, name)) for name in runtime_names(machine)]
    return run_all(named, deadline_s=deadline_s)


def run_all(named: Sequence[tuple[str, Callable[[], list[Check]]]], *, deadline_s: float) -> list[Check]:
    """Run checks side by side and stop waiting at the deadline.

    Threads are daemons on purpose: one that hangs in a system call (a dead network drive) must not keep this process.

    Args:
        named: Id and function of each check.
        deadline_s: Seconds for all of them together.

    Returns:
        The results in the order of ``named``; a check that is late or that fails in itself becomes a result as well.
    """
    results: dict[str, list[Check]] = {}
    threads = [
        (name, threading.Thread(target=_run_one, args=(name, check, results), daemon=True)) for name, check in named
    ]
    for _, thread in threads:
        thread.start()
    end = time.monotonic() + deadline_s
    for _, thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    late = f"no answer within {deadline_s:.0f} s"
    return [
        check
        for name, _ in threads
        for check in results.get(name, [Check(id=name, status=Status.WARN, text=f"{name}: {late}")])
    ]


def _run_one(name: str, check: Callable[[], list[Check]], results: dict[str, list[Check]]) -> None:
    try:
        results[name] = check()
    # A task root: the one tool that is called when things are broken must not break itself.
    except Exception as error:  # noqa: BLE001 - see above
        text = f"this check itself failed: {type(error).__name__}: {checks.one_line(str(error))}"
        results[name] = [Check(id=name, status=Status.WARN, text=text)]


def next_step(found: Sequence[Check]) -> str | None:
    """Return the one thing to do next: the fix of the first failure, else of the first warning, else None."""
    for status in (Status.FAIL, Status.WARN):
        for check in found:
            if check.status is status and check.fix:
                return check.fix
    return None


def _print(invocation: Invocation, found: Sequence[Check], step: str | None) -> None:
    colour = invocation.console.out_tty and not os.environ.get("NO_COLOR")
    width = max(len(check.id) for check in found)
    for check in found:
        word = f"{_mark(check.status)} {check.status:<4}"
        shown = click.style(word, fg=_COLOURS[check.status]) if colour else word
        invocation.console.out(f"{shown}  {check.id:<{width}}  {check.text}\n")
    counts = {status: sum(check.status is status for check in found) for status in Status}
    if not counts[Status.FAIL] and not counts[Status.WARN]:
        invocation.console.out("Everything this machine needs is there.\n")
        return
    summary = f"{counts[Status.FAIL]} failed, {counts[Status.WARN]} to look at."
    invocation.console.out(f"{summary} Next: {step}\n" if step else f"{summary}\n")


def _mark(status: Status) -> str:
    """Return a mark that the terminal can show; words stand beside it in any case."""
    try:
        _MARKS[status].encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return {Status.OK: "+", Status.WARN: "!", Status.FAIL: "x"}[status]
    return _MARKS[status]
