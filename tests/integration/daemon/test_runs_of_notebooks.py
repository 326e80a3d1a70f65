"""Notebook runs through the real daemon: what ends up in the file, while the run goes on and afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colab_bridge.errors import ConflictError, UserError
from daemon_home import DaemonHome, eventually
from notebook_files import Cell, code, errors, printed, read, write

PRINTING = "import time\nfor n in range({count}):\n    print(n, flush=True)\n    time.sleep({pause})"


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


@pytest.fixture
def path(home: DaemonHome, request: pytest.FixtureRequest) -> Path:
    return home.project / f"{request.node.name[5:65]}.ipynb"


def numbers(count: int) -> str:
    return "".join(f"{n}\n" for n in range(count))


def by_id(path: Path) -> dict[str, Cell]:
    return {cell["id"]: cell for cell in read(path)}


def test_the_outputs_of_every_cell_are_in_the_file(home: DaemonHome, path: Path) -> None:
    write(path, "x = 20\nprint('set')", "x * 2", "")
    seen = home.notebook(path)
    first, second, third = read(path)
    assert seen.status == "ok"
    assert (printed(first), first["execution_count"]) == ("set\n", 1)
    assert second["outputs"][0]["data"]["text/plain"] == "40"
    assert third["outputs"] == []


def test_the_events_tell_of_each_cell_and_of_the_file_written(home: DaemonHome, path: Path) -> None:
    write(path, "1", {"cell_type": "markdown", "metadata": {}, "source": "# two"}, "2")
    seen = home.notebook(path)
    assert [(e["index"], e["total"], e["line"]) for e in seen.of("cell_started")] == [(1, 2, "1"), (2, 2, "2")]
    assert [e["status"] for e in seen.of("cell_finished")] == ["ok", "ok"]
    assert str(path) in seen.finished["outputs"]


def test_a_file_that_the_notebook_made_is_reported(home: DaemonHome, path: Path) -> None:
    write(path, "open('made_here.txt', 'w').write('x')")
    assert str(path.parent / "made_here.txt") in home.notebook(path).finished["outputs"]


def test_the_file_changes_while_the_cell_still_prints(home: DaemonHome, path: Path) -> None:
    write(path, PRINTING.format(count=60, pause=0.1))
    run = home.start_notebook(path)
    early = eventually(lambda: printed(read(path)[0]), "first lines in the file", 5)
    later = eventually(lambda: (now := printed(read(path)[0])) != early and now, "more lines in the file", 6)
    assert home.view(run["id"])["status"] == "running"
    assert numbers(60).startswith(later)
    home.client().post(f"/v1/runs/{run['id']}/interrupt")
    home.follow(run["id"])


def test_a_copy_leaves_the_notebook_itself_alone(home: DaemonHome, path: Path) -> None:
    write(path, "print('in the copy')")
    before, target = path.read_bytes(), path.with_name("copy.ipynb")
    seen = home.notebook(path, output_path=str(target))
    assert path.read_bytes() == before
    assert printed(read(target)[0]) == "in the copy\n"
    assert str(target) in seen.finished["outputs"]


def test_parameters_go_into_a_cell_after_the_tagged_one(home: DaemonHome, path: Path) -> None:
    write(path, code("n = 1\nname = 'a'", "parameters"), "print(n, name)")
    home.notebook(path, parameters={"n": 7, "name": 'it\'s "b"'})
    cells = read(path)
    assert cells[1]["metadata"]["tags"] == ["injected-parameters"]
    assert printed(cells[2]) == '7 it\'s "b"\n'


def test_parameters_of_a_second_run_replace_those_of_the_first(home: DaemonHome, path: Path) -> None:
    write(path, code("n = 1", "parameters"), "print(n)")
    home.notebook(path, parameters={"n": 2})
    home.notebook(path, parameters={"n": 3})
    cells = read(path)
    assert (len(cells), printed(cells[2])) == (3, "3\n")


def test_a_run_stops_at_the_first_cell_that_fails(home: DaemonHome, path: Path) -> None:
    write(path, "print('one')", "1/0", "print('three')")
    seen = home.notebook(path)
    one, two, three = read(path)
    assert (seen.status, seen.finished["exit_code"]) == ("error", 1)
    assert (printed(one), errors(two), three["outputs"]) == ("one\n", ["ZeroDivisionError"], [])
    assert three["execution_count"] is None


def test_keep_going_runs_the_rest_and_still_ends_with_an_error(home: DaemonHome, path: Path) -> None:
    write(path, "1/0", "print('two')", "[][0]")
    seen = home.notebook(path, keep_going=True)
    assert (seen.status, seen.finished["error"]["ename"]) == ("error", "ZeroDivisionError")
    assert printed(read(path)[1]) == "two\n"
    assert errors(read(path)[2]) == ["IndexError"]


def test_resume_goes_on_at_the_failed_cell_with_the_variables_of_the_first_run(home: DaemonHome, path: Path) -> None:
    write(path, "x = 1\nprint('ran')", "print(x)\nassert fixed", "print('end')")
    home.notebook(path)
    home.notebook(path, resume=True)
    assert errors(read(path)[1]) == ["NameError"]
    content = json.loads(path.read_bytes())
    content["cells"][1]["source"] = "print(x + 1)"
    path.write_text(json.dumps(content))
    seen = home.notebook(path, resume=True)
    first, second, third = read(path)
    assert [event["cell_id"] for event in seen.of("cell_started")] == ["c1", "c2"]
    assert (first["execution_count"], printed(second), printed(third)) == (1, "2\n", "end\n")


def test_resume_of_a_notebook_that_is_done_runs_nothing(home: DaemonHome, path: Path) -> None:
    write(path, "1")
    home.notebook(path)
    seen = home.notebook(path, resume=True)
    assert (seen.of("cell_started"), seen.status) == ([], "ok")


def test_resume_says_when_the_variables_are_gone(home: DaemonHome, path: Path) -> None:
    write(path, "x = 1", "1/0")
    first = home.notebook(path)
    home.client().delete(f"/v1/kernels/{first.kernel}")
    assert "variables" in home.notebook(path, resume=True).notices


def test_a_cell_tagged_raises_exception_may_fail(home: DaemonHome, path: Path) -> None:
    write(path, code("1/0", "raises-exception"), "print('after')")
    seen = home.notebook(path)
    first, second = read(path)
    assert (seen.status, seen.finished["exit_code"]) == ("ok", 0)
    assert (errors(first), printed(second)) == (["ZeroDivisionError"], "after\n")


def test_a_cell_tagged_skip_execution_is_left_alone(home: DaemonHome, path: Path) -> None:
    write(path, code("print('never')", "skip-execution"), "print('ran')")
    seen = home.notebook(path)
    first, second = read(path)
    assert (first["outputs"], first["execution_count"], printed(second)) == ([], None, "ran\n")
    assert len(seen.of("cell_started")) == 1


def test_one_cell_alone_runs_on_the_kernel_of_the_run_before(home: DaemonHome, path: Path) -> None:
    write(path, "x = 5", "print(x)")
    home.notebook(path, keep_kernel=True)
    write(path, "x = 5", "print(x + 1)")
    home.notebook(path, cells=[1], keep_kernel=True)
    assert printed(read(path)[1]) == "6\n"


def test_a_display_that_a_later_cell_updates_changes_where_it_was_shown(home: DaemonHome, path: Path) -> None:
    write(path, "h = display('old', display_id='d')", "h.update('new')")
    home.notebook(path)
    first, second = read(path)
    assert first["outputs"][0]["data"]["text/plain"] == "'new'"
    assert second["outputs"] == []


def test_clear_output_leaves_only_what_came_after(home: DaemonHome, path: Path) -> None:
    write(path, "from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')")
    home.notebook(path)
    assert printed(read(path)[0]) == "b\n"


def test_the_widgets_of_a_run_are_in_the_notebook_s_metadata(home: DaemonHome, path: Path) -> None:
    pytest.importorskip("ipywidgets")
    write(path, "import ipywidgets\nipywidgets.IntSlider(value=7)")
    home.notebook(path)
    states = json.loads(path.read_bytes())["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    assert any(model["state"].get("value") == 7 for model in states.values())


def test_a_notebook_may_ask_for_input(home: DaemonHome, path: Path) -> None:
    write(path, "print('you are', input('who? '))")
    request = home.request("notebook", notebook={"path": str(path)}, allow_stdin=True)
    run = home.client().post("/v1/runs", request)
    with home.client().stream("GET", f"/v1/runs/{run['id']}/events", after=0, follow=1) as stream:
        for event in stream:
            if event["type"] == "input_request":
                home.client().post(f"/v1/runs/{run['id']}/input", {"value": "Ada"})
    assert printed(read(path)[0]).endswith("you are Ada\n")


# -- somebody else writes to the file --------------------------------------------------------------------------


def edited(path: Path, *cells: Cell) -> None:
    content = json.loads(path.read_bytes())
    content["cells"] = list(cells)
    path.write_text(json.dumps(content, indent=1))


def test_a_cell_added_on_disk_while_running_stays_and_outputs_go_to_their_own_cells(
    home: DaemonHome, path: Path
) -> None:
    write(path, "print('first', flush=True)", PRINTING.format(count=15, pause=0.1))
    run = home.start_notebook(path)
    home.until_text(run["id"], "2\n")
    cells = json.loads(path.read_bytes())["cells"]
    edited(path, code("# mine", cell_id="new"), *cells)
    seen = home.follow(run["id"])
    found = by_id(path)
    assert [cell["id"] for cell in read(path)] == ["new", "c0", "c1"]
    assert (found["new"]["source"], found["new"]["outputs"]) == ("# mine", [])
    assert (printed(found["c0"]), printed(found["c1"])) == ("first\n", numbers(15))
    assert "changed by another program" in seen.notices


def test_an_edit_of_a_cell_on_disk_while_running_is_kept(home: DaemonHome, path: Path) -> None:
    write(path, PRINTING.format(count=15, pause=0.1), "print('as planned')")
    run = home.start_notebook(path)
    home.until_text(run["id"], "2\n")
    first, second = json.loads(path.read_bytes())["cells"]
    edited(path, first, {**second, "source": "print('edited')"})
    home.follow(run["id"])
    first, second = read(path)
    assert printed(first) == numbers(15)
    assert second["source"] == "print('edited')"


def test_outputs_of_a_cell_removed_on_disk_while_running_stay_on_record(home: DaemonHome, path: Path) -> None:
    write(path, PRINTING.format(count=15, pause=0.1), "print('kept')")
    run = home.start_notebook(path)
    home.until_text(run["id"], "2\n")
    edited(path, json.loads(path.read_bytes())["cells"][1])
    seen = home.follow(run["id"])
    assert [printed(cell) for cell in read(path)] == ["kept\n"]
    assert "not in" in seen.notices
    assert run["id"] in seen.notices
    assert seen.text() == numbers(15) + "kept\n"


def test_a_notebook_that_becomes_unreadable_while_running_is_left_and_the_outputs_go_beside_it(
    home: DaemonHome, path: Path
) -> None:
    write(path, PRINTING.format(count=10, pause=0.1))
    run = home.start_notebook(path)
    home.until_text(run["id"], "2\n")
    path.write_text("<<<<<<< conflict")
    seen = home.follow(run["id"])
    (aside,) = [Path(name) for name in seen.finished["outputs"] if name.endswith(".ipynb") and Path(name) != path]
    assert path.read_text() == "<<<<<<< conflict"
    assert printed(read(aside)[0]) == numbers(10)
    assert str(aside) in seen.notices


def test_a_notebook_deleted_while_running_is_written_again(home: DaemonHome, path: Path) -> None:
    write(path, PRINTING.format(count=10, pause=0.1))
    run = home.start_notebook(path)
    home.until_text(run["id"], "2\n")
    path.unlink()
    home.follow(run["id"])
    assert printed(read(path)[0]) == numbers(10)


def test_a_notebook_that_runs_already_is_not_run_a_second_time(home: DaemonHome, path: Path) -> None:
    write(path, "import time; time.sleep(30)")
    run = home.start_notebook(path)
    with pytest.raises(ConflictError, match="is being run already") as caught:
        home.start_notebook(path)
    assert run["id"] in caught.value.hint
    home.client().post(f"/v1/runs/{run['id']}/kill", {"restart": False})
    home.follow(run["id"])


def test_outputs_can_be_written_again_from_the_record(home: DaemonHome, path: Path) -> None:
    write(path, "print('kept on record')")
    seen = home.notebook(path)
    target = path.with_name("again.ipynb")
    write(path, "print('kept on record')")
    home.client().post(f"/v1/runs/{seen.run_id}/save", {"path": str(target)})
    assert printed(read(target)[0]) == "kept on record\n"


# -- kernels that die ------------------------------------------------------------------------------------------


def test_a_kernel_that_dies_in_a_cell_ends_the_run_with_its_outputs_kept(home: DaemonHome, path: Path) -> None:
    dying = "import os, sys, time\nprint('last words')\nsys.stdout.flush(); time.sleep(0.5)\nos._exit(3)"
    write(path, "print('one')", dying, "print('never')")
    seen = home.notebook(path)
    one, two, three = read(path)
    assert (seen.status, seen.finished["exit_code"]) == ("lost", 69)
    assert (printed(one), printed(two), three["outputs"]) == ("one\n", "last words\n", [])


def test_a_kernel_that_dies_while_starting_ends_the_run_with_a_sentence(
    home: DaemonHome, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = home.folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "die.py").write_text("import os; os._exit(1)")
    try:
        write(path, "print(1)")
        seen = home.notebook(path)
    finally:
        (startup / "die.py").unlink()
    assert seen.status == "lost"
    assert "ended while it was starting" in seen.finished["error"]["evalue"]
    assert "Traceback" not in seen.finished["error"]["evalue"]


def test_after_a_kernel_died_the_main_kernel_is_replaced(home: DaemonHome) -> None:
    dead = home.code("import os; os._exit(1)")
    after = home.code("print('alive')")
    assert (dead.status, after.text()) == ("lost", "alive\n")


# -- what cannot be run ----------------------------------------------------------------------------------------


def refused(home: DaemonHome, path: Path, **members: object) -> UserError:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(UserError) as caught:
        home.start_notebook(path, **members)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value


def test_a_missing_notebook_is_a_user_error(home: DaemonHome, path: Path) -> None:
    assert str(path) in refused(home, path).message


def test_a_folder_is_no_notebook(home: DaemonHome, path: Path) -> None:
    path.mkdir()
    assert "folder" in refused(home, path).message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("{", "JSON"),
        ("[1]", "nbformat"),
        ('{"cells": []}', "nbformat"),
        ('{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}', "format 3"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": {"a": 1}}', "damaged"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [7]}', "damaged"),
        ('{"nbformat": 4, "nbformat_minor": 5, "metadata": 3, "cells": []}', "damaged"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_what_is_no_sound_notebook_is_refused_and_left_as_it_is(
    home: DaemonHome, path: Path, text: str, word: str
) -> None:
    file = home.project / "unsound.ipynb"
    file.write_text(text)
    assert word in refused(home, file).message


def test_a_kernelspec_that_does_not_exist_is_named_with_those_that_do(home: DaemonHome, path: Path) -> None:
    write(path, "1", kernel="no-such-kernel")
    error = refused(home, path)
    assert "no-such-kernel" in error.message
    assert "python3" in error.message


def test_a_kernelspec_of_another_machine_is_replaced_where_the_language_fits(home: DaemonHome, path: Path) -> None:
    write(path, "print('ok')", kernel="conda-env-elsewhere-py")
    content = json.loads(path.read_bytes())
    content["metadata"]["language_info"] = {"name": "python"}
    path.write_text(json.dumps(content))
    seen = home.notebook(path)
    assert (seen.status, printed(read(path)[0])) == ("ok", "ok\n")
    assert "conda-env-elsewhere-py" in seen.notices


def test_a_parameter_that_is_no_name_is_refused(home: DaemonHome, path: Path) -> None:
    write(path, "1")
    assert "a-b" in refused(home, path, parameters={"a-b": 1}).message
