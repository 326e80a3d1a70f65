"""The events of a run as one result."""

from __future__ import annotations

from typing import Any

import pytest

from colab_bridge.bridge.results import ExecutionFailed, Result, collect
from colab_bridge.errors import RuntimeLostError

Event = dict[str, Any]
STARTED: Event = {"type": "started", "run": {"id": "run-1"}}


def finished(status: str = "ok", exit_code: int = 0, **more: Any) -> Event:
    return {"type": "finished", "status": status, "exit_code": exit_code, "duration_s": 0.5, "error": None, **more}


def stream(text: str, name: str = "stdout") -> Event:
    return {"type": "stream", "name": name, "text": text}


def display(text: str, display_id: str | None = None, kind: str = "display") -> Event:
    return {"type": kind, "data": {"text/plain": text}, "metadata": {}, "display_id": display_id}


def shown(result: Result) -> list[str]:
    return [bundle["text/plain"] for bundle in result.outputs]


def test_text_value_and_timing_are_collected() -> None:
    value = {"type": "result", "data": {"text/plain": "42"}, "metadata": {}, "execution_count": 1}
    result = collect([STARTED, stream("a"), stream("e", "stderr"), stream("b\n"), value, finished()])
    assert (result.run_id, result.stdout, result.stderr, result.value) == ("run-1", "ab\n", "e", "42")
    assert (result.ok, result.duration_s, result.text) == (True, 0.5, "ab\n42\n")


def test_an_error_is_kept_with_its_traceback_and_can_be_raised() -> None:
    error = {"type": "error", "ename": "E", "evalue": "v", "traceback": ["t1", "t2"]}
    result = collect([STARTED, error, finished("error", 1, error={"ename": "E", "evalue": "v"})])
    assert result.error is not None
    assert result.error.traceback == ("t1", "t2")
    with pytest.raises(ExecutionFailed, match="E: v") as caught:
        result.raise_for_error()
    assert caught.value.result is result


def test_an_exit_status_without_an_error_is_a_failure_too() -> None:
    with pytest.raises(ExecutionFailed, match="exit status 3"):
        collect([STARTED, finished("error", 3)]).raise_for_error()


def test_a_lost_run_raises_what_was_lost() -> None:
    lost = collect([STARTED, finished("lost", 69, error={"ename": "KernelLost", "evalue": "the kernel died"})])
    with pytest.raises(RuntimeLostError, match="the kernel died"):
        lost.raise_for_error()


def test_a_run_whose_end_nobody_saw_is_lost_whatever_came_last() -> None:
    cell = {"type": "cell_finished", "index": 1, "total": 2, "status": "ok", "duration_s": 9.0}
    result = collect([STARTED, stream("x"), cell])
    assert (result.status, result.ok, result.stdout) == ("lost", False, "x")


def test_nothing_at_all_is_a_lost_run() -> None:
    assert collect([]).status == "lost"


def test_a_display_is_updated_in_place_everywhere_it_is_shown() -> None:
    update = display("new", "d", "update_display")
    result = collect([STARTED, display("old", "d"), display("other"), display("old", "d"), update, finished()])
    assert shown(result) == ["new", "other", "new"]


def test_an_update_of_an_unknown_display_shows_nothing() -> None:
    assert shown(collect([STARTED, display("x", "d", "update_display"), finished()])) == []


def test_clearing_takes_everything_at_once() -> None:
    result = collect([STARTED, stream("a"), display("b"), {"type": "clear_output", "wait": False}, finished()])
    assert (result.stdout, result.outputs) == ("", ())


def test_clearing_may_wait_for_the_next_output() -> None:
    clear = {"type": "clear_output", "wait": True}
    assert collect([STARTED, stream("a"), clear, finished()]).stdout == "a"
    assert collect([STARTED, stream("a"), clear, stream("b"), finished()]).stdout == "b"


def test_possible_loss_is_passed_on() -> None:
    assert collect([STARTED, {"type": "lost", "text": "a gap"}, finished()]).output_may_be_lost == "a gap"


def test_every_event_is_shown_and_input_is_asked_for() -> None:
    seen: list[str] = []
    asked: list[tuple[str, str]] = []
    question = {"type": "input_request", "prompt": "name? ", "password": False}
    collect(
        [STARTED, question, finished()],
        on_event=lambda event: seen.append(event["type"]),
        answer=lambda run, event: asked.append((run, event["prompt"])),
    )
    assert (seen, asked) == (["started", "input_request", "finished"], [("run-1", "name? ")])


def test_images_are_decoded_and_broken_ones_left_out() -> None:
    def image(data: Any) -> Event:
        return {"type": "display", "data": {"image/png": data}, "metadata": {}}

    result = collect([STARTED, image("aGk=\n"), image(["aG", "k="]), image("a"), image(5), finished()])
    assert result.images() == [b"hi", b"hi"]


def test_a_notebook_run_names_its_files() -> None:
    assert collect([STARTED, finished(outputs=["/a.ipynb", "/b.png"])]).files == ("/a.ipynb", "/b.png")


def test_what_the_tool_says_of_a_run_is_in_its_result_and_what_helps_in_its_error() -> None:
    result = collect(
        [
            {"type": "notice", "level": "warning", "text": "x stays here", "fix": "colab-bridge sync include x"},
            {"type": "notice", "level": "sync", "text": "1 down: y"},
            {"type": "finished", "status": "error", "error": {"ename": "FileNotFoundError", "evalue": "x"}},
        ]
    )
    assert result.notices == ("warning: x stays here", "sync: 1 down: y")
    with pytest.raises(ExecutionFailed) as caught:
        result.raise_for_error()
    assert caught.value.hint == "colab-bridge sync include x"
