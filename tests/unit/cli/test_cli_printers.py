"""Events as a terminal shows them, and as one JSON document."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.cli.console import Console, plain
from colab_bridge.cli.notebook_printer import NotebookPrinter
from colab_bridge.cli.printer import JsonPrinter, ProgramPrinter

PNG = base64.b64encode(b"\x89PNG fake").decode()
Shown = tuple[str, str]


@pytest.fixture
def console() -> Console:
    return Console({})


def show(printer: ProgramPrinter | NotebookPrinter | JsonPrinter, *events: dict[str, Any]) -> None:
    for event in events:
        printer.show(event)
    printer.end()


def run_program(console: Console, folder: Path, *events: dict[str, Any]) -> None:
    show(ProgramPrinter(console, folder, "run-1"), *events)


def test_streams_go_where_the_program_sent_them(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(
        console,
        tmp_path,
        {"type": "stream", "name": "stdout", "text": "out\r50%\x1b[1m"},
        {"type": "stream", "name": "stderr", "text": "err"},
    )
    assert capsys.readouterr() == ("out\r50%\x1b[1m", "err")


def test_a_result_is_printed_like_in_a_notebook(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(console, tmp_path, {"type": "result", "seq": 3, "data": {"text/plain": "42"}})
    assert capsys.readouterr() == ("42\n", "")


def test_a_picture_becomes_a_file_whose_path_is_said_on_stderr(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(
        console,
        tmp_path,
        {"type": "display", "seq": 7, "data": {"image/png": PNG, "text/plain": "<Figure>", "text/html": "x"}},
    )
    path = tmp_path / "run-1" / "output-7.png"
    assert path.read_bytes() == b"\x89PNG fake"
    assert capsys.readouterr() == ("", f"saved: {path}\n")


def test_a_page_is_saved_and_its_text_printed(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(console, tmp_path, {"type": "result", "seq": 8, "data": {"text/html": "<b>é</b>", "text/plain": "é"}})
    assert (tmp_path / "run-1" / "output-8.html").read_text(encoding="utf-8") == "<b>é</b>"
    assert capsys.readouterr().out == "é\n"


def test_an_update_replaces_the_picture_in_its_file(console: Console, tmp_path: Path) -> None:
    newer = base64.b64encode(b"newer").decode()
    run_program(
        console,
        tmp_path,
        {"type": "display", "seq": 1, "display_id": "d", "data": {"image/png": PNG}},
        {"type": "update_display", "seq": 2, "display_id": "d", "data": {"image/png": newer}},
    )
    assert [path.name for path in (tmp_path / "run-1").iterdir()] == ["output-1.png"]
    assert (tmp_path / "run-1" / "output-1.png").read_bytes() == b"newer"


def test_a_run_id_cannot_lead_out_of_its_folder(console: Console, tmp_path: Path) -> None:
    show(
        ProgramPrinter(console, tmp_path / "outputs", "../../evil"),
        {"type": "display", "seq": 1, "data": {"image/png": PNG}},
    )
    assert [path.parent.parent for path in tmp_path.rglob("*.png")] == [tmp_path / "outputs"]


@pytest.mark.parametrize(
    "data", [{"image/png": "not base64 !"}, {"image/png": 5}, {"image/png": None}, "text", None, 3]
)
def test_damaged_bundles_harm_nobody(console: Console, tmp_path: Path, data: object) -> None:
    run_program(console, tmp_path, {"type": "display", "seq": 1, "data": data})


def test_a_traceback_loses_its_colours_where_nobody_sees_them(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(
        console,
        tmp_path,
        {"type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[31mone\x1b[39m", "two\n"]},
        {"type": "finished", "status": "error", "exit_code": 1, "error": {"ename": "E", "evalue": "v"}},
    )
    assert capsys.readouterr() == ("", "one\ntwo\n")


def test_an_error_without_traceback_is_still_said(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(
        console,
        tmp_path,
        {"type": "finished", "status": "lost", "exit_code": 69, "error": {"ename": "KernelLost", "evalue": "x"}},
    )
    assert capsys.readouterr().err == "KernelLost: x\n"


def test_lost_output_is_never_hidden(console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_program(console, tmp_path, {"type": "lost", "text": "the link was down"})
    assert "may be missing" in capsys.readouterr().err


def test_events_of_a_later_version_are_passed_over(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program(console, tmp_path, {"type": "hologram"}, {"type": "show"}, {"type": ""})
    assert capsys.readouterr() == ("", "")


def test_a_json_document_has_all_its_keys(console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(
        JsonPrinter(console, tmp_path),
        {
            "type": "started",
            "seq": 1,
            "run": {"id": "run-1", "session": "s", "kind": "code", "title": "t", "notebook": None},
        },
        {"type": "stream", "name": "stdout", "text": "a"},
        {"type": "stream", "name": "stdout", "text": "b"},
        {"type": "stream", "name": "stderr", "text": "c"},
        {"type": "result", "seq": 4, "data": {"text/plain": "5", "image/png": PNG}},
        {"type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[1mx"]},
        {"type": "lost", "text": "gap"},
        {"type": "finished", "status": "error", "exit_code": 1, "duration_s": 0.5, "error": None, "outputs": []},
    )
    assert json.loads(capsys.readouterr().out) == {
        "run": "run-1",
        "session": "s",
        "kind": "code",
        "title": "t",
        "status": "error",
        "exit_code": 1,
        "duration_s": 0.5,
        "stdout": "ab",
        "stderr": "c",
        "result": "5",
        "error": {"ename": "E", "evalue": "v", "traceback": ["x"]},
        "files": [str(tmp_path / "run-1" / "output-4.png")],
        "notebook": None,
        "outputs": [],
        "output_may_be_lost": "gap",
    }


def test_a_notebook_run_says_each_cell_and_where_everything_is(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = str(tmp_path / "a.ipynb")
    show(
        NotebookPrinter(console, notebook, str(tmp_path)),
        {"type": "started", "run": {"id": "run-1", "notebook": notebook}, "cells": 2},
        {"type": "cell_started", "index": 1, "total": 2, "line": "import x"},
        {"type": "stream", "name": "stdout", "text": "goes into the notebook"},
        {"type": "display", "data": {"image/png": PNG}},
        {"type": "cell_finished", "index": 1, "total": 2, "status": "ok", "duration_s": 1.25},
        {
            "type": "finished",
            "status": "ok",
            "exit_code": 0,
            "duration_s": 2.0,
            "outputs": [notebook, str(tmp_path / "out" / "plot.png"), str(tmp_path / "t.csv")],
        },
    )
    out, err = capsys.readouterr()
    plot = Path("out") / "plot.png"
    assert out == ""
    assert err.splitlines() == [
        "[1/2] import x  ok    1.2 s",
        f"plot: {plot}",
        "file: t.csv",
        "done after 2.0 s: a.ipynb, with 1 plot in it",
    ]


def test_a_failed_notebook_says_how_to_go_on(
    console: Console, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(
        NotebookPrinter(console, str(tmp_path / "a.ipynb"), str(tmp_path)),
        {"type": "error", "ename": "E", "evalue": "v", "traceback": ["boom"]},
        {"type": "finished", "status": "error", "exit_code": 1, "duration_s": 1.0, "outputs": []},
    )
    assert capsys.readouterr().err.splitlines()[-1].endswith("go on with: colab-bridge run a.ipynb --resume")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[2K\x1b(Bx", "x"),
        ("half\x1b", "half"),
        ("no escape", "no escape"),
    ],
)
def test_control_sequences_are_taken_out(text: str, expected: str) -> None:
    assert plain(text) == expected
