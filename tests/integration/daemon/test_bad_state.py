"""What can be wrong with a machine: full disks, closed folders, damaged files, second daemons, taken ports."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from colab_bridge.errors import ColabBridgeError, UserError
from daemon_home import DaemonHome, eventually
from notebook_files import printed, read, write

POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions and mounts are POSIX here")


def daemon_process(home: DaemonHome, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon in the foreground; it must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "colab_bridge.daemon", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=home.folder,
        check=False,
    )


def assert_message(text: str, word: str) -> None:
    lines = [line for line in text.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 3
    assert word in text
    assert "Traceback" not in text


# -- daemons ---------------------------------------------------------------------------------------------------


def test_a_second_daemon_of_the_same_home_refuses_to_start(daemon_home: DaemonHome) -> None:
    client = daemon_home.client()
    second = daemon_process(daemon_home)
    assert second.returncode == 73
    assert_message(second.stderr, "running already")
    assert client.get("/v1/health")["pid"] == daemon_home.pid


def test_many_callers_at_once_start_one_daemon(daemon_home: DaemonHome) -> None:
    source = "from colab_bridge.client.connect import connect; print(connect().get('/v1/health')['pid'])"
    callers = [
        subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, cwd=daemon_home.folder)
        for _ in range(4)
    ]
    pids = {caller.communicate(timeout=30)[0] for caller in callers}
    assert pids == {f"{daemon_home.pid}\n"}


def test_a_taken_port_is_said_in_one_sentence_with_the_way_out(daemon_home: DaemonHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = daemon_process(daemon_home, "--port", str(port))
        assert ended.returncode == 2
        assert_message(ended.stderr, str(port))
        with pytest.raises(ColabBridgeError, match=str(port)) as caught:
            daemon_home.client(port=port)
    assert "config set port" in caught.value.hint


def test_a_damaged_state_file_is_moved_aside_and_reported(daemon_home: DaemonHome) -> None:
    daemon_home.code("1")
    session = daemon_home.client().get("/v1/sessions")["sessions"][0]["name"]
    daemon_home.client().delete(f"/v1/sessions/{session}")
    daemon_home.kill_daemon()
    damaged = b"SQLite format 3\x00" + b"\xde\xad" * 4096
    for file in daemon_home.paths.state_dir.glob("state.db*"):
        file.unlink()
    daemon_home.paths.database.write_bytes(damaged)
    notices = daemon_home.client().get("/v1/status")["daemon"]["notices"]
    aside = [file for file in daemon_home.paths.state_dir.iterdir() if file.is_file() and file.read_bytes() == damaged]
    assert len(aside) == 1
    assert any(aside[0].name in notice for notice in notices)
    assert daemon_home.code("print('works')").text() == "works\n"


def test_a_state_file_of_a_newer_version_is_kept_aside_unchanged_and_reported(daemon_home: DaemonHome) -> None:
    daemon_home.client()
    daemon_home.stop_daemon()
    with contextlib.closing(sqlite3.connect(daemon_home.paths.database)) as database:
        database.execute("PRAGMA user_version = 9999")
    notices = daemon_home.client().get("/v1/status")["daemon"]["notices"]
    (aside,) = daemon_home.paths.state_dir.glob("state.db.damaged-*")
    assert any("newer version" in notice and aside.name in notice for notice in notices)
    with contextlib.closing(sqlite3.connect(aside)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (9999,)


def test_a_broken_settings_file_does_not_keep_the_daemon_from_starting(daemon_home: DaemonHome) -> None:
    daemon_home.paths.ensure()
    daemon_home.paths.user_config.write_text("no_such_key = 1\n")
    notices = daemon_home.client().get("/v1/status")["daemon"]["notices"]
    assert any("no_such_key" in notice for notice in notices)
    with pytest.raises(UserError, match="no_such_key"):
        daemon_home.code("1")


def test_a_leftover_daemon_file_of_a_killed_daemon_is_no_obstacle(daemon_home: DaemonHome) -> None:
    daemon_home.client()
    first = daemon_home.pid
    daemon_home.kill_daemon()
    assert daemon_home.paths.daemon_file.exists()
    assert daemon_home.client().get("/v1/health")["pid"] != first


@POSIX
def test_tokens_and_records_can_be_read_by_their_owner_only(daemon_home: DaemonHome) -> None:
    daemon_home.code("print('private')")
    open_to_others = [
        path
        for path in (daemon_home.home, *daemon_home.home.iterdir())
        if path.is_dir() and path.stat().st_mode & 0o077
    ]
    assert open_to_others == []
    assert daemon_home.paths.daemon_file.stat().st_mode & 0o077 == 0
    assert daemon_home.paths.database.stat().st_mode & 0o077 == 0


def test_no_token_is_in_the_log_or_in_any_argument(daemon_home: DaemonHome) -> None:
    daemon_home.code("1")
    token = daemon_home.client().address.token
    arguments = [" ".join(process.cmdline()) for process in daemon_home.processes()]
    assert arguments
    assert not [line for line in arguments if token in line]
    assert token not in daemon_home.daemon_log()
    assert daemon_home.code(f"import os; print({token!r} in str(dict(os.environ)))").text() == "False\n"


# -- disks and folders -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(daemon_home: DaemonHome) -> Iterator[Path]:
    """A project folder on a disk of 256 KiB."""
    folder = daemon_home.new_project("small")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root: sudo make test")
    (folder / ".colab-bridge").mkdir()
    yield folder
    daemon_home.abandon()  # nothing may work in it when it is taken away
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_when_saving_leaves_the_old_notebook_and_keeps_the_outputs(
    daemon_home: DaemonHome, small_disk: Path
) -> None:
    path = write(small_disk / "n.ipynb", "print('early')", "print('x' * 600_000)", "print('late')")
    seen = daemon_home.run("notebook", project=small_disk, notebook={"path": str(path)})
    assert (seen.status, seen.text()) == ("ok", "early\n" + "x" * 600_000 + "\nlate\n")
    assert "cannot be saved" in seen.notices
    assert f"logs --save {seen.run_id}" in seen.notices
    assert printed(read(path)[0]) == "early\n"
    elsewhere = daemon_home.project / "saved.ipynb"
    daemon_home.client().post(f"/v1/runs/{seen.run_id}/save", {"path": str(elsewhere)})
    assert [len(printed(cell)) for cell in read(elsewhere)] == [6, 600_001, 5]


def test_room_made_while_the_notebook_runs_is_used(daemon_home: DaemonHome, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    cell = "import time\nfor n in range(30):\n    print(n, flush=True)\n    time.sleep(0.1)"
    path = write(small_disk / "n.ipynb", cell)
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(b"x" * 4096)
    request = daemon_home.request("notebook", project=small_disk, notebook={"path": str(path)})
    # The look before the run needs a folder entry and no room, so the run begins.
    run = daemon_home.client().post("/v1/runs", request)
    eventually(lambda: "cannot be saved" in daemon_home.record(run["id"]).notices, "the full disk is noticed")
    ballast.unlink()
    daemon_home.follow(run["id"])
    assert printed(read(path)[0]) == "".join(f"{n}\n" for n in range(30))


@pytest.fixture
def unwritable(daemon_home: DaemonHome) -> Iterator[Callable[[Path], None]]:
    """Make a folder unwritable for everybody, the administrator too."""
    mounts: list[Path] = []

    def close(folder: Path) -> None:
        if os.geteuid() != 0:
            folder.chmod(0o500)
            return
        for options in (["--bind", str(folder)], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
            if done.returncode:
                pytest.skip("a read-only folder needs a mount, which is not allowed here")
        mounts.append(folder)

    yield close
    daemon_home.abandon()
    for folder in mounts:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@POSIX
def test_a_notebook_in_a_read_only_folder_is_refused_before_anything_runs(
    daemon_home: DaemonHome, unwritable: Callable[[Path], None]
) -> None:
    folder = daemon_home.new_project("closed")
    path = write(folder / "n.ipynb", "open('/tmp/never-made-by-this-test', 'w')")
    unwritable(folder)
    with pytest.raises(UserError, match="cannot be written") as caught:
        daemon_home.run("notebook", project=folder, notebook={"path": str(path)})
    assert "-o" in caught.value.hint
    target = daemon_home.project / "out.ipynb"
    write(daemon_home.project / "m.ipynb", "1")
    seen = daemon_home.run("notebook", project=folder, notebook={"path": str(path), "output_path": str(target)})
    assert seen.status == "ok"
    Path("/tmp/never-made-by-this-test").unlink()


def test_a_record_that_cannot_grow_does_not_stop_the_kernel(daemon_home: DaemonHome) -> None:
    daemon_home.paths.ensure()
    limits = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))"
    source = f"{limits}\nimport signal, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    source += "from colab_bridge.daemon.main import main\nsys.exit(main([]))"
    with daemon_home.paths.daemon_log.open("wb") as log:
        daemon = subprocess.Popen([sys.executable, "-c", source], stdout=log, stderr=log, cwd=daemon_home.folder)
    try:
        eventually(daemon_home.paths.daemon_file.exists, "the daemon is up")
        seen = daemon_home.code("for n in range(40):\n    print('x' * 100_000)")
        assert daemon_home.code("print('still here')").text() == "still here\n"
        assert len(seen.text()) == 40 * 100_001 or daemon_home.view(seen.run_id)["output_may_be_lost"]
        assert daemon.poll() is None
    finally:
        daemon_home.close()
        daemon.wait(10)
