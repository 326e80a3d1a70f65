"""Which cells a vanished front end has left, and where they are in the notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colab_bridge.execution.orphans import Executions, Orphan, notebook_of, places
from colab_bridge.kernels.record import Entry, EntryKind
from colab_bridge.wire.jupyter_ws import encode_v1
from colab_bridge.wire.message import RawMessage, dump_json


class Script:
    """Makes the entries of a record."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, kind: EntryKind, body: bytes) -> None:
        number = len(self.entries) + 1
        self.entries.append(Entry(number, kind, 100.0 + number, body))

    def sent(self, msg_id: str, code: str = "x", cell: str = "", msg_type: str = "execute_request") -> None:
        content = {"code": code, "silent": False}
        metadata = {"cellId": cell} if cell else {}
        message = RawMessage.build("shell", msg_type, content, msg_id=msg_id, session="s", metadata=metadata)
        self.add(EntryKind.UP, encode_v1(message))

    def came(self, parent: str, msg_type: str, content: dict[str, Any], channel: str = "iopub") -> None:
        header = {"msg_id": parent, "msg_type": "execute_request"}
        message = RawMessage.build(
            channel, msg_type, content, msg_id=f"m{len(self.entries)}", session="k", parent=header
        )
        self.add(EntryKind.DOWN, encode_v1(message))

    def printed(self, parent: str) -> None:
        self.came(parent, "stream", {"name": "stdout", "text": "x"})

    def ended(self, parent: str, *, reply_first: bool = True) -> None:
        steps = [
            lambda: self.came(parent, "execute_reply", {"status": "ok"}, "shell"),
            lambda: self.came(parent, "status", {"execution_state": "idle"}),
        ]
        for step in steps if reply_first else reversed(steps):
            step()

    def read(self, first: int = 1) -> Executions:
        found = Executions()
        for entry in self.entries[first - 1 :]:
            found.take(entry)
        return found


def ids(orphans: list[Orphan]) -> list[str]:
    return [orphan.msg_id for orphan in orphans]


@pytest.mark.parametrize("reply_first", [True, False])
def test_an_execution_goes_on_until_reply_and_idle_have_come(reply_first: bool) -> None:
    script = Script()
    script.sent("a")
    script.sent("b")
    script.ended("a", reply_first=reply_first)
    script.came("b", "execute_reply", {"status": "ok"}, "shell")
    assert ids(script.read().going_on) == ["b"]


def test_what_ended_after_the_file_was_saved_counts_as_unsaved() -> None:
    script = Script()
    script.sent("a")
    script.ended("a")
    saved_at = 100.0 + len(script.entries)
    script.sent("b")
    script.ended("b")
    script.sent("c")
    assert ids(script.read().unsaved(saved_at)) == ["b", "c"]


def test_a_death_ends_everything() -> None:
    script = Script()
    script.sent("a")
    script.add(EntryKind.NOTE, dump_json({"type": "died", "text": "gone"}))
    found = script.read()
    assert found.going_on == []
    assert ids(found.unsaved(0.0)) == ["a"]


def test_silent_requests_and_other_messages_are_no_cells() -> None:
    script = Script()
    script.sent("a", msg_type="complete_request")
    message = RawMessage.build("shell", "execute_request", {"code": "", "silent": True}, msg_id="b", session="s")
    script.add(EntryKind.UP, encode_v1(message))
    assert script.read().going_on == []


def test_output_without_its_request_says_that_the_look_must_reach_further() -> None:
    script = Script()
    script.sent("a")
    script.printed("a")
    script.sent("b")
    assert script.read(first=2).reaches_further
    assert not script.read(first=1).reaches_further


def test_output_whose_idle_came_needs_no_further_look() -> None:
    script = Script()
    script.sent("a")
    script.printed("a")
    script.ended("a")
    assert not script.read(first=2).reaches_further


def orphan(cell: str = "", code: str = "x", msg_id: str = "m") -> Orphan:
    return Orphan(msg_id=msg_id, seq=1, cell=cell, code=code)


def cell(source: str, cell_id: str | None = None, cell_type: str = "code") -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": cell_type, "source": source}
    return {**made, "id": cell_id} if cell_id else made


def test_a_cell_is_found_by_its_id_also_when_it_was_edited() -> None:
    assert places([cell("y", "b"), cell("new", "a")], [orphan("a", "old")]) == {0: 1}


def test_without_an_id_the_source_decides_where_only_one_cell_has_it() -> None:
    assert places([cell("y"), cell("x")], [orphan(code="x")]) == {0: 1}
    assert places([cell("x"), cell("x")], [orphan(code="x")]) == {}


def test_a_cell_that_is_gone_or_no_code_any_more_has_no_place() -> None:
    assert places([cell("y", "b")], [orphan("a", "x")]) == {}
    assert places([cell("x", "a", "markdown")], [orphan("a", "x")]) == {}


def test_of_two_executions_of_one_cell_the_later_counts() -> None:
    assert places([cell("x", "a")], [orphan("a"), orphan("a", msg_id="n")]) == {1: 0}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vscode-notebook-cell:/home/me/my%20work/a.ipynb#W0sZmlsZQ%3D%3D", "/home/me/my work/a.ipynb"),
        ("vscode-notebook-cell:/c%3A/Users/me/a.ipynb#W1", "c:/Users/me/a.ipynb"),
    ],
)
def test_the_address_of_a_vscode_cell_names_its_notebook(name: str, path: str) -> None:
    assert notebook_of({}, [orphan(name)]) == Path(path)


@pytest.mark.parametrize(
    "name", ["", "plain-id", "vscode-notebook-cell://host/a.ipynb", "file:/a.ipynb", "x:[/a.ipynb"]
)
def test_other_names_of_cells_name_no_notebook(name: str) -> None:
    assert notebook_of({}, [orphan(name)]) is None


def test_what_the_front_end_says_itself_comes_first() -> None:
    assert notebook_of({"notebook": "/here/n.ipynb"}, [orphan("vscode-notebook-cell:/a.ipynb#1")]) == Path(
        "/here/n.ipynb"
    )
