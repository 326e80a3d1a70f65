"""Folding iopub messages into outputs, against nbclient and nbformat."""

from __future__ import annotations

from typing import Any

import nbformat
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient

from colab_bridge.wire.outputs import CellOutputs, DisplayRegistry, collapse_carriage_returns
from colab_bridge.wire.terminal_text import collapse_open_line


def stream(text: str, name: str = "stdout") -> tuple[str, dict[str, Any]]:
    return "stream", {"name": name, "text": text}


def display(text: str, display_id: str | None = None, kind: str = "display_data") -> tuple[str, dict[str, Any]]:
    content: dict[str, Any] = {"data": {"text/plain": text}, "metadata": {}}
    if display_id:
        content["transient"] = {"display_id": display_id}
    if kind == "execute_result":
        content["execution_count"] = 3
    return kind, content


ERROR = ("error", {"ename": "E", "evalue": "v", "traceback": ["a", "b"]})
MESSAGES = st.one_of(
    st.builds(
        display,
        st.sampled_from("abc"),
        st.sampled_from([None, "d1", "d2"]),
        st.sampled_from(["display_data", "execute_result"]),
    ),
    st.builds(display, st.sampled_from("xyz"), st.sampled_from(["d1", "d2"]), st.just("update_display_data")),
    st.builds(stream, st.sampled_from(["p", "q\n"]), st.sampled_from(["stdout", "stderr"])),
    st.builds(lambda wait: ("clear_output", {"wait": wait}), st.booleans()),
    st.just(ERROR),
)


def joined(outputs: list[Any]) -> list[Any]:
    result: list[Any] = []
    for output in outputs:
        last = result[-1] if result else {}
        if output["output_type"] == "stream" == last.get("output_type") and output["name"] == last["name"]:
            last["text"] += output["text"]
        else:
            result.append(dict(output))
    return result


@given(st.lists(st.tuples(st.integers(0, 1), MESSAGES), max_size=12))
def test_the_outputs_of_two_cells_are_those_of_nbclient(sequence: list[tuple[int, tuple[str, dict[str, Any]]]]) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(), nbformat.v4.new_code_cell()])
    client = NotebookClient(notebook)
    client.clear_before_next_output = False
    registry = DisplayRegistry()
    cells = [CellOutputs(registry), CellOutputs(registry)]
    at = 0
    for step, (msg_type, content) in sequence:
        if step and at == 0:
            at, client.clear_before_next_output = 1, False
        message = {"msg_type": msg_type, "header": {"msg_type": msg_type}, "parent_header": {}, "content": content}
        client.process_message(message, notebook.cells[at], at)
        cells[at].apply(msg_type, content)
    for cell, expected in zip(cells, notebook.cells, strict=True):
        assert cell.outputs == joined(expected["outputs"])
        assert cell.execution_count == expected["execution_count"]
        expected["outputs"] = nbformat.from_dict(cell.outputs)
    nbformat.validate(notebook)


def test_a_display_update_changes_other_cells_and_names_them() -> None:
    registry = DisplayRegistry()
    first, second = CellOutputs(registry), CellOutputs(registry)
    first.apply(*display("old", "d"))
    version = first.version
    assert second.apply(*display("new", "d", "update_display_data"))
    assert first.outputs[0]["data"] == {"text/plain": "new"}
    assert first.version > version
    assert registry.update("d", {}, {}) == [first]


def test_an_update_of_an_unknown_display_changes_nothing() -> None:
    cell = CellOutputs(DisplayRegistry())
    assert not cell.apply(*display("x", "d", "update_display_data"))
    assert cell.outputs == []


def test_an_output_that_was_cleared_is_updated_no_more() -> None:
    registry = DisplayRegistry()
    cell = CellOutputs(registry)
    cell.apply(*display("x", "d"))
    cell.apply("clear_output", {"wait": False})
    assert registry.update("d", {}, {}) == []


def test_outputs_that_were_handed_out_do_not_change_later() -> None:
    cell = CellOutputs(DisplayRegistry())
    cell.apply(*display("old", "d"))
    handed_out = cell.outputs
    cell.apply(*display("new", "d", "update_display_data"))
    assert handed_out[0]["data"] == {"text/plain": "old"}


