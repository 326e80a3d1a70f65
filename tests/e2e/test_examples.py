"""What README and tutorial promise of the examples, through the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import nbformat
import pytest

from cli_support import SRC, Desk, desk_in

EXAMPLES = SRC.parent / "examples"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("examples")
    with desk_in(folder) as made:
        shutil.copytree(EXAMPLES, made.project / "examples", ignore=shutil.ignore_patterns("outputs"))
        yield made


def test_the_demo_fills_the_notebook_and_says_where_the_plot_is(desk: Desk) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    done = desk.run("run", "examples/sales/analysis.ipynb", timeout_s=110)
    assert done.returncode == 0, done.stderr
    assert "plot: examples/sales/outputs/plot.png" in done.stderr
    assert "[6/6]" in done.stderr
    written = desk.project / "examples" / "sales"
    assert (written / "outputs" / "plot.png").read_bytes().startswith(b"\x89PNG")
    notebook = nbformat.read(written / "analysis.ipynb", as_version=4)
    nbformat.validate(notebook)
    found = {mime for cell in notebook.cells for out in cell.get("outputs", []) for mime in out.get("data", {})}
    assert {"image/png", "text/html"} <= found
    assert "R² on the held-out months" in str(notebook.cells)


def test_the_script_gets_its_arguments_and_gives_its_exit_status(desk: Desk) -> None:
    script = "examples/scripts/estimate_pi.py"
    done = desk.run("run", script, "--points", "2000", "--tolerance", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pi is about 3.")
    assert "100 %" in done.stderr
    assert desk.run("run", script, "--points", "10", "--tolerance", "0").returncode == 1


def test_the_parameters_of_the_notebook_can_be_given(desk: Desk) -> None:
    given = ["--param", "rate=0.5", "--param", "years=2", "-o", "out.ipynb"]
    done = desk.run("run", "examples/scripts/interest.ipynb", *given)
    assert done.returncode == 0, done.stderr
    last = nbformat.read(desk.project / "out.ipynb", as_version=4).cells[-1]
    assert last.outputs[0].data["text/plain"] == "2250.0"


def test_the_python_program_of_the_documents_runs(desk: Desk) -> None:
    done = subprocess.run(
        [sys.executable, "examples/scripts/python_api.py"],
        cwd=desk.project,
        env=desk.environ,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "value: 42",
        "printed: ['line 0', 'line 1', 'line 2']",
        "error: ZeroDivisionError",
    ]
