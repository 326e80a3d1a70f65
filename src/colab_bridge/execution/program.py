"""Runs of code, scripts, modules and commands: one request on one kernel."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import Any

from colab_bridge.execution.assembler import request_id
from colab_bridge.execution.executor import ExecutionResult, MessageSink, execute, submit_execution
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.request import RunRequest
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.model.records import Run, RunKind, RunStatus

__all__ = ["run_program"]

_STATUS = "_colab_bridge_status"


async def run_program(hub: HubKernel, run: Run, request: RunRequest, cwd: str | None, sink: MessageSink) -> Outcome:
    """Execute code, a script, a module or a command and follow it to its end.

    Args:
        hub: Kernel that executes it.
        run: The run.
        request: What to run.
        cwd: Absolute working folder on the runtime, None when it is the kernel's own.
        sink: Gets the messages of the run.
    """
    msg_id = request_id(run.id, 0)
    plain = request.kind is RunKind.CODE
    submit_execution(
        hub,
        msg_id,
        request.code or "" if plain else _job_code(request, cwd),
        session=run.id,
        after=run.first_seq,
        allow_stdin=request.allow_stdin,
        store_history=plain,
        expressions=None if plain else {_STATUS: _STATUS},
    )
    result = await execute(hub, msg_id, run.first_seq, sink)
    return _code_outcome(result) if plain else _program_outcome(result)


def _job_code(request: RunRequest, cwd: str | None) -> str:
    job: dict[str, Any] = {
        "kind": str(request.kind),
        "argv": request.argv,
        "path": request.path,
        "source": request.source,
        "module": request.module,
        "command": request.command,
        "cwd": cwd,
    }
    runner = resources.files("colab_bridge.agent").joinpath("runner.py").read_text(encoding="utf-8")
    return f"{runner}\nimport json as _json\n{_STATUS} = colab_bridge_run(_json.loads({json.dumps(job)!r}))\n"


def _code_outcome(result: ExecutionResult) -> Outcome:
    if result.status == "ok":
        return Outcome(status=RunStatus.OK, exit_code=0, lost=result.lost)
    if result.ename == "SystemExit":
        return _exit_outcome(result)
    interrupted = result.ename == "KeyboardInterrupt"
    return Outcome(
        status=RunStatus.INTERRUPTED if interrupted else RunStatus.ERROR,
        exit_code=130 if interrupted else 1,
        ename=result.ename or ("Aborted" if result.status == "aborted" else ""),
        evalue=result.evalue,
        lost=result.lost,
    )


def _exit_outcome(result: ExecutionResult) -> Outcome:
    """Turn ``sys.exit(...)`` into the exit status that the interpreter would end with."""
    text = result.evalue
    code = 0 if text in ("", "None", "0") else int(text) & 0xFF if text.lstrip("-").isdecimal() else 1
    return Outcome(status=RunStatus.OK if code == 0 else RunStatus.ERROR, exit_code=code, lost=result.lost)


def _program_outcome(result: ExecutionResult) -> Outcome:
    if result.status != "ok":
        return _code_outcome(result)
    text = result.expressions.get(_STATUS, "")
    code = int(text) & 0xFF if re.fullmatch(r"-?[0-9]{1,10}", text) else 1
    status = {0: RunStatus.OK, 130: RunStatus.INTERRUPTED}.get(code, RunStatus.ERROR)
    return Outcome(status=status, exit_code=code, lost=result.lost)
