"""What is announced, and that it is announced once, whatever dies meanwhile."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.config.settings import NotifySettings
from colab_bridge.errors import TransientError
from colab_bridge.execution.notices.decide import (
    announce_end,
    announce_question,
    announce_wait,
    printable_line,
    webhook_document,
)
from colab_bridge.execution.notices.desktop import command_for, show_on_desktop
from colab_bridge.execution.notices.service import NoticeService, last_line
from colab_bridge.model.jobs import NoticeState, Occasion, WaitEnd
from colab_bridge.model.records import Run, RunKind, RunStatus
from colab_bridge.store import Store
from job_scenes import DESKTOP, a_run, an_end, asks
from scripted_upstream import ManualClock, stream


class Killed(BaseException):
    """The daemon's process ends here."""


class Desk:
    """A daemon's notices over a store that outlives it, and what the user gets to see."""

    def __init__(self, store: Store, clock: ManualClock, settings: NotifySettings = DESKTOP) -> None:
        self.store, self.clock, self.settings = store, clock, settings
        self.shown: list[str] = []
        self.dies_while_showing = False
        self.restart()

    def restart(self) -> None:
        self.service = NoticeService(self.store, self.clock, lambda project: self.settings, desktop=self._show)
        self.service._take_over()

    async def _show(self, title: str, text: str) -> str:
        self.shown.append(f"{title}\n{text}")
        if self.dies_while_showing:
            raise Killed
        return ""

    async def at(self, seconds: float) -> list[str]:
        """Move the clock to this many seconds after the run's start, and return what has been shown so far."""
        self.clock.now = 1000.0 + seconds
        await self.service._round()
        return self.shown


@pytest.fixture
def desk(store: Store, clock: ManualClock) -> Desk:
    return Desk(store, clock)


def begin(desk: Desk, **changes: Any) -> Run:
    run = a_run(**changes)
    desk.store.put_run(run, "/p")
    desk.service.began(run, resumed=False)
    return run


# -- the decision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "occasion"),
    [(RunStatus.OK, Occasion.ENDED), (RunStatus.ERROR, Occasion.FAILED), (RunStatus.LOST, Occasion.LOST)],
)
def test_each_end_has_its_own_occasion(status: RunStatus, occasion: Occasion) -> None:
    run, _ = an_end(a_run(), status, 61)
    assert [notice.occasion for notice in announce_end(run, DESKTOP)] == [occasion]


def test_a_run_that_the_user_interrupted_announces_nothing() -> None:
    assert announce_end(an_end(a_run(), RunStatus.INTERRUPTED, 600)[0], DESKTOP) == ()


@pytest.mark.parametrize(("after_s", "count"), [(59.9, 0), (60.0, 1)])
def test_only_a_run_over_a_minute_is_announced(after_s: float, count: int) -> None:
    assert len(announce_end(an_end(a_run(), RunStatus.ERROR, after_s)[0], DESKTOP)) == count


@pytest.mark.parametrize(
    ("when", "detached", "asked", "announced"),
    [
        ("jobs", True, False, True),
        ("jobs", False, False, False),
        ("jobs", False, True, True),
        ("asked", True, False, False),
        ("asked", False, True, True),
        ("always", False, False, True),
        ("never", True, False, False),
        ("never", True, True, True),  # the flag is stronger than a file
    ],
)
def test_settings_and_flag_decide_which_runs_are_announced(
    when: Any, detached: bool, asked: bool, announced: bool
) -> None:
    run = a_run(spec={"detached": detached, "notify": asked})
    found = announce_end(an_end(run, RunStatus.OK, 90)[0], DESKTOP.model_copy(update={"when": when}))
    assert bool(found) is announced


WAITED = WaitEnd(session="s", project="/p", began_at=1000.0, ended_at=1600.0, label="Colab T4, gpu-t4-s-1")


@pytest.mark.parametrize(
    ("when", "seconds", "count"),
    [("jobs", 600, 1), ("always", 600, 1), ("asked", 600, 0), ("never", 600, 0), ("jobs", 59, 0)],
)
def test_a_long_wait_for_a_machine_is_announced_unless_notices_are_only_for_what_asks(
    when: Any, seconds: float, count: int
) -> None:
    end = dataclasses.replace(WAITED, ended_at=WAITED.began_at + seconds)
    assert len(announce_wait(end, DESKTOP.model_copy(update={"when": when}))) == count


def test_a_wait_says_which_machine_came_or_why_none_did() -> None:
    (got,) = announce_wait(WAITED, DESKTOP)
    assert (got.occasion, got.body["title"]) == (Occasion.GOT, "s has its machine")
    assert "after 10 min\nColab T4, gpu-t4-s-1" in got.body["text"]
    (none,) = announce_wait(dataclasses.replace(WAITED, label="", problem="T4: none is free"), DESKTOP)
    assert (none.occasion, none.body["title"]) == (Occasion.GAVE_UP, "no machine for s")
    assert "T4: none is free" in none.body["text"]
    assert "/p" not in str(webhook_document(none))