def test_a_long_stream_in_small_pieces_comes_out_whole() -> None:
    cell = CellOutputs(DisplayRegistry())
    for number in range(30_000):
        cell.apply(*stream(f"{number}\n"))
        if number == 20_000:
            assert cell.outputs[0]["text"].endswith("20000\n")
    assert cell.outputs[0]["text"] == "".join(f"{number}\n" for number in range(30_000))


def test_a_progress_bar_of_100000_steps_is_one_line() -> None:
    cell = CellOutputs(DisplayRegistry(), collapse_progress=True)
    for number in range(100_001):
        cell.apply(*stream(f"\r{number / 1000:3.0f}%|{'#' * (number // 1000):100}| {number}/100000", "stderr"))
    assert cell.outputs[0]["text"] == f"100%|{'#' * 100}| 100000/100000"


@given(st.lists(st.text(alphabet="ab\r\n", max_size=6), max_size=30), st.lists(st.booleans(), max_size=30))
def test_looking_at_the_outputs_between_messages_changes_nothing(pieces: list[str], looks: list[bool]) -> None:
    cell = CellOutputs(DisplayRegistry(), collapse_progress=True)
    for index, piece in enumerate(pieces):
        cell.apply(*stream(piece))
        if index < len(looks) and looks[index]:
            _ = cell.outputs
    shown = "".join(output["text"] for output in cell.outputs)
    assert shown == collapse_carriage_returns("".join(pieces))


def terminal(line: str) -> str:
    columns: list[str] = []
    at = 0
    for character in line:
        if character == "\r":
            at = 0
            continue
        columns[at : at + 1] = [character]
        at += 1
    return "".join(columns)


@given(st.text(alphabet="abc\r", max_size=30))
def test_a_collapsed_line_shows_what_a_terminal_shows(line: str) -> None:
    assert collapse_carriage_returns(line).rstrip("\r") == terminal(line)


@given(st.text(alphabet="abc\r", max_size=20), st.text(alphabet="abc\r", max_size=20))
def test_an_open_line_can_be_collapsed_before_it_goes_on(line: str, rest: str) -> None:
    assert terminal(collapse_open_line(line) + rest) == terminal(line + rest)


@given(st.text(alphabet="ab\r\n\x1b[Km0", max_size=30))
def test_collapsing_twice_is_collapsing_once(text: str) -> None:
    once = collapse_carriage_returns(text)
    assert collapse_carriage_returns(once) == once


def test_windows_line_ends_are_left_alone() -> None:
    assert collapse_carriage_returns("a\r\nb\r\n") == "a\r\nb\r\n"


def test_a_coloured_bar_keeps_its_last_state() -> None:
    steps = "".join(f"\r\x1b[32m{number:4}\x1b[0m" for number in range(1000))
    assert collapse_carriage_returns(steps) == "\x1b[32m 999\x1b[0m"


def test_an_erased_line_leaves_nothing_behind() -> None:
    assert collapse_carriage_returns("long text\r\x1b[Kend") == "\x1b[Kend"


def test_a_line_with_cursor_movements_is_left_alone() -> None:
    assert collapse_carriage_returns("a\rb\x1b[Ac\rd") == "a\rb\x1b[Ac\rd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=5), kids, max_size=3),
    max_leaves=6,
)
KEYS = ["data", "metadata", "transient", "name", "text", "ename", "evalue", "traceback", "wait", "execution_count"]
BUNDLE = st.dictionaries(
    st.sampled_from(["text/plain", "image/png", "application/json", "application/x+json", "a"]), JSON
)


@given(
    st.sampled_from(["stream", "display_data", "execute_result", "update_display_data", "error", "clear_output"]),
    st.dictionaries(st.sampled_from(KEYS), JSON | BUNDLE),
)
def test_hostile_content_gives_valid_outputs(msg_type: str, content: dict[str, Any]) -> None:
    cell = CellOutputs(DisplayRegistry())
    cell.apply(msg_type, content)
    code = nbformat.v4.new_code_cell(outputs=nbformat.from_dict(cell.outputs))
    nbformat.validate(nbformat.v4.new_notebook(cells=[code]))
