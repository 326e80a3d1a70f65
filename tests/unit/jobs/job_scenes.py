"""Runs, ends and messages that tests of jobs share."""

from __future__ import annotations

import dataclasses
from typing import Any

from colab_bridge.config.settings import NotifySettings
from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.wire.message import RawMessage

DESKTOP = NotifySettings(when="jobs", after_s=60, desktop=True)
EXIT_CODES = {RunStatus.OK: 0, RunStatus.ERROR: 1, RunStatus.LOST: 69, RunStatus.INTERRUPTED: 130}


def a_run(**changes: Any) -> Run:
    """A detached script that began at 1000."""
    spec = {"project": "/p", "detached": True, **changes.pop("spec", {})}
    values: dict[str, Any] = {"kind": RunKind.SCRIPT, "title": "/p/train.py", "created_at": 1000.0, **changes}
    return Run(id="run-1", session="s", kernel="k", spec=spec, **values)


def an_end(run: Run, status: RunStatus, after_s: float) -> tuple[Run, Outcome]:
    """The same run, ended."""
    code = EXIT_CODES[status]
    ended = dataclasses.replace(run, status=status, exit_code=code, finished_at=run.created_at + after_s)
    failed = status in (RunStatus.ERROR, RunStatus.LOST)
    return ended, Outcome(status=status, exit_code=code, ename="E" if failed else "", evalue="why" if failed else "")


def asks(prompt: str, msg_id: str, parent: str = "run-1.0") -> RawMessage:
    """A question of a program."""
    content = {"prompt": prompt, "password": False}
    return RawMessage.build("stdin", "input_request", content, msg_id=msg_id, session="k", parent={"msg_id": parent})