async def test_the_end_of_a_wait_is_shown_once(desk: Desk) -> None:
    desk.service.waited(WAITED)
    assert len(await desk.at(601)) == 1
    desk.restart()
    assert len(await desk.at(700)) == 1


def test_every_channel_gets_one_notice() -> None:
    both = DESKTOP.model_copy(update={"webhook": "https://h/x"})
    run, _ = an_end(a_run(), RunStatus.OK, 90)
    assert {notice.channel for notice in announce_end(run, both)} == {"desktop", "webhook"}
    assert announce_end(run, DESKTOP.model_copy(update={"desktop": False})) == ()


def test_a_notice_says_what_how_long_and_the_last_line() -> None:
    run, _ = an_end(a_run(), RunStatus.ERROR, 7505)
    (notice,) = announce_end(run, DESKTOP, error="ValueError: no", last_line="epoch 9")
    assert notice.body["title"] == "train.py has failed"
    assert notice.body["text"] == "after 2 h 5 min\nValueError: no\nepoch 9"
    assert (notice.body["exit_code"], notice.body["duration_s"]) == (1, 7505.0)


def test_an_end_whose_word_was_lost_is_not_called_a_failure() -> None:
    run, _ = an_end(a_run(), RunStatus.ERROR, 90)
    (notice,) = announce_end(run, DESKTOP, error="OutputLost: its reply was lost while the connection was down")
    assert notice.body["title"] == "train.py has ended, and how is not known"


def test_a_notice_of_a_code_run_begins_with_its_first_line() -> None:
    run, _ = an_end(a_run(kind=RunKind.CODE, title="fit(model)"), RunStatus.OK, 90)
    assert announce_end(run, DESKTOP)[0].body["title"] == "fit(model) is done"


def test_output_in_a_notice_is_one_short_line_without_control_characters() -> None:
    assert printable_line("\x1b[31mred\x07\n\u202ex  y") == "[31mred x y"
    assert len(printable_line("a" * 10_000_000)) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\nb\n", "b"), ("10%\r 20%\r 30%", "30%"), ("a\n\n \n", "a"), ("", ""), ("x\r\n", "x")],
)
def test_the_last_line_is_the_last_that_says_something(text: str, expected: str) -> None:
    assert last_line(text) == expected


# -- questions -------------------------------------------------------------------------------------------------


