"""The programs that people run: nbclient, jupyter execute, papermill, jupyter console."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from frontends_support import KERNEL, WAIT_S, Bridge, bridge, eventually

__all__ = ["bridge"]

pytestmark = pytest.mark.ecosystem


def notebook(*cells: str) -> nbformat.NotebookNode:
    return new_notebook(cells=[new_code_cell(cell) for cell in cells])


def client(bridge: Bridge, *cells: str, **options: object) -> NotebookClient:
    resources = {"metadata": {"path": str(bridge.project)}}
    return NotebookClient(notebook(*cells), kernel_name=KERNEL, timeout=60, resources=resources, **options)


def run(bridge: Bridge, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=bridge.project, capture_output=True, text=True, timeout=90, check=False
    )


def write(path: Path, *cells: str, tags: dict[int, str] | None = None) -> None:
    content = notebook(*cells)
    for index, tag in (tags or {}).items():
        content.cells[index].metadata["tags"] = [tag]
    content.metadata["kernelspec"] = {"name": KERNEL, "display_name": "x", "language": "python"}
    nbformat.write(content, path)


def test_nbclient_runs_a_notebook_and_leaves_no_kernel(bridge: Bridge) -> None:
    done = client(bridge, "x = 6", "print(x)", "x * 7").execute()
    assert done.cells[1].outputs[0].text == "6\n"
    assert done.cells[2].outputs[0].data["text/plain"] == "42"
    assert [cell.execution_count for cell in done.cells] == [1, 2, 3]
    eventually(lambda: not bridge.kernels(), "no kernel is left", timeout_s=5)


def test_nbclient_stores_the_state_of_widgets(bridge: Bridge) -> None:
    pytest.importorskip("ipywidgets")
    done = client(bridge, "import ipywidgets\nipywidgets.IntSlider(value=7)").execute()
    states = done.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"].values()
    assert [s["state"]["value"] for s in states if s["model_name"] == "IntSliderModel"] == [7]


def test_nbclient_reports_an_error_of_a_cell(bridge: Bridge) -> None:
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        client(bridge, "1 / 0").execute()


def test_nbclient_stops_a_cell_that_takes_too_long(bridge: Bridge) -> None:
    slow = client(bridge, "import time; time.sleep(60)", interrupt_on_timeout=False)
    slow.timeout = 2
    with pytest.raises(CellTimeoutError):
        slow.execute()


def test_nbclient_sees_that_the_kernel_has_died(bridge: Bridge) -> None:
    with pytest.raises(DeadKernelError):
        client(bridge, "import os; os._exit(1)").execute()


def test_jupyter_execute_runs_a_notebook_in_place(bridge: Bridge) -> None:
    path = bridge.project / "execute.ipynb"
    write(path, "print('executed')")
    done = run(bridge, "jupyter", "execute", "--inplace", str(path))
    assert done.returncode == 0, done.stderr
    assert nbformat.read(path, 4).cells[0].outputs[0].text == "executed\n"


def test_papermill_passes_parameters(bridge: Bridge) -> None:
    pytest.importorskip("papermill")
    write(bridge.project / "in.ipynb", "n = 1", "print(n * 6)", tags={0: "parameters"})
    done = run(bridge, "papermill", "in.ipynb", "out.ipynb", "-k", KERNEL, "-p", "n", "7", "--no-progress-bar")
    assert done.returncode == 0, done.stderr
    assert nbformat.read(bridge.project / "out.ipynb", 4).cells[-1].outputs[0].text == "42\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a POSIX terminal")
def test_jupyter_console_prints_asks_and_is_interrupted(bridge: Bridge) -> None:
    pexpect = pytest.importorskip("pexpect")
    pytest.importorskip("jupyter_console")
    arguments = ["-m", "jupyter_console", "--simple-prompt", "--kernel", KERNEL]
    console = pexpect.spawn(sys.executable, arguments, cwd=str(bridge.project), encoding="utf-8", timeout=WAIT_S)
    try:
        console.expect(r"In \[1\]:", timeout=60)
        console.sendline("print('con' + 'sole')")
        console.expect("console")
        console.expect(r"In \[2\]:")
        console.sendline("name = input('Who? ')")
        console.expect(r"Who\? ")
        console.sendline("Ada")
        console.expect(r"In \[3\]:")
        console.sendline("print('slee' + 'ping', flush=True); import time; time.sleep(60)")
        console.expect("sleeping")
        console.sendintr()
        console.expect("KeyboardInterrupt")
        console.expect(r"In \[4\]:")
        console.sendline("print(name * 2)")
        console.expect("AdaAda")
        console.expect(r"In \[5\]:")
        console.sendline("exit()")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)
    eventually(lambda: not bridge.kernels(), "no kernel is left", timeout_s=5)
