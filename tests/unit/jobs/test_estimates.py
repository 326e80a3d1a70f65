"""Time left from earlier runs of the same code, kept over restarts of the daemon."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from colab_bridge.execution.estimates import NOTHING_KNOWN, Estimates, code_key, program_key, time_left
from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.store import Store
from colab_bridge.wire.message import RawMessage
from scripted_upstream import ManualClock, stream

DONE = Outcome(status=RunStatus.OK, exit_code=0)
KEYS = [code_key("/p", source) for source in ("load()", "fit()", "plot()")]


def said(msg_type: str, content: dict[str, Any], cell: int, at: float) -> RawMessage:
    """A message of a cell, made at a time by the kernel's clock."""
    channel = "shell" if msg_type == "execute_reply" else "iopub"
    message = RawMessage.build(
        channel, msg_type, content, msg_id=f"m-{at}", session="k", parent={"msg_id": f"run-1.{cell}"}
    )
    header = {**message.header_fields(), "date": datetime.fromtimestamp(at, UTC).isoformat()}
    return RawMessage(channel, json.dumps(header).encode(), message.parent, message.metadata,
                      message.content, [])  # fmt: skip


def state(which: str, cell: int, at: float) -> RawMessage:
    return said("status", {"execution_state": which}, cell, at)


def replied(cell: int, at: float, status: str = "ok") -> RawMessage:
    return said("execute_reply", {"status": status}, cell, at)


def notebook(**changes: Any) -> Run:
    return Run(
        id="run-1", session="s", kernel="k", kind=RunKind.NOTEBOOK, title="n", created_at=1000.0,
        spec={"project": "/p", "code_keys": KEYS}, progress={"cells": [0, 2, 5], "done": 0}, **changes,
    )  # fmt: skip


class Watch:
    """Estimates of one daemon, and the kernel's messages at the times of a clock."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.clock, self.made = clock, Estimates(store, clock)

    def tell(self, now: float, *messages: RawMessage) -> None:
        self.clock.now = now
        for message in messages:
            self.made.message("run-1", message)

    def run(self, seconds: tuple[float, ...], *, status: str = "ok") -> None:
        """Run the notebook from its start to its end; the kernel's clock is an hour ahead."""
        self.made.began(notebook(), resumed=False)
        now = 1000.0
        for cell, took in zip((0, 2, 5), seconds, strict=True):
            self.tell(now, state("busy", cell, now + 3600))
            now += took
            self.tell(now, replied(cell, now + 3600, status), state("idle", cell, now + 3600))
        self.made.ended(notebook(), DONE)

    def left(self, now: float) -> tuple[float | None, float | None]:
        self.clock.now = now
        progress = self.made.progress("run-1")
        return progress["cell_eta_s"], progress["eta_s"]


@pytest.fixture
def watch(store: Store, clock: ManualClock) -> Watch:
    return Watch(store, clock)


def test_the_first_run_of_a_notebook_says_nothing_about_the_time_left(watch: Watch) -> None:
    watch.made.began(notebook(), resumed=False)
    watch.tell(1000, state("busy", 0, 1000))
    assert watch.left(1010) == (None, None)
    assert watch.made.progress("run-1")["elapsed_s"] == 10


def test_the_second_run_takes_as_long_as_the_first_one_took(watch: Watch) -> None:
    watch.run((10, 100, 5))
    watch.made.began(notebook(), resumed=False)
    watch.tell(1000, state("busy", 0, 1000))
    assert watch.left(1004) == (6, 111)
    watch.tell(1009, replied(0, 1009), state("idle", 0, 1009), state("busy", 2, 1009))
    assert watch.left(1029) == (80, 85)


def test_estimates_are_kept_over_the_death_of_the_daemon(watch: Watch, store: Store, clock: ManualClock) -> None:
    watch.run((10, 100, 5))
    other = Watch(store, clock)
    other.made.began(notebook(), resumed=False)
    other.tell(1000, state("busy", 0, 1000))
    assert other.left(1000) == (10, 115)