async def test_a_question_is_announced_after_a_moment_without_an_answer(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    desk.service.message(run.id, asks("continue? ", "q1"))
    assert await desk.at(101) == []
    (shown,) = await desk.at(103)
    assert shown.startswith("train.py waits for an answer\nafter 1 min 42 s\nanswer it: colab-bridge job attach")
    assert len(await desk.at(1000)) == 1


async def test_a_question_that_is_answered_at_once_is_not_announced(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    desk.service.message(run.id, asks("continue? ", "q1"))
    desk.service.answered(run.id)
    assert await desk.at(200) == []


async def test_a_question_in_the_first_minute_is_announced_when_the_minute_is_over(desk: Desk) -> None:
    run = begin(desk)
    desk.service.message(run.id, asks("name? ", "q1"))
    assert await desk.at(59) == []
    assert len(await desk.at(60)) == 1


async def test_each_question_is_announced_for_itself(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    for number in (1, 2):
        desk.service.message(run.id, asks(f"q{number}? ", f"q{number}"))
        await desk.at(100 + 10 * number)
        desk.service.answered(run.id)
    assert len(desk.shown) == 2


async def test_old_questions_that_a_new_daemon_reads_again_are_not_announced_again(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    for number in (1, 2, 3):
        desk.service.message(run.id, asks("? ", f"q{number}"))
        desk.service.answered(run.id)
    desk.restart()
    desk.service.began(run, resumed=True)
    for number in (1, 2, 3):
        desk.service.message(run.id, asks("? ", f"q{number}"))
    assert await desk.at(200) == []
    desk.service.message(run.id, asks("? ", "q4"))
    assert len(await desk.at(300)) == 1


async def test_a_question_that_is_open_when_the_daemon_dies_is_announced_once(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    desk.service.message(run.id, asks("? ", "q1"))
    desk.restart()
    desk.service.began(run, resumed=True)
    desk.service.message(run.id, asks("? ", "q1"))
    assert len(await desk.at(110)) == 1
    desk.restart()
    desk.service.began(run, resumed=True)
    desk.service.message(run.id, asks("? ", "q1"))
    assert len(await desk.at(120)) == 1


async def test_a_run_that_ends_takes_its_question_back(desk: Desk) -> None:
    run = begin(desk)
    await desk.at(100)
    desk.service.message(run.id, asks("? ", "q1"))
    desk.service.ended(*an_end(run, RunStatus.OK, 101))
    assert [shown.partition("\n")[0] for shown in await desk.at(200)] == ["train.py is done"]


def test_a_question_announces_nothing_for_a_run_that_nobody_wants_to_hear_of() -> None:
    from colab_bridge.execution.notices.decide import Question

    quiet = a_run(spec={"detached": False})
    assert announce_question(quiet, DESKTOP, Question(subject="s", prompt="?", asked_at=2000)) == ()


# -- once, over the death of the daemon ------------------------------------------------------------------------


async def test_the_desktop_is_told_nothing_that_the_program_said(desk: Desk) -> None:
    run = begin(desk)
    for text in ("epoch 1\n", "epoch 2: loss ", "0.25\n"):
        desk.service.message(run.id, stream("run-1.0", text))
    desk.service.ended(*an_end(run, RunStatus.OK, 90))
    assert await desk.at(91) == ["train.py is done\nafter 1 min 30 s"]


async def test_an_end_that_two_daemons_see_is_announced_once(desk: Desk) -> None:
    run = begin(desk)
    desk.service.ended(*an_end(run, RunStatus.OK, 90))
    await desk.at(91)
    desk.restart()
    desk.service.began(run, resumed=True)
    desk.service.ended(*an_end(run, RunStatus.LOST, 95))
    assert len(await desk.at(100)) == 1


async def test_an_end_that_was_stored_before_the_daemon_died_is_announced_by_the_next(desk: Desk) -> None:
    run = begin(desk)
    desk.service.ended(*an_end(run, RunStatus.OK, 90))
    desk.restart()
    assert len(await desk.at(4000)) == 1


async def test_what_a_daemon_was_just_sending_when_it_died_is_not_sent_twice(desk: Desk) -> None:
    run = begin(desk)
    desk.service.ended(*an_end(run, RunStatus.OK, 90))
    desk.dies_while_showing = True
    with pytest.raises(BaseExceptionGroup):
        await desk.at(91)
    desk.dies_while_showing = False
    desk.restart()
    assert len(await desk.at(200)) == 1
    assert desk.store.notices_of(run=run.id)[0].state is NoticeState.FAILED


async def test_settings_that_held_at_the_start_hold_at_the_end(desk: Desk) -> None:
    run = begin(desk, spec={"announce": {"when": "jobs", "after_s": 5.0, "desktop": True}})
    desk.settings = desk.settings.model_copy(update={"when": "never"})
    desk.service.ended(*an_end(run, RunStatus.OK, 6))
    assert len(await desk.at(7)) == 1


async def test_the_service_sends_at_once_what_comes_while_it_waits(desk: Desk) -> None:
    run = begin(desk)
    desk.clock.now = 1090.0
    ready = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.service.run, ready)
        ready.set()
        await anyio.wait_all_tasks_blocked()
        desk.service.ended(*an_end(run, RunStatus.OK, 90))
        with anyio.fail_after(20):
            while not desk.shown:
                await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert len(desk.shown) == 1


def test_messages_of_runs_that_nobody_wants_to_hear_of_cost_nothing(desk: Desk) -> None:
    desk.service.began(dataclasses.replace(a_run(), spec={"project": "/p"}), resumed=False)
    desk.service.message("run-1", asks("? ", "q1"))
    assert desk.store.notices_of() == []


def test_a_full_disk_stops_the_notices_and_not_the_run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(desk)

    def full(*args: object, **more: object) -> None:
        raise TransientError("the disk is full")

    for name in ("put_notice", "notices_of", "notice"):
        monkeypatch.setattr(desk.store, name, full)
    desk.service.began(run, resumed=True)
    desk.service.message(run.id, asks("? ", "q1"))
    desk.service.answered(run.id)
    desk.service.ended(*an_end(run, RunStatus.OK, 90))


# -- the desktop -----------------------------------------------------------------------------------------------

NASTY = '`$(rm)`"; display dialog "x" & $env:HOME <b>&amp;'


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_texts_reach_the_desktop_as_data_and_never_as_code(platform: str) -> None:
    plain, nasty = command_for(platform, "t", "x"), command_for(platform, NASTY, NASTY)
    changed = [word for word, other in zip(nasty.argv, plain.argv, strict=True) if word != other]
    inside = [value for key, value in nasty.env.items() if plain.env.get(key) != value]
    assert len(changed) + len(inside) == 2
    assert all(
        word in (NASTY, NASTY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        for word in changed + inside
    )


@pytest.mark.skipif(sys.platform != "linux", reason="notify-send is Linux's")
async def test_a_desktop_without_its_tool_is_a_reason_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, store: Store, clock: ManualClock
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    service = NoticeService(store, clock, lambda project: DESKTOP)
    run = a_run()
    store.put_run(run, "/p")
    service.ended(*an_end(run, RunStatus.OK, 90))
    clock.now = 1100
    await service._round()
    assert "notify-send is not installed" in service.problem


@pytest.mark.skipif(sys.platform != "linux", reason="notify-send is Linux's")
@pytest.mark.parametrize(("status", "problem"), [(0, ""), (3, "notify-send ended with status 3")])
async def test_the_desktop_tool_gets_title_and_text_and_may_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, problem: str
) -> None:
    tool, heard = tmp_path / "notify-send", tmp_path / "heard"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {heard}\nexit {status}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert await show_on_desktop("-t <b>", "x < y\nlast") == problem
    assert heard.read_text() == "--app-name=Colab Bridge\n--\n-t <b>\nx &lt; y\nlast\n"
