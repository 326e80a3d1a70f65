"""Detached processes, for real."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from colab_bridge._util.process import (
    ProcessId,
    descendants,
    identify,
    is_alive,
    spawn_detached,
    terminate,
    terminate_async,
    wait_gone,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and sessions are POSIX")


class Spawner:
    """Starts detached Python programs in one folder, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.started: list[ProcessId] = []

    def __call__(self, code: str, env: dict[str, str] | None = None) -> ProcessId:
        argv = [sys.executable, "-c", code, str(self.folder)]
        process = spawn_detached(argv, cwd=self.folder, env={**os.environ, **(env or {})}, log_path=self.log)
        self.started.append(process)
        return process

    def output(self, process: ProcessId) -> str:
        """Return what a process has written by its end."""
        assert wait_gone([process], 20) == []
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 20
        while text not in (self.log.read_text(encoding="utf-8") if self.log.exists() else ""):
            assert time.monotonic() < deadline, f"{text!r} was never written"
            time.sleep(0.01)


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawner]:
    spawner = Spawner(tmp_path)
    yield spawner
    for process in spawner.started:
        terminate(process, 0, tree=True)


def test_a_detached_process_is_no_descendant_of_its_maker(spawn: Spawner) -> None:
    process = spawn("input() if 0 else __import__('time').sleep(60)")
    assert is_alive(process)
    assert process.pid not in [child.pid for child in psutil.Process().children(recursive=True)]


def test_a_detached_process_outlives_its_maker(spawn: Spawner) -> None:
    maker = (
        "import os, sys; from pathlib import Path; from colab_bridge._util.process import spawn_detached\n"
        "p = spawn_detached([sys.executable, '-c', 'import time; time.sleep(60)', sys.argv[1]], cwd=Path(sys.argv[1]),"
        " env=dict(os.environ), log_path=Path(sys.argv[1]) / 'log')\n"
        "print(p.pid, p.create_time, flush=True); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", maker, str(spawn.folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    pid, create_time = done.stdout.split()
    process = ProcessId(pid=int(pid), create_time=float(create_time))
    spawn.started.append(process)
    assert is_alive(process)


@posix
def test_a_detached_process_has_a_session_of_its_own(spawn: Spawner) -> None:
    process = spawn("import time; time.sleep(60)")
    assert os.getsid(process.pid) == process.pid


def test_output_goes_to_the_end_of_a_private_log(spawn: Spawner) -> None:
    spawn.output(spawn("print('one')"))
    said = spawn.output(spawn("import sys; print('two', file=sys.stderr)"))
    assert said.split() == ["one", "two"]
    if sys.platform != "win32":
        assert stat.S_IMODE(spawn.log.stat().st_mode) == 0o600


def test_stdin_is_empty(spawn: Spawner) -> None:
    assert spawn.output(spawn("import sys; print(repr(sys.stdin.read()))")).strip() == "''"


@posix
def test_no_descriptor_is_inherited(spawn: Spawner) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        code = (
            "import os\ndef there(n):\n try: os.fstat(n); return True\n except OSError: return False\n"
            "print([n for n in range(3, 1024) if there(n)])"
        )
        assert spawn.output(spawn(code)).strip() == "[]"
    finally:
        os.close(read)
        os.close(write)


def test_the_environment_is_exactly_the_given_one_whatever_bytes_it_holds(spawn: Spawner) -> None:
    code = "import os; print(ascii(os.environ['CB_TEST']), 'CB_OTHER' in os.environ)"
    process = spawn(code, {"CB_TEST": "a=ü\n\udcff" if sys.platform != "win32" else "a=ü"})
    assert "a=\\xfc" in spawn.output(process) and "False" in spawn.output(process)


@posix
def test_an_ignored_interrupt_is_not_inherited(spawn: Spawner) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = spawn("import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)")
    finally:
        signal.signal(signal.SIGINT, before)
    assert spawn.output(process).strip() == "True"


def test_a_program_that_does_not_exist_is_reported_as_the_system_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn_detached(["/no/such/program"], cwd=tmp_path, env={}, log_path=tmp_path / "log")


def test_a_log_that_cannot_be_written_is_reported_as_the_system_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        spawn_detached([sys.executable], cwd=tmp_path, env={}, log_path=tmp_path / "no" / "log")


def test_the_same_number_with_another_start_is_another_process() -> None:
    own = identify(os.getpid())
    assert own is not None and is_alive(own)
    assert not is_alive(ProcessId(pid=own.pid, create_time=own.create_time - 1))


@posix
def test_a_zombie_counts_as_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    known = identify(child.pid)
    assert known is not None and child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended now, and nobody has taken its status
    assert not is_alive(known)
    child.wait(timeout=10)


def test_a_process_that_obeys_ends_within_its_grace(spawn: Spawner) -> None:
    process = spawn("import time; print('up', flush=True); time.sleep(60)")
    spawn.wait_for("up")
    started = time.monotonic()
    assert terminate(process, 20)
    assert not is_alive(process)
    assert time.monotonic() - started < 10


@posix
def test_a_process_that_ignores_the_request_is_killed_after_its_grace(spawn: Spawner) -> None:
    process = spawn("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)")
    spawn.wait_for("up")
    started = time.monotonic()
    assert terminate(process, 0.3)
    assert not is_alive(process)
    assert time.monotonic() - started >= 0.3


def test_a_tree_ends_as_a_whole(spawn: Spawner) -> None:
    child = "import time; print('up', flush=True); time.sleep(60)"
    process = spawn(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, sys.argv[1]])")
    spawn.wait_for("up")
    below = descendants(process)
    assert below
    assert terminate(process, 5, tree=True)
    assert [known for known in (process, *below) if is_alive(known)] == []


@pytest.mark.anyio
async def test_a_process_can_be_ended_without_blocking_the_loop(spawn: Spawner) -> None:
    process = spawn("import time; time.sleep(60)")
    assert await terminate_async(process, 5)
    assert not is_alive(process)


def test_ending_what_has_gone_is_no_error(spawn: Spawner) -> None:
    process = spawn("pass")
    assert wait_gone([process], 20) == []
    assert terminate(process, 1, tree=True)
    assert descendants(process) == []
