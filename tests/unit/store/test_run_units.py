"""What runs have cost is remembered with them."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.store.store import Store

RUN = Run(id="run-1", session="s", kernel="k", kind=RunKind.CODE, title="1", status=RunStatus.OK)


def test_units_of_a_run_are_kept_and_no_later_change_of_the_run_loses_them(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db")
    store.put_run(RUN)
    store.put_run_units("run-1", 0.25)
    store.put_run_units("run-2", 1.0)  # unknown: nothing happens
    store.close()
    again = Store.open(tmp_path / "state.db")
    (found,) = again.runs()
    assert found.units == 0.25
    again.put_run(replace(found, exit_code=0))
    assert again.runs()[0].units == 0.25
    again.close()


def test_runs_of_a_file_from_before_have_no_units(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state.db")
    store.put_run(RUN)
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN units")
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    again = Store.open(tmp_path / "state.db")
    assert again.runs()[0].units is None
    again.close()
