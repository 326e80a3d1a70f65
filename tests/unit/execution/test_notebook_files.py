"""Notebook files: read with checks, filled, saved without losing what somebody else wrote."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge._util import atomic
from colab_bridge.errors import UserError
from colab_bridge.execution import notebook_json
from colab_bridge.execution.notebook_file import CellResult, NotebookFile, cell_source, parse_notebook
from colab_bridge.execution.notebook_json import PIECE_CHARACTERS, notebook_pieces

posix = pytest.mark.skipif(os.name != "posix", reason="permission bits")
not_root = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")


def code(source: str = "1", cell_id: str | None = None, **more: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None, **more}
    return {**cell, "id": cell_id} if cell_id else cell


def notebook(*cells: dict[str, Any], minor: int = 5) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": minor}


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def shown(text: str, count: int | None = 1) -> CellResult:
    return CellResult(outputs=[{"output_type": "stream", "name": "stdout", "text": text}], execution_count=count)


def texts(path: Path) -> list[str]:
    cells = json.loads(path.read_bytes())["cells"]
    return ["".join("".join(o["text"]) for o in cell.get("outputs", [])) for cell in cells]


# -- reading ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code_", "words"),
    [
        (b"", "CB-NB-001", "is empty"),
        (b"  \n", "CB-NB-001", "is empty"),
        (b"{", "CB-NB-002", "not valid JSON"),
        (b"\xff\xfe\xfd", "CB-NB-002", "not valid JSON"),
        (b"[" * 100_000, "CB-NB-002", "not valid JSON"),
        (b"[]", "CB-NB-003", "no 'nbformat'"),
        (b"null", "CB-NB-003", "no 'nbformat'"),
        (b'{"nbformat": "4"}', "CB-NB-003", "no 'nbformat'"),
        (b'{"nbformat": 3, "worksheets": []}', "CB-NB-004", "format 3"),
        (b'{"nbformat": 5, "cells": []}', "CB-NB-004", "format 5"),
        (b'{"nbformat": 4}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": {}}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": [1]}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": [{"source": ""}]}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": 1}]}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": [], "metadata": []}', "CB-NB-005", "damaged"),
        (b'{"nbformat": 4, "cells": [], "nbformat_minor": "5"}', "CB-NB-005", "damaged"),
    ],
)
def test_what_is_no_notebook_is_said_in_one_line_with_a_hint(data: bytes, code_: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        parse_notebook(data, "x.ipynb")
    assert (caught.value.code, "\n" in caught.value.message, bool(caught.value.hint)) == (code_, False, True)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_notebook_or_a_user_error(data: bytes) -> None:
    with contextlib.suppress(UserError):
        assert isinstance(parse_notebook(data, "x.ipynb")["cells"], list)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        NotebookFile.load(tmp_path / "no.ipynb")
    with pytest.raises(UserError, match="is a folder"):
        NotebookFile.load(tmp_path)


@not_root
def test_an_unreadable_file_is_a_user_error(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook())
    path.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        NotebookFile.load(path)


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert parse_notebook(b"\xef\xbb\xbf" + json.dumps(notebook(code("1"))).encode(), "n")["cells"]


@pytest.mark.parametrize(("source", "text"), [("a\nb", "a\nb"), (["a\n", "b"], "a\nb"), ([], ""), (["a", 1], "a1")])
def test_a_source_may_be_a_text_or_lines(source: Any, text: str) -> None:
    assert cell_source({"source": source}) == text


# -- writing ---------------------------------------------------------------------------------------------------


def test_outputs_are_in_the_file_after_a_save(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0"), code("b", "c1")))
    report = NotebookFile.load(path).save({1: shown("hello\n", 7)})
    assert (report.problem, report.merged, texts(path)) == ("", False, ["", "hello\n"])
    assert json.loads(path.read_bytes())["cells"][1]["execution_count"] == 7


def test_a_copy_leaves_the_input_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    before = path.read_bytes()
    file = NotebookFile.load(path, tmp_path / "out.ipynb")
    assert file.save({0: shown("x")}).path == tmp_path / "out.ipynb"
    assert (path.read_bytes(), texts(tmp_path / "out.ipynb")) == (before, ["x"])


def test_a_copy_replaces_an_older_copy_whatever_it_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    target = tmp_path / "out.ipynb"
    target.write_text("old")
    assert NotebookFile.load(path, target).save({0: shown("x")}).merged is False
    assert texts(target) == ["x"]


@posix
def test_a_save_keeps_the_permissions_and_a_copy_gets_them(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    path.chmod(0o640)
    NotebookFile.load(path).save({0: shown("x")})
    NotebookFile.load(path, tmp_path / "out.ipynb").save({0: shown("x")})
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, tmp_path / "out.ipynb")] == [0o640, 0o640]


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "real.ipynb", notebook(code("a", "c0")))
    link = tmp_path / "link.ipynb"
    link.symlink_to(real)
    NotebookFile.load(link).save({0: shown("x")})
    assert link.is_symlink()
    assert texts(real) == ["x"]


@not_root
def test_a_read_only_file_and_a_read_only_folder_are_found_before_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a")))
    file = NotebookFile.load(path)
    path.chmod(0o444)
    with pytest.raises(UserError, match="cannot be written") as caught:
        file.check_writable()
    assert "-o" in caught.value.hint
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            file.check_writable()
    finally:
        tmp_path.chmod(0o755)


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    NotebookFile.load(write(tmp_path / "n.ipynb", notebook())).check_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["n.ipynb"]


def test_a_target_folder_that_does_not_exist_is_found_before_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook())
    with pytest.raises(UserError, match="cannot be written"):
        NotebookFile.load(path, tmp_path / "no" / "out.ipynb").check_writable()


def test_a_full_disk_keeps_the_old_file_and_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    before = path.read_bytes()
    file = NotebookFile.load(path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        assert file.save({0: shown("x")}).problem == "No space left on device"
    assert [entry.name for entry in tmp_path.iterdir()] == ["n.ipynb"]
    assert path.read_bytes() == before
    assert (file.save({0: shown("x")}).problem, texts(path)) == ("", ["x"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a device that is always full")
def test_what_cannot_be_saved_in_place_can_be_saved_aside(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    file = NotebookFile.load(path)
    path.write_text("{ somebody is in the middle of it")
    report = file.save({0: shown("x")})
    assert "not valid JSON" in report.problem
    aside = file.save_aside("run-1")
    assert (aside.name, texts(aside)) == ("n.run-1.ipynb", ["x"])
    assert path.read_text() == "{ somebody is in the middle of it"


# -- a file that somebody else changes -------------------------------------------------------------------------


def test_outputs_find_their_cells_by_id_in_a_file_that_was_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0"), code("b", "c1")))
    file = NotebookFile.load(path)
    write(path, notebook(code("new", "n"), code("b changed", "c1"), code("a", "c0")))
    report = file.save({0: shown("A"), 1: shown("B")})
    assert (report.merged, report.homeless, texts(path)) == (True, 0, ["", "B", "A"])
    assert [cell_source(cell) for cell in json.loads(path.read_bytes())["cells"]] == ["new", "b changed", "a"]


def test_a_cell_that_was_deleted_is_counted_as_homeless(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0"), code("b", "c1")))
    file = NotebookFile.load(path)
    write(path, notebook(code("b", "c1")))
    report = file.save({0: shown("A"), 1: shown("B")})
    assert (report.homeless, texts(path)) == (1, ["B"])


def test_a_cell_that_became_text_gets_no_outputs(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    file = NotebookFile.load(path)
    write(path, notebook({"cell_type": "markdown", "id": "c0", "source": "a", "metadata": {}}))
    assert file.save({0: shown("A")}).homeless == 1
    assert "outputs" not in json.loads(path.read_bytes())["cells"][0]


def test_without_ids_a_cell_is_known_by_place_and_source(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a"), code("b"), minor=4))
    file = NotebookFile.load(path)
    write(path, notebook(code("a"), code("changed"), minor=4))
    report = file.save({0: shown("A"), 1: shown("B")})
    assert (report.homeless, texts(path)) == (1, ["A", ""])


def test_changes_of_somebody_else_survive_every_later_save(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    file = NotebookFile.load(path)
    write(path, notebook(code("mine", "m"), code("a", "c0")))
    file.save({0: shown("1")})
    file.save({0: shown("2")})
    assert texts(path) == ["", "2"]


def test_our_own_saves_are_not_taken_for_somebody_elses(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    file = NotebookFile.load(path)
    assert [file.save({0: shown(str(n))}).merged for n in range(3)] == [False] * 3


def test_a_file_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0")))
    file = NotebookFile.load(path)
    path.unlink()
    assert file.save({0: shown("x")}).problem == ""
    assert texts(path) == ["x"]


def test_an_id_of_the_wrong_type_breaks_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook({**code("a"), "id": [1]}))
    file = NotebookFile.load(path)
    write(path, notebook({**code("a"), "id": {}}))
    assert file.save({0: shown("x")}).homeless == 1


# -- a run that a later daemon goes on with --------------------------------------------------------------------


def test_cells_come_back_to_their_places_after_somebody_moved_them(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0"), code("b", "c1"), code("c", "c2")))
    keys = NotebookFile.load(path).cell_keys()
    write(path, notebook(code("new", "n"), code("c", "c2"), code("a", "c0")))
    file = NotebookFile.load(path)
    file.restore_order(keys)
    assert [cell_source(cell) for cell in file.cells] == ["a", "", "c"]
    report = file.save({0: shown("A"), 1: shown("B"), 2: shown("C")})
    assert (report.homeless, texts(path)) == (1, ["", "C", "A"])


def test_a_notebook_that_nobody_touched_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", notebook(code("a"), code("a"), minor=4))
    file = NotebookFile.load(path)
    file.restore_order(file.cell_keys())
    assert file.save({1: shown("A")}).merged is False
    assert texts(path) == ["", "A"]


# -- the form --------------------------------------------------------------------------------------------------

FULL = notebook(
    {"cell_type": "markdown", "id": "m", "source": "# T\n![x](attachment:a)", "metadata": {},
     "attachments": {"a": {"image/png": "aGk=\n", "text/plain": "l1\nl2"}}},
    {"cell_type": "raw", "id": "r", "source": "", "metadata": {}},
    code(
        "x = 1\nx\u2028y",
        "c",
        execution_count=2,
        outputs=[
            {"output_type": "stream", "name": "stdout", "text": "a\nb\r\nc\u0085"},
            {"output_type": "display_data", "metadata": {"image/png": {"width": 1}},
             "data": {"image/png": "aGk=\naGk=\n", "text/html": "<b>\n</b>", "application/json": {"a": ["x\ny"]},
                      "image/svg+xml": "<svg>\n</svg>", "application/vnd.x+json": "l1\nl2",
                      "application/javascript": "a\nb", "application/pdf": "l1\nl2"}},
            {"output_type": "execute_result", "execution_count": 2, "metadata": {},
             "data": {"text/plain": ["1\n", "2"]}},
            {"output_type": "error", "ename": "E", "evalue": "v\nw", "traceback": ["a\nb", "\x1b[0m"]},
        ],
    ),
)  # fmt: skip


def test_what_is_written_is_what_nbformat_writes() -> None:
    ours = b"".join(notebook_pieces(json.loads(json.dumps(FULL)))).decode()
    theirs = nbformat.writes(nbformat.reads(json.dumps(FULL), as_version=4)) + "\n"
    assert ours == theirs


def test_what_is_written_is_valid() -> None:
    nbformat.validate(nbformat.reads(b"".join(notebook_pieces(FULL)).decode(), as_version=4))


lines = st.text(alphabet=st.sampled_from("ab\n\r\u2028\u0085é\x1b"), max_size=12)
bundle = st.dictionaries(
    st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml", "application/javascript"]), lines
)
outputs = st.one_of(
    st.builds(lambda name, text: {"output_type": "stream", "name": name, "text": text},
              st.sampled_from(["stdout", "stderr"]), lines),
    st.builds(lambda data: {"output_type": "display_data", "data": data, "metadata": {}}, bundle),
    st.builds(lambda e, v, t: {"output_type": "error", "ename": e, "evalue": v, "traceback": t},
              lines, lines, st.lists(lines, max_size=3)),
)  # fmt: skip


@given(st.lists(st.tuples(lines, st.lists(outputs, max_size=3)), max_size=3), st.sampled_from([3, PIECE_CHARACTERS]))
def test_any_outputs_are_written_as_nbformat_writes_them(
    found: list[tuple[str, list[dict[str, Any]]]], piece: int
) -> None:
    cells = [code(source, f"c{n}", outputs=shown_) for n, (source, shown_) in enumerate(found)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook_json, "PIECE_CHARACTERS", piece)
        ours = b"".join(notebook_pieces(json.loads(json.dumps(notebook(*cells))))).decode()
    theirs = nbformat.reads(json.dumps(notebook(*cells)), as_version=4)
    nbformat.validate(theirs)
    assert ours == nbformat.writes(theirs) + "\n"


def test_half_of_a_character_can_be_written() -> None:
    half = notebook(code("a", "c0", outputs=[{"output_type": "stream", "name": "stdout", "text": "\ud800"}]))
    assert json.loads(b"".join(notebook_pieces(half)))["cells"][0]["outputs"][0]["text"] == ["\ud800"]


def test_a_deeply_nested_output_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    path = write(tmp_path / "n.ipynb", notebook(code("a", "c0"), code("b", "c1")))
    nested = CellResult(outputs=[{"output_type": "display_data", "data": {"application/json": deep}, "metadata": {}}])
    report = NotebookFile.load(path).save({0: shown("A"), 1: nested})
    assert report.problem == ""
    assert texts(path) == ["A", "[an output that is nested too deeply for a file]\n"]
