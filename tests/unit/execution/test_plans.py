"""Which cells run, with which parameters, on which kernelspec; which files a run made; what a request may say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from pydantic import ValidationError

from colab_bridge.errors import UserError
from colab_bridge.execution import produced
from colab_bridge.execution.plan import inject_parameters, kernel_choice, plan_cells, resume_position
from colab_bridge.execution.produced import changed_files, snapshot
from colab_bridge.execution.request import RunRequest


def code(source: str = "1", *tags: str, count: int | None = None, failed: bool = False) -> dict[str, Any]:
    error = [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]
    return {
        "cell_type": "code",
        "source": source,
        "metadata": {"tags": list(tags)},
        "outputs": error if failed else [],
        "execution_count": count,
    }


TEXT: dict[str, Any] = {"cell_type": "markdown", "source": "t", "metadata": {}}


def notebook(*cells: dict[str, Any], minor: int = 5) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": minor}


def sources(content: dict[str, Any]) -> list[str]:
    return [cell["source"] for cell in content["cells"]]


def test_only_code_with_something_in_it_runs() -> None:
    assert plan_cells([TEXT, code("a"), code(" \n"), code("b", "skip-execution"), code("c")]) == [1, 4]


def test_cells_asked_for_are_taken_in_the_order_given_each_once() -> None:
    assert plan_cells([code(), TEXT, code(), code("")], only=[2, 0, 2, 3]) == [2, 0, 3]


@pytest.mark.parametrize("position", [-1, 1, 2])
def test_a_position_that_is_no_code_cell_is_refused(position: int) -> None:
    with pytest.raises(UserError, match="is no code cell"):
        plan_cells([code(), TEXT], only=[position])


@pytest.mark.parametrize(
    ("cells", "position"),
    [
        ([], 0),
        ([code(count=1), code(count=2)], 2),
        ([code(count=1), code()], 1),
        ([code(count=1), code(count=2, failed=True), code(count=3)], 1),
        ([code("x", "raises-exception", count=1, failed=True), code()], 1),
        ([code("x", "skip-execution"), TEXT, code("")], 3),
        ([{"cell_type": "code", "source": "x", "outputs": "damaged", "execution_count": 1}], 1),
    ],
)
def test_resuming_begins_at_the_first_cell_that_failed_or_did_not_run(cells: Any, position: int) -> None:
    assert resume_position(cells) == position
    assert plan_cells(cells, resume=True) == [n for n in plan_cells(cells) if n >= position]


def test_parameters_come_after_the_tagged_cell() -> None:
    content = notebook(code("a"), code("p = 1", "parameters"), code("b"))
    inject_parameters(content, {"p": 2, "name": "x'y\n", "none": None, "yes": True, "many": [1, {"a": 2.5}]})
    assert content["cells"][2]["metadata"] == {"tags": ["injected-parameters"]}
    namespace: dict[str, Any] = {}
    exec(sources(content)[2], namespace)
    assert [namespace[k] for k in ("p", "name", "none", "yes", "many")] == [2, "x'y\n", None, True, [1, {"a": 2.5}]]


def test_without_a_tagged_cell_they_come_first() -> None:
    content = notebook(TEXT, code("a"))
    inject_parameters(content, {"p": 2})
    assert sources(content) == ["# Parameters\np = 2", "t", "a"]


def test_earlier_parameters_are_replaced_where_they_are() -> None:
    content = notebook(code("p = 1", "parameters"), code("p = 5", "injected-parameters"), code("b"))
    inject_parameters(content, {"p": 2})
    assert sources(content) == ["p = 1", "# Parameters\np = 2", "b"]


def test_the_cell_with_the_parameters_is_the_same_at_each_reading() -> None:
    once, again = notebook(code("a")), notebook(code("a"))
    inject_parameters(once, {"p": 2})
    inject_parameters(again, {"p": 2})
    assert once == again


def test_a_foreign_cell_with_that_id_gets_no_twin() -> None:
    content = notebook({**code("a"), "id": "injected-parameters"})
    inject_parameters(content, {"p": 2})
    nbformat.validate(nbformat.from_dict(content))
    assert len({cell["id"] for cell in content["cells"]}) == 2


def test_cells_of_an_old_notebook_get_no_ids() -> None:
    content = notebook(code("a"), minor=4)
    inject_parameters(content, {"p": 2})
    assert "id" not in content["cells"][0]


def test_without_parameters_nothing_changes() -> None:
    content = notebook(code("a", "parameters"))
    inject_parameters(content, {})
    assert sources(content) == ["a"]


@pytest.mark.parametrize("name", ["a b", "1a", "", "a;b", "class", "a.b"])
def test_what_python_cannot_assign_to_is_no_parameter(name: str) -> None:
    with pytest.raises(UserError, match="no name for a parameter"):
        inject_parameters(notebook(), {name: 1})


SPECS = {"python3": "python", "ir": "R", "conda": "python"}


@pytest.mark.parametrize(
    ("metadata", "asked", "name", "said"),
    [
        ({}, None, "python3", False),
        ({"kernelspec": {"name": "ir"}}, None, "ir", False),
        ({"kernelspec": {"name": "ir"}}, "conda", "conda", False),
        ({"kernelspec": {"name": "colab-bridge-local"}}, None, "python3", False),
        ({"kernelspec": {"name": "gone"}, "language_info": {"name": "python"}}, None, "python3", True),
        ({"kernelspec": {"name": "gone"}, "language_info": {"name": "R"}}, None, "ir", True),
        ({"kernelspec": "damaged", "language_info": 5}, None, "python3", False),
    ],
)
def test_which_kernelspec_a_notebook_gets(metadata: Any, asked: str | None, name: str, said: bool) -> None:
    chosen, notice = kernel_choice(metadata, SPECS, "python3", asked)
    assert (chosen, bool(notice)) == (name, said)


@pytest.mark.parametrize(
    ("metadata", "asked"),
    [
        ({"kernelspec": {"name": "gone"}}, None),
        ({"kernelspec": {"name": "gone"}, "language_info": {"name": "julia"}}, None),
        ({"language_info": {"name": "python"}}, "gone"),
    ],
)
def test_a_kernelspec_that_does_not_exist_names_those_that_do(metadata: Any, asked: str | None) -> None:
    with pytest.raises(UserError, match=r"known: conda, ir, python3"):
        kernel_choice(metadata, SPECS, "python3", asked)


# -- files -----------------------------------------------------------------------------------------------------


def test_new_and_changed_files_are_named_and_nothing_else(tmp_path: Path) -> None:
    for name in ("same", "changed", "removed"):
        (tmp_path / name).write_text("1")
    before = snapshot(tmp_path)
    (tmp_path / "changed").write_text("22")
    (tmp_path / "removed").unlink()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "new").write_text("")
    for hidden in (".git", "__pycache__", "node_modules"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "x").write_text("")
    (tmp_path / ".hidden").write_text("")
    assert changed_files(before, snapshot(tmp_path)) == ["changed", os.path.join("sub", "new")]


def test_a_folder_that_is_too_large_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produced, "MAX_ENTRIES", 2)
    for n in range(3):
        (tmp_path / str(n)).write_text("")
    assert snapshot(tmp_path) is None
    assert changed_files(None, {}) == changed_files({}, None) == []


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_dangling_links_and_circles_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path)
    assert snapshot(tmp_path) == {}


# -- requests --------------------------------------------------------------------------------------------------

ROOT = os.path.abspath(os.sep)


def request(**members: Any) -> RunRequest:
    return RunRequest.model_validate({"kind": "code", "project": ROOT, "cwd": ROOT, **members})


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"code": "1", "project": "relative"},
        {"code": "1", "cwd": ROOT + "a\0b"},
        {"code": "1", "cwd": ROOT + "\ud800"},
        {"code": "1", "unknown": 1},
        {"kind": "script", "path": ROOT + "x"},
        {"kind": "module", "module": ""},
        {"kind": "command", "command": []},
        {"kind": "notebook"},
        {"kind": "notebook", "notebook": {"path": "x.ipynb"}},
        {"kind": "notebook", "notebook": {"path": ROOT + "x.ipynb", "output_path": "y.ipynb"}},
        {"kind": "nonsense", "code": "1"},
    ],
)
def test_a_request_without_its_parts_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        request(**members)


@pytest.mark.parametrize(
    ("members", "title"),
    [
        ({"code": "\n x = 1\ny"}, "x = 1"),
        ({"code": ""}, "(empty)"),
        ({"kind": "module", "module": "a.b"}, "-m a.b"),
        ({"kind": "command", "command": ["ls", "-l"]}, "ls -l"),
        ({"kind": "script", "path": "-", "source": ""}, "-"),
        ({"kind": "notebook", "notebook": {"path": ROOT + "x.ipynb"}}, ROOT + "x.ipynb"),
    ],
)
def test_a_run_has_one_line_for_people(members: dict[str, Any], title: str) -> None:
    assert request(**members).title() == title


def test_what_is_stored_makes_the_same_request_and_holds_no_secrets() -> None:
    asked = request(code="1", env={"COLAB_BRIDGE_X": "secret"}, options={"token": "secret"}, session="s")
    assert "secret" not in str(asked.stored())
    assert RunRequest.model_validate(asked.stored()) == asked.model_copy(update={"env": {}, "options": {}})
