"""The file under the store: permissions, damage, other versions, killed writers."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from colab_bridge.errors import ColabBridgeError, InternalError, TransientError, UserError
from colab_bridge.model.records import Run, RunKind, Session
from colab_bridge.model.runtime import RuntimeHandle
from colab_bridge.store import Store
from colab_bridge.store.schema import SCHEMA_VERSION

if sys.platform != "win32":
    import resource

posix = pytest.mark.skipif(sys.platform == "win32", reason="permission bits are POSIX")


def session(name: str = "s") -> Session:
    return Session(name=name, project="/p", provider="local", handle=RuntimeHandle(provider="local", id="1"))


def make(path: Path, count: int = 1) -> None:
    store = Store.open(path)
    for number in range(count):
        store.put_session(session(f"s{number}"))
    store.close()


def change(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def assert_put_aside(path: Path, reason: str) -> Path:
    """Check that opening moves the file aside, says so once, and starts empty; return the moved file."""
    store = Store.open(path)
    assert store.sessions() == []
    assert len(store.notices) == 1
    assert reason in store.notices[0]
    assert "\n" not in store.notices[0]
    store.put_session(session("new"))
    store.close()
    again = Store.open(path)
    assert ([one.name for one in again.sessions()], again.notices) == (["new"], [])
    again.close()
    aside = [
        file for file in path.parent.iterdir() if file.name.startswith("state.db.damaged-") and "db-" not in file.name
    ]
    moved = min(aside, key=lambda file: len(file.name))
    assert moved.name in store.notices[0]
    return moved


@posix
def test_only_the_owner_may_read_the_file_and_those_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "state.db"
    old = os.umask(0)
    try:
        store = Store.open(path)
    finally:
        os.umask(old)
    store.put_session(session())
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    store.close()


@posix
def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make(path)
    path.chmod(0o644)
    Store.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_put_aside_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"this is not a database, honestly\n" * 100)
    assert assert_put_aside(path, "was damaged").read_bytes() == b"this is not a database, honestly\n" * 100


def test_an_empty_file_is_not_taken_for_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    assert_put_aside(path, "was empty")


def test_a_truncated_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make(path, 200)
    size = path.stat().st_size
    os.truncate(path, size // 2)
    assert assert_put_aside(path, "was damaged").stat().st_size == size // 2


def test_a_file_with_overwritten_pages_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make(path, 200)
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xa5" * (path.stat().st_size - 3 * 4096))
    assert_put_aside(path, "was damaged")


def test_a_file_of_a_newer_version_is_put_aside_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make(path)
    change(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    moved = assert_put_aside(path, "newer version")
    with contextlib.closing(sqlite3.connect(moved)) as connection:
        assert connection.execute("SELECT name FROM sessions").fetchall() == [("s0",)]


def test_a_database_of_another_program_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    change(path, "CREATE TABLE sessions (name)", "PRAGMA user_version = 1")
    assert_put_aside(path, "not made by Colab Bridge")


def test_a_log_whose_database_is_missing_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    (tmp_path / "state.db-wal").write_bytes(b"left over")
    store = Store.open(path)
    assert "was missing" in store.notices[0]
    assert [file.read_bytes() for file in tmp_path.glob("state.db.damaged-*-wal")] == [b"left over"]
    store.close()


def test_two_damaged_files_within_a_second_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    for text in (b"one", b"two"):
        path.write_bytes(text * 1000)
        Store.open(path).close()
    assert {file.read_bytes()[:3] for file in tmp_path.glob("state.db.damaged-*")} == {b"one", b"two"}


def test_a_half_made_new_file_of_a_killed_start_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    (tmp_path / "state.db.new").write_bytes(b"half")
    (tmp_path / "state.db.new-wal").write_bytes(b"half")
    make(path)
    store = Store.open(path)
    assert (len(store.sessions()), store.notices) == (1, [])
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("options", "'{broken'"),
        ("options", "'[1]'"),
        ("options", "x'ff'"),
        ("handle", "'{}'"),
        ("handle", """'{"provider": "p", "id": "i", "root": 5}'"""),
        ("state", "'sleeping'"),
        ("created_at", "'soon'"),
        ("project", "x'ff'"),
    ],
)
def test_a_row_that_cannot_be_read_is_reported_once_and_left_out(tmp_path: Path, column: str, value: str) -> None:
    path = tmp_path / "state.db"
    make(path, 3)
    change(path, f"UPDATE sessions SET {column} = {value} WHERE name = 's1'")
    store = Store.open(path)
    for _ in range(2):
        read = [one.name for one in store.sessions()]
    assert read == ["s0", "s2"]
    assert store.notices == [f"state.db: session 's1' is left out, its {column} cannot be read"]
    assert store.session("s1") is None
    store.close()


WRITER = """
import sys
from pathlib import Path
from colab_bridge.model.records import Run, RunKind
from colab_bridge.store import Store
store = Store.open(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    store.put_run(Run(id=f"r{number}", session="s", kernel="k", kind=RunKind.CODE, title="x" * 500), "/p")
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""


def test_a_killed_writer_leaves_every_row_whose_put_returned(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    number = 0
    for _ in range(2):
        command = [sys.executable, "-c", WRITER, str(path), str(number)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        try:
            for line in writer.stdout:
                number = int(line)
                if number % 400 == 399:
                    break
            writer.kill()
            number = max([number, *(int(line) for line in writer.stdout if line.endswith("\n"))]) + 1
        finally:
            writer.kill()
            writer.wait(10)
            writer.stdout.close()
        store = Store.open(path)
        assert store.notices == []
        ids = {one.id for one in store.runs(limit=-1)}
        assert {f"r{index}" for index in range(number)} <= ids
        assert len(ids) <= number + 1
        store.close()
        number = len(ids)


def test_a_folder_in_the_place_of_the_file_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(UserError) as caught:
        Store.open(tmp_path / "state.db")
    assert "state.db" in caught.value.message
    assert caught.value.hint


def test_a_file_in_the_place_of_the_folder_is_an_error_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError) as caught:
        Store.open(tmp_path / "state" / "state.db")
    assert caught.value.hint


def test_a_lock_held_by_another_program_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    make(path)
    monkeypatch.setattr("colab_bridge.store.database._BUSY_TIMEOUT_S", 0.05)
    store = Store.open(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError):
            store.put_session(session("t"))
        other.execute("ROLLBACK")
    store.put_session(session("t"))
    assert len(store.sessions()) == 2
    store.close()


def test_damage_while_the_store_is_open_is_an_error_of_ours_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store.open(path)
    # More than SQLite's page cache holds, so that pages must be read again.
    for number in range(60):
        store.put_session(Session(name=f"s{number}", project="/p", provider="local", options={"x": "y" * 100_000}))
    store.close()
    store = Store.open(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with pytest.raises(InternalError) as caught:
        store.sessions()
    assert "daemon stop" in caught.value.hint
    with contextlib.suppress(ColabBridgeError):
        store.close()
    again = Store.open(path)
    assert len(again.notices) == 1
    again.close()


@posix
def test_a_full_disk_is_said_and_the_rows_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    make(path)
    store = Store.open(path)
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    written = 0
    try:
        with pytest.raises((TransientError, UserError)) as caught:
            for number in range(1000):
                store.put_run(Run(id=f"r{number}", session="s", kernel="k", kind=RunKind.CODE, title="x" * 900))
                written = number + 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "disk" in f"{caught.value.message} {caught.value.hint}"
    assert len(store.runs(limit=-1)) == written
    store.put_run(Run(id="after", session="s", kernel="k", kind=RunKind.CODE, title=""))
    store.close()
