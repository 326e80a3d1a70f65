"""Sessions, kernels and runs as the daemon stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from colab_bridge.model.runtime import RuntimeHandle

__all__ = ["KernelPurpose", "KernelRecord", "KernelState", "Run", "RunKind", "RunStatus", "Session", "SessionState"]


class SessionState(StrEnum):
    """Where a session stands."""

    STARTING = "starting"
    READY = "ready"
    LOST = "lost"


class KernelState(StrEnum):
    """Where a kernel stands, as far as the daemon knows."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RECONNECTING = "reconnecting"
    DEAD = "dead"


class KernelPurpose(StrEnum):
    """Why a kernel was made."""

    MAIN = "main"  # `exec` and `repl`; its state is kept between calls
    SCRIPT = "script"  # one script, module or command
    NOTEBOOK = "notebook"  # `run x.ipynb`
    FRONTEND = "frontend"  # an editor, through the proxy kernel


class RunKind(StrEnum):
    """What was run."""

    CODE = "code"
    SCRIPT = "script"
    MODULE = "module"
    COMMAND = "command"
    NOTEBOOK = "notebook"


class RunStatus(StrEnum):
    """How a run stands. All but the first two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    OK = "ok"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    LOST = "lost"

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to the run."""
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Our named hold on a runtime for one project.

    Attributes:
        name: Unique on this machine.
        project: Absolute path of the project's root.
        provider: Provider name.
        default: Whether commands without ``-s`` in this project use it.
        options: Provider options the session was made with; may hold secrets, never shown.
        handle: The runtime; None while it is being acquired.
        state: Where it stands.
        created_at: Unix seconds.
        chosen_at: Unix seconds at which the user asked for this very session; 0 for one that a run has made by itself.
    """

    name: str
    project: str
    provider: str
    default: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    handle: RuntimeHandle | None = None
    state: SessionState = SessionState.STARTING
    created_at: float = 0.0
    chosen_at: float = 0.0

    @property
    def account(self) -> str:
        """Whose account pays for its runtime; empty where none does, or nobody knows."""
        return self.handle.account if self.handle is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRecord:
    """A kernel that the daemon holds on a runtime.

    Attributes:
        id: Ours; also the name of its record on disk.
        session: Name of the session.
        remote_id: The Jupyter server's id of the kernel.
        ws_session_id: The ``session_id`` of the daemon's WebSocket, kept over reconnects so that the server replays.
        purpose: Why it was made.
        key: What it is for: notebook path, front end identity, ``main`` or the run id.
        spec: Kernelspec name on the runtime.
        language: Language of the kernelspec, lower case.
        cwd: Working folder on the runtime's side, relative to its root; empty for the root.
        identity: What the front end told about itself (see ``sessions.reattach``).
        created_at: Unix seconds.
    """

    id: str
    session: str
    remote_id: str
    ws_session_id: str
    purpose: KernelPurpose
    key: str
    spec: str
    language: str = "python"
    cwd: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of code, script, module, command or notebook.

    Attributes:
        id: Unique, sortable by time; the ``msg_id`` of each of its requests starts with it.
        session: Session name.
        kernel: Our kernel id.
        kind: What was run.
        title: One line for people: path or first line of the code.
        spec: The request as JSON, enough to go on after the daemon was killed.
        status: Where it stands.
        first_seq: Record number before the run's first entry.
        exit_code: Exit status of the program; None while it runs.
        output_may_be_lost: Empty, or the reason why output may be missing.
        created_at: Unix seconds.
        finished_at: Unix seconds; None while it runs.
        progress: JSON with what is done so far (notebook: index of the cell in flight).
        units: Compute units that it has used; None while it runs, and where no account pays.
    """

    id: str
    session: str
    kernel: str
    kind: RunKind
    title: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    status: RunStatus = RunStatus.QUEUED
    first_seq: int = 0
    exit_code: int | None = None
    output_may_be_lost: str = ""
    created_at: float = 0.0
    finished_at: float | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    units: float | None = None
