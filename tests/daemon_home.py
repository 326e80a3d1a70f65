"""A whole product in folders of its own, for tests: daemon, runtimes and kernels, all of them ended afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from colab_bridge._util.process import identify, wait_gone
from colab_bridge.client.connect import connect
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.client.follow import follow_run
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ColabBridgeError

WAIT_S = 20.0
END_S = 10.0
SOURCE = Path(__file__).parents[1] / "src"
# What a surrounding editor, kernel or user has set must not decide how a test ends.
FOREIGN = ("VSCODE_", "JPY_", "COLAB_BRIDGE_", "JUPYTER_", "VIRTUAL_ENV", "CONDA_PREFIX")

Event = dict[str, Any]
T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, timeout_s: float = WAIT_S, pause_s: float = 0.02) -> T:
    """Wait for something that happens in another process and gives no event here, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        threading.Event().wait(pause_s)
    return found


@dataclass(slots=True)
class Seen:
    """The events of one run, and what they amount to."""

    events: list[Event] = field(default_factory=list)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    def text(self, name: str = "stdout") -> str:
        return "".join(event["text"] for event in self.of("stream") if event["name"] == name)

    @property
    def finished(self) -> Event:
        return self.of("finished")[-1]

    @property
    def status(self) -> str:
        return str(self.finished["status"])

    @property
    def run_id(self) -> str:
        return str(self.of("started")[0]["run"]["id"])

    @property
    def kernel(self) -> str:
        return str(self.of("started")[0]["kernel"])

    @property
    def notices(self) -> str:
        return "\n".join(str(event["text"]) for event in self.of("notice"))


class DaemonHome:
    """One home folder and whatever lives in it.

    Args:
        folder: Where the home and the projects are made.

    Attributes:
        home: The value of ``COLAB_BRIDGE_HOME``.
        project: A project folder, marked as such.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(self.home)})
        self.project = self.new_project("project")

    def new_project(self, name: str) -> Path:
        """Make a folder that counts as a project."""
        project = self.folder / name
        (project / ".colab-bridge").mkdir(parents=True)
        return project

    # -- the daemon ------------------------------------------------------------------------------------------

    def client(self, *, start: bool = True, port: int = 0) -> DaemonClient:
        """Return a client; the daemon is started when there is none."""
        return connect(start=start, paths=self.paths, port=port, timeout_s=30)

    @property
    def pid(self) -> int:
        """Process of the daemon that wrote ``daemon.json`` last."""
        return int(json.loads(self.paths.daemon_file.read_text(encoding="utf-8"))["pid"])

    def kill_daemon(self) -> None:
        """End the daemon as a crash or the system's memory killer would."""
        kill(self.pid)

    def stop_daemon(self) -> None:
        """Ask the daemon to end and wait until it has; kernels and runtimes go on."""
        process = identify(self.pid)
        self.client(start=False).post("/v1/shutdown")
        assert process is None or not wait_gone([process], END_S)

    def processes(self) -> list[psutil.Process]:
        """Return every process that works in our folders, this one left out."""
        return processes_of(self.home)

    def runtime_pid(self, session: str | None = None) -> int:
        """Return the process of a session's local runtime, the only session's when none is named."""
        sessions = self.client().get("/v1/sessions")["sessions"]
        label = next(s["label"] for s in sessions if session in (None, s["name"]))
        return int(label.rpartition(" ")[2])

    def daemon_log(self) -> str:
        """Return what the daemons of this home have logged."""
        return self.paths.daemon_log.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End sessions and daemon in good order, then whatever is left by its id, which is a failure."""
        with contextlib.suppress(ColabBridgeError):
            # Only a daemon can end runtimes in good order, also those that an earlier one has left.
            client = self.client(start=bool(self.processes()))
            for session in client.get("/v1/sessions")["sessions"]:
                with contextlib.suppress(ColabBridgeError):
                    client.delete(f"/v1/sessions/{session['name']}", timeout_s=30)
            client.post("/v1/shutdown")
        try:
            eventually(lambda: not self.processes(), "everything has ended", timeout_s=END_S)
        except AssertionError:
            left = self.processes()
            names = [f"{process.pid} {_command(process)}" for process in left]
            end_by_id(left)
            raise AssertionError(f"left running: {names}\n{self.daemon_log()[-3000:]}") from None

    def abandon(self) -> None:
        """End everything by its id, for tests that destroy what an orderly end needs."""
        end_by_id(self.processes())

    # -- runs ------------------------------------------------------------------------------------------------

    def request(self, kind: str, *, project: Path | None = None, **members: Any) -> dict[str, Any]:
        """Return a run request for the project."""
        folder = str(project or self.project)
        return {"kind": kind, "project": folder, "cwd": folder, "allow_stdin": False, **members}

    def start(self, kind: str, **members: Any) -> dict[str, Any]:
        """Start a run that nobody watches yet."""
        return self.client().post("/v1/runs", self.request(kind, **members))

    def run(self, kind: str, **members: Any) -> Seen:
        """Run something to its end, across daemons that die."""
        return self.follow(self.request(kind, **members))

    def code(self, code: str, **members: Any) -> Seen:
        """Run code on the project's main kernel."""
        return self.run("code", code=code, **members)

    def notebook(self, path: Path, **members: Any) -> Seen:
        """Run a notebook; keyword arguments are those of the notebook part."""
        return self.run("notebook", notebook={"path": str(path), **members})

    def start_notebook(self, path: Path, **members: Any) -> dict[str, Any]:
        """Start a notebook run that nobody watches yet."""
        return self.start("notebook", notebook={"path": str(path), **members})

    def follow(self, run: str | dict[str, Any], after: int = 0) -> Seen:
        """Follow a run by id or request to its end."""
        seen = Seen()
        for event in follow_run(self.client(), run, after, reconnect=self.client):
            seen.events.append(event)
        return seen

    def record(self, run_id: str) -> Seen:
        """Return the events of a run that are on record now."""
        with self.client().stream("GET", f"/v1/runs/{run_id}/events", follow=0) as stream:
            return Seen(list(stream))

    def view(self, run_id: str) -> dict[str, Any]:
        """Return a run as the API shows it."""
        return self.client().get(f"/v1/runs/{run_id}")

    def until_text(self, run_id: str, text: str, timeout_s: float = WAIT_S) -> None:
        """Wait until the record of a run holds a text on stdout."""
        eventually(lambda: text in self.record(run_id).text(), f"{text!r} in run {run_id}", timeout_s)


@contextlib.contextmanager
def open_home(folder: Path) -> Iterator[DaemonHome]:
    """Give a home that is this process's own too, and end everything in it afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        home = DaemonHome(folder)
        patch.setenv("COLAB_BRIDGE_HOME", str(home.home))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("XDG_DATA_HOME", str(folder / "share"))  # where an agent on this machine keeps its files
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")])))
        try:
            yield home
        except BaseException:
            home.abandon()
            raise
        home.close()


def processes_of(home: Path) -> list[psutil.Process]:
    """Return every process that was started with a home, this one left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("COLAB_BRIDGE_HOME") == str(home):
                found.append(process)
    return found


def kill(pid: int) -> None:
    """End one process without a chance to say goodbye, and wait until it is gone."""
    process = identify(pid)
    psutil.Process(pid).kill()
    assert process is None or not wait_gone([process], END_S)


def end_by_id(processes: Sequence[psutil.Process]) -> None:
    """End processes by their ids, whatever state they are in."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(list(processes), timeout=END_S)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "?"