def test_a_bar_is_believed_more_than_earlier_runs(watch: Watch) -> None:
    watch.run((10, 100, 5))
    watch.made.began(notebook(), resumed=False)
    watch.tell(
        1000, state("busy", 0, 1000), stream("run-1.0", "\rx:  25%|##   | 1/4 [00:10<00:30, 10.0s/it]", "stderr")
    )
    assert watch.left(1000) == (30, 135)
    found = watch.made.progress("run-1")
    assert (found["label"], found["fraction"], found["n"], found["of"]) == ("x", 0.25, 1, 4)


def test_the_bar_of_an_earlier_cell_says_nothing_about_the_next_one(watch: Watch) -> None:
    watch.made.began(notebook(), resumed=False)
    watch.tell(1000, state("busy", 0, 1000), stream("run-1.0", "\r50%|##  | 2/4 [00:10<00:10, 5.0s/it]"))
    watch.tell(1010, replied(0, 1010), state("idle", 0, 1010), state("busy", 2, 1010))
    assert watch.made.progress("run-1")["fraction"] is None


def test_a_cell_that_takes_longer_than_ever_has_no_estimate(watch: Watch) -> None:
    watch.run((10, 100, 5))
    watch.made.began(notebook(), resumed=False)
    watch.tell(1000, state("busy", 0, 1000))
    assert watch.left(1011) == (None, None)


def test_a_cell_that_failed_does_not_count_as_one_that_took_so_long(watch: Watch, store: Store) -> None:
    watch.run((1, 1, 1), status="error")
    assert [store.durations(key) for key in KEYS] == [[], [], []]


def test_a_cell_that_ended_while_no_daemon_looked_counts_with_its_own_time(watch: Watch, store: Store) -> None:
    watch.made.began(notebook(), resumed=True)
    watch.tell(90_000, state("busy", 0, 1000), replied(0, 1042), state("idle", 0, 1042))
    assert store.durations(KEYS[0]) == [42]


def test_a_cell_that_a_new_daemon_takes_up_has_run_since_it_began(watch: Watch) -> None:
    watch.made.began(notebook(), resumed=True)
    watch.tell(1500, state("busy", 0, 1100))
    assert watch.made.progress("run-1")["elapsed_s"] == 400


@pytest.mark.parametrize("date", ["", "yesterday", "2026-01-01T00:00:00", 7, None, "9" * 100])
def test_a_date_that_makes_no_sense_is_no_date(watch: Watch, store: Store, date: object) -> None:
    watch.made.began(notebook(), resumed=False)
    message = state("busy", 0, 1000)
    header = {**message.header_fields(), "date": date}

    watch.tell(1000, RawMessage("iopub", json.dumps(header).encode(), message.parent, b"{}", message.content, []))
    watch.tell(1005, replied(0, 1005), state("idle", 0, 1005))
    assert store.durations(KEYS[0]) == []


def test_messages_of_runs_and_cells_that_are_none_of_ours_are_left_alone(watch: Watch) -> None:
    watch.tell(1000, state("busy", 0, 1000))
    watch.made.began(notebook(), resumed=False)
    watch.tell(1000, state("busy", 7, 1000), state("idle", 7, 1000))
    assert watch.made.progress("run-1") == NOTHING_KNOWN
    assert watch.made.progress("run-unknown") == NOTHING_KNOWN


def test_only_the_last_ten_times_are_kept(store: Store) -> None:
    for seconds in range(25):
        store.add_duration("k", float(seconds))
    assert store.durations("k") == [float(seconds) for seconds in range(24, 14, -1)]


def test_time_left_is_judged_by_the_runs_that_took_longer_than_this_one_has() -> None:
    assert time_left([10, 20, 30], 0) == 20
    assert time_left([10, 20, 30], 15) == 10
    assert time_left([10, 20, 30], 40) is None
    assert time_left([], 0) is None


def test_the_same_code_elsewhere_or_with_other_arguments_is_other_code() -> None:
    assert code_key("/p", "x") != code_key("/q", "x")
    script = {"kind": "script", "source": "s", "argv": ["1"], "project": "/p"}
    assert program_key(script) == program_key({**script, "cwd": "/p/sub"})
    assert program_key(script) != program_key({**script, "argv": ["2"]})
