"""The Python API against the real daemon: from a script, in a running event loop, and in a notebook cell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from colab_bridge import LocalColab, LocalColabEngine, LocalColabNotebook, UniversalColabBridge
from colab_bridge.bridge.results import ExecutionFailed
from colab_bridge.errors import ConflictError, RuntimeLostError, UserError
from colab_bridge.wire.events import strip_ansi
from daemon_home import DaemonHome, eventually
from notebook_files import errors, printed, read, write

PNG = (
    "import base64\nfrom IPython.display import Image, display\n"
    "display(Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYPj/HwADAgH/"
    "p2Q0TwAAAABJRU5ErkJggg=='), format='png'))"
)


@pytest.fixture
def home(shared_home: DaemonHome, monkeypatch: pytest.MonkeyPatch) -> DaemonHome:
    monkeypatch.chdir(shared_home.project)
    return shared_home


def sessions(home: DaemonHome) -> list[str]:
    return [session["name"] for session in home.client().get("/v1/sessions")["sessions"]]


def test_local_colab_has_a_session_for_the_length_of_its_block(home: DaemonHome) -> None:
    with LocalColab() as colab:
        name = colab.session
        assert name in sessions(home)
        assert colab.run("x = 6\nx * 7").value == "42"
        assert colab.run("print(x)").stdout == "6\n"
    assert name not in sessions(home)
    assert colab.session is None


def test_local_colab_raises_what_the_code_raises_with_its_traceback(home: DaemonHome) -> None:
    with LocalColab() as colab:
        with pytest.raises(ExecutionFailed) as caught:
            colab.run("print('before')\nraise ValueError('bad')")
        assert "ValueError" in str(caught.value)
        result = colab.run("1/0", check=False)
        assert (result.ok, result.status, result.exit_code) == (False, "error", 1)
        assert result.error is not None
        assert result.error.ename == "ZeroDivisionError"
        assert "1/0" in strip_ansi("".join(result.error.traceback))


def test_local_colab_gives_images_and_times(home: DaemonHome) -> None:
    with LocalColab() as colab:
        result = colab.run(PNG)
        (image,) = result.images()
        assert image.startswith(b"\x89PNG")
        assert colab.run("import time; time.sleep(0.3)").duration_s >= 0.3


def test_local_colab_runs_a_script_with_its_arguments(home: DaemonHome) -> None:
    (home.project / "s.py").write_text("import sys; print(sys.argv[1:]); sys.exit(int(sys.argv[1]))")
    with LocalColab() as colab:
        assert colab.run_script("s.py", "0", "b").stdout == "['0', 'b']\n"
        assert colab.run_script("s.py", "4", check=False).exit_code == 4
        with pytest.raises(ExecutionFailed):
            colab.run_script("s.py", "4")


def test_an_isolated_runtime_has_a_folder_of_its_own_that_is_kept_in_step(home: DaemonHome) -> None:
    (home.project / "here.txt").write_text("x")
    with LocalColab(isolated=True) as colab:
        there = colab.run("import os; print(open('here.txt').read(), os.getcwd())").stdout.split()
        colab.run("open('there.txt', 'w').write('y')")
        assert (home.project / "there.txt").read_text() == "y"
    assert there[0] == "x"
    assert there[1] != str(home.project)


def test_local_colab_answers_input(home: DaemonHome) -> None:
    with LocalColab(answer_input=lambda prompt: f"answer to {prompt}") as colab:
        assert colab.run("print(input('q'))").stdout.endswith("answer to q\n")


def test_local_colab_without_an_answer_lets_input_raise(home: DaemonHome) -> None:
    with LocalColab() as colab:
        result = colab.run("input('q')", check=False)
        assert result.error is not None
        assert result.error.ename == "StdinNotImplementedError"


def test_local_colab_shows_progress_as_it_happens(home: DaemonHome) -> None:
    seen: list[str] = []
    with LocalColab(on_event=lambda event: seen.append(event["type"])) as colab:
        colab.run("print(1)")
    assert (seen[0], seen[-1]) == ("started", "finished")
    assert "stream" in seen


def test_local_colab_can_be_interrupted_from_another_thread_and_restarted(home: DaemonHome) -> None:
    begun = threading.Event()
    with LocalColab(on_event=lambda event: begun.set() if event["type"] == "stream" else None) as colab:
        stopper = threading.Thread(target=lambda: (begun.wait(10), colab.interrupt()))
        stopper.start()
        result = colab.run("kept = 1\nprint('up', flush=True)\nwhile True: pass", check=False)
        stopper.join()
        assert (result.status, colab.run("kept").value) == ("interrupted", "1")
        colab.restart()
        assert colab.run("'kept' in globals()").value == "False"


def test_a_lost_kernel_is_an_error_of_its_own_kind(home: DaemonHome) -> None:
    with LocalColab() as colab:
        with pytest.raises(RuntimeLostError):
            colab.run("import os; os._exit(1)")
        assert colab.run("1 + 1").value == "2"


def test_a_session_that_is_kept_outlives_the_block(home: DaemonHome) -> None:
    with LocalColab("kept-one", keep=True) as colab:
        colab.run("x = 3")
    assert "kept-one" in sessions(home)
    home.client().delete("/v1/sessions/kept-one")


def test_a_notebook_runs_cell_by_cell_and_whole(home: DaemonHome) -> None:
    path = write(home.project / "face.ipynb", "x = 2", "print(x + 1)", "1/0")
    notebook = LocalColabNotebook(path)
    try:
        assert notebook.run_cell(0).ok
        assert notebook.run_cell(1).stdout == "3\n"
        assert printed(notebook.cells[1]) == "3\n"
        assert notebook.run_cell(-1).status == "error"
        result = notebook.run_all()
        assert (result.status, errors(read(path)[2])) == ("error", ["ZeroDivisionError"])
        with pytest.raises(ExecutionFailed):
            notebook.run_all(check=True)
    finally:
        notebook.close()


def test_a_notebook_s_edited_cells_are_saved_and_run(home: DaemonHome) -> None:
    notebook = LocalColabNotebook(write(home.project / "edit.ipynb", "print('old')"))
    notebook.cells[0]["source"] = "print('new')"
    notebook.save()
    assert notebook.run_all().stdout == "new\n"
    notebook.restart_kernel()
    notebook.close()


def test_a_notebook_s_kernel_can_be_interrupted_from_another_thread(home: DaemonHome) -> None:
    path = write(home.project / "stop.ipynb", "print('up', flush=True)\nwhile True: pass")
    notebook = LocalColabNotebook(path)

    def stop() -> None:
        eventually(lambda: printed(read(path)[0]), "the cell prints")
        notebook.interrupt_kernel()

    stopper = threading.Thread(target=stop)
    stopper.start()
    assert notebook.run_all().status == "interrupted"
    stopper.join()
    notebook.close()


def test_a_notebook_that_is_none_is_a_user_error(home: DaemonHome) -> None:
    (home.project / "none.ipynb").write_text("[]")
    for name in ("missing.ipynb", "none.ipynb"):
        with pytest.raises(UserError) as caught:
            LocalColabNotebook(home.project / name)
        assert caught.value.hint


def test_the_engine_makes_loads_and_runs_notebooks(home: DaemonHome) -> None:
    engine = LocalColabEngine()
    notebook = engine.create_notebook("made.ipynb", ["a = 5", "print(a)"])
    assert notebook.run_all().stdout == "5\n"
    assert printed(engine.load_notebook("made.ipynb").cells[1]) == "5\n"
    with pytest.raises(ConflictError, match="exists"):
        engine.create_notebook("made.ipynb")
    assert engine.execute_cell("2 + 2").value == "4"
    notebook.close()


def test_the_universal_bridge_initializes_and_executes(home: DaemonHome) -> None:
    bridge = UniversalColabBridge()
    assert bridge.initialize()["project"] == str(home.project)
    bridge.execute_code("u = 1")
    assert bridge.execute_code("u + 1").text == "2\n"


async def test_the_faces_work_inside_a_running_event_loop(home: DaemonHome) -> None:
    assert asyncio.get_running_loop().is_running()
    assert UniversalColabBridge().execute_code("3 * 3").value == "9"
    assert (await asyncio.to_thread(UniversalColabBridge().execute_code, "4 * 4")).value == "16"


def test_the_faces_work_in_a_plain_script(home: DaemonHome) -> None:
    source = "from colab_bridge import LocalColab\nwith LocalColab() as c:\n    print(c.run('5 * 5').value)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=home.project,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "25\n", "")


def test_the_faces_work_in_a_cell_of_a_notebook_that_we_run(home: DaemonHome) -> None:
    path: Path = write(
        home.project / "outer.ipynb",
        "from colab_bridge import UniversalColabBridge\nbridge = UniversalColabBridge()\nbridge.initialize()['name']",
        "print(bridge.execute_code('inner = 6 * 6; inner').value)",
        "import asyncio\nprint(asyncio.get_running_loop().is_running(), bridge.execute_code('inner + 1').value)",
    )
    seen = home.notebook(path)
    assert seen.status == "ok", seen.finished
    assert [printed(cell) for cell in read(path)[1:]] == ["36\n", "True 37\n"]


def test_a_face_survives_a_daemon_that_is_killed_between_two_calls(daemon_home: DaemonHome) -> None:
    bridge = UniversalColabBridge(daemon_home.project)
    bridge.execute_code("kept = 8")
    daemon_home.kill_daemon()
    assert bridge.execute_code("kept").value == "8"
