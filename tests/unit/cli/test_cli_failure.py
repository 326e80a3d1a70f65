"""Every way to fail: three lines at most, the right exit status, no traceback."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import click
import pytest

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.failure import report
from colab_bridge.cli.main import COMMANDS, run
from colab_bridge.errors import AuthError, QuotaError, RuntimeLostError, TransientError, UserError


@pytest.fixture
def invocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invocation:
    monkeypatch.setenv("COLAB_BRIDGE_HOME", str(tmp_path))
    return Invocation()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("m", hint="h"), 2),
        (AuthError("m", hint="h"), 77),
        (QuotaError("m", hint="h"), 75),
        (TransientError("m", hint="h"), 75),
        (RuntimeLostError("m", hint="h"), 69),
        (click.UsageError("m"), 2),
        (FileNotFoundError(2, "No such file", "x.py"), 2),
    ],
)
def test_an_error_is_two_lines_and_the_last_one_is_what_to_do(
    error: BaseException, status: int, invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error, invocation) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert err.splitlines()[1].startswith("  ")


def test_ctrl_c_is_130_and_says_nothing(invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt(), invocation) == 130
    assert capsys.readouterr() == ("", "")


def test_a_message_with_line_breaks_and_colours_stays_one_line(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    report(UserError("a\nb\x1b[31mc", hint="d"), invocation)
    assert capsys.readouterr().err == "colab-bridge: a bc\n  d\n"


def test_a_defect_is_one_line_with_the_file_that_holds_the_traceback(
    invocation: Invocation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(ZeroDivisionError("oops"), invocation) == 70
    err = capsys.readouterr().err
    (log,) = (tmp_path / "state").glob("crash-*.log")
    assert str(log) in err
    assert "Traceback" not in err
    assert "ZeroDivisionError: oops" in log.read_text()
    if sys.platform != "win32":
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_with_json_the_error_is_a_document_on_stdout(
    invocation: Invocation, capsys: pytest.CaptureFixture[str]
) -> None:
    invocation.as_json = True
    report(UserError("m", hint="h", code="CB-1"), invocation)
    out, err = capsys.readouterr()
    assert '"code": "CB-1"' in out
    assert err.startswith("colab-bridge: m")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["exce"], "did you mean: colab-bridge exec"),
        (["frobnicate"], "colab-bridge --help"),
        (["run"], "nothing to run"),
        (["run", "-m"], "a module after -m is missing"),
        (["run", "--"], "a command after -- is missing"),
        (["run", "nothing-here.py"], "there is no file"),
        (["run", "nothing-here.ipynb"], "there is no notebook"),
        (["run", "."], "is a folder"),
        (["run", "x.py", "-o", "y"], "there is no file"),
        (["run", "-o", "y", "x.py"], "for notebooks"),
        (["run", "x.sh"], "colab-bridge run -- bash x.sh"),
        (["exec"], "no code was given"),
        (["exec", "1", "--code", "2"], "more than once"),
        (["exec", "-f", "nothing-here.py"], "there is no file"),
        (["exec", "--frob"], "exec --help"),
        (["exec", "-s", "a", "--isolated", "1"], "-s names a session that exists"),
        (["new", "a", "-s", "b"], "two names"),
        (["logs", "--nope"], "logs --help"),
        (["daemon", "start", "--port", "99999"], "99999"),
    ],
)
def test_bad_usage_is_two_lines_and_status_2_without_asking_the_daemon(
    argv: list[str], words: str, invocation: Invocation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) <= 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"\xff\xfe\x00", b"# coding: nonsense\n"])
def test_a_file_that_is_no_python_text_is_refused(
    content: bytes, invocation: Invocation, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(content)
    assert run(["run", str(path)]) == 2
    assert "is no Python text" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"config", "doctor"}))
def test_every_command_has_a_help_page(name: str, invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert f"colab-bridge {name}" in capsys.readouterr().out


def test_the_list_of_commands_imports_none_of_them(invocation: Invocation, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name for name in sys.modules if name.startswith("colab_bridge.cli.commands.")}
    assert run(["--help"]) == 0
    assert {name for name in sys.modules if name.startswith("colab_bridge.cli.commands.")} == before
    out = capsys.readouterr().out
    assert all(f"  {name}" in out for name, (_, summary) in COMMANDS.items() if summary)
