"""The session that a user has asked for is remembered as such, also in files from before that was kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from colab_bridge.model.records import Session
from colab_bridge.store.store import Store


def test_the_time_of_the_choice_is_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db")
    store.put_session(Session(name="a", project="/p", provider="local", chosen_at=5.0))
    store.put_session(Session(name="b", project="/p", provider="local"))
    store.close()
    again = Store.open(tmp_path / "state.db")
    assert {session.name: session.chosen_at for session in again.sessions()} == {"a": 5.0, "b": 0.0}
    again.close()


def test_a_file_from_before_has_sessions_that_nobody_chose(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db")
    store.put_session(Session(name="a", project="/p", provider="local", chosen_at=5.0))
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("ALTER TABLE sessions DROP COLUMN chosen_at")
        connection.execute("ALTER TABLE runs DROP COLUMN units")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    again = Store.open(tmp_path / "state.db")
    assert [session.chosen_at for session in again.sessions()] == [0.0]
    again.close()
