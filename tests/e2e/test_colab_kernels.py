"""Kernels of Colab in front ends, and files of their user: as whole processes, on emulated machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from cli_support import Desk
from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_desk import desk_on
from frontends_support import FrontEnd, text_of

SPECS = {f"colab-bridge-{name}" for name in ("local", "cpu", "t4", "l4", "a100", "tpu", "colab")}
START_S = 60.0
Start = Callable[..., FrontEnd]


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A user with kernelspecs of Colab, whose environment is that of this process too."""
    with pytest.MonkeyPatch.context() as patch, desk_on(colab, tmp_path_factory) as found:
        for name in [name for name in os.environ if name.startswith(("COLAB_BRIDGE_", "JPY_", "VSCODE_"))]:
            patch.delenv(name)
        for name, value in found.environ.items():
            patch.setenv(name, value)
        for key, value in {"provider": "colab", "gpu": "T4", "wait_s": "600"}.items():
            found.out("config", "set", f"runtimes.patient.{key}", value)
        found.out("kernels", "install")
        yield found


@pytest.fixture
def start(desk: Desk) -> Iterator[Start]:
    """Start front ends; they and what they hold end with the test."""
    started: list[FrontEnd] = []

    def start_one(kernel: str) -> FrontEnd:
        started.append(FrontEnd(desk.project, kernel))
        return started[-1]

    yield start_one
    for front_end in started:
        front_end.close()
    desk.out("stop", "--all", "--yes")


def given(colab: ThreadedEmulator) -> list[str | None]:
    return [runtime.ask.accelerator for runtime in colab.state.runtimes.values()]


def requested(colab: ThreadedEmulator) -> bool:
    return any(record.path == "/tun/m/assign" for record in colab.requests)


def test_kernels_are_installed_for_each_machine_and_each_runtime(desk: Desk) -> None:
    found = desk.document("kernels", "list")["kernelspecs"]
    assert {spec["name"] for spec in found} == SPECS | {"colab-bridge-patient"}


def test_a_kernel_gets_its_machine_at_the_first_cell_and_says_so(
    desk: Desk, colab: ThreadedEmulator, start: Start
) -> None:
    front_end = start("colab-bridge-t4")
    assert "the machine is started when you run the first cell" in front_end.content(
        "shell", "kernel_info_request", {}
    ).get("banner", "")
    assert not requested(colab)
    seen = front_end.run("print('on', 6 * 7)", START_S)
    assert text_of(seen) == "on 42\n"
    assert "account dev@example.com" in text_of(seen, "stderr")
    assert "Colab gave T4" in text_of(seen, "stderr")
    assert given(colab) == ["T4"]


def test_nbclient_runs_a_notebook_on_a_machine_of_colab(desk: Desk, colab: ThreadedEmulator, start: Start) -> None:
    desk.write("helper.py", "ANSWER = 42")
    cells = ["import helper, os\nprint(helper.ANSWER, os.getcwd())", "open('made.txt', 'w').write('here')"]
    book = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(desk.project)}}
    done = NotebookClient(book, kernel_name="colab-bridge-t4", timeout=START_S, resources=resources).execute()
    said = {output["name"]: output["text"] for output in done.cells[0].outputs}
    assert said["stdout"] == "42 /content/workspace\n"
    assert (desk.project / "made.txt").read_text() == "here"
    nbformat.validate(done)


def test_an_interrupt_gives_up_the_wait_for_a_machine(desk: Desk, colab: ThreadedEmulator, start: Start) -> None:
    colab.state.capacity["T4"] = 0
    try:
        front_end = start("colab-bridge-patient")
        request = front_end.client.execute("print(1)")
        front_end.published(lambda m: "free" in str(m["content"].get("text", "")), START_S)
        front_end.manager.interrupt_kernel()
        assert front_end.reply(request, timeout_s=START_S)["content"]["status"] == "error"
    finally:
        colab.state.capacity.pop("T4")
    assert given(colab) == []
    assert text_of(front_end.run("print(2)", START_S)) == "2\n"


def test_the_kernel_that_asks_gets_the_machine_that_is_answered(
    desk: Desk, colab: ThreadedEmulator, start: Start
) -> None:
    front_end = start("colab-bridge-colab")
    request = front_end.client.execute("print('here')", allow_stdin=True)
    question = front_end.client.get_stdin_msg(timeout=START_S)
    assert "Which machine?" in question["content"]["prompt"]
    front_end.client.input("L4")
    assert front_end.reply(request, timeout_s=START_S)["content"]["status"] == "ok"
    assert given(colab) == ["L4"]


UPLOAD = "from google.colab import files\nfor name, data in files.upload().items():\n    print(name, data)"


def test_a_kernel_asks_its_front_end_which_files_to_upload(desk: Desk, start: Start) -> None:
    desk.write("more/notes.txt", "from here")
    front_end = start("colab-bridge-t4")
    request = front_end.client.execute(UPLOAD, allow_stdin=True)
    question = front_end.client.get_stdin_msg(timeout=START_S)
    assert "Files to upload from this machine" in question["content"]["prompt"]
    front_end.client.input("more/notes.txt")
    front_end.reply(request, timeout_s=START_S)
    assert "notes.txt b'from here'\n" in text_of(front_end.outputs(request))


def test_a_script_asks_at_the_terminal_which_files_to_upload(desk: Desk) -> None:
    desk.write("one.txt", "first")
    desk.write("two.txt", "second")
    done = desk.run("exec", "--gpu", "T4", UPLOAD, stdin="missing.txt\none.txt; two.txt\n", timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    assert "missing.txt is no file that can be read" in done.stderr
    assert "b'first'" in done.stdout
    assert "b'second'" in done.stdout
    desk.out("stop", "--all", "--yes")
