"""``colab-bridge config`` and ``colab-bridge doctor`` as whole processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

_PROGRAM = "from colab_bridge.cli.main import main; main()"


class Shell:
    """A user with a home and a project of their own, who types commands."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir()
        (self.project / ".git").mkdir()
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("COLAB_BRIDGE_")}
        self.environ |= {"COLAB_BRIDGE_HOME": str(self.home), "JUPYTER_DATA_DIR": str(folder / "jupyter")}

    @property
    def user_file(self) -> Path:
        return self.home / "config" / "config.toml"

    def run(self, *argv: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _PROGRAM, *argv],
            cwd=self.project,
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=30,
            check=False,
        )

    def ok(self, *argv: str, stdin: str = "", **environ: str) -> str:
        done = self.run(*argv, stdin=stdin, **environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def document(self, *argv: str, **environ: str) -> Any:
        return json.loads(self.ok(*argv, "--json", **environ))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_value_that_was_set_is_shown_with_its_source(shell: Shell) -> None:
    assert shell.ok("config", "set", "port", "8123") == ""
    assert shell.ok("config", "get", "port") == "8123\n"
    assert shell.document("config", "get", "port") == {
        "key": "port",
        "value": 8123,
        "source": f"user file {shell.user_file}",
    }


def test_yes_and_no_are_printed_as_they_are_written(shell: Shell) -> None:
    assert shell.ok("config", "get", "notebook.collapse_progress") == "true\n"


def test_explain_names_the_environment_variable_that_wins(shell: Shell) -> None:
    shell.ok("config", "set", "port", "1")
    (row,) = shell.document("config", "explain", "port", COLAB_BRIDGE_PORT="2")["settings"]
    assert (row["value"], row["source"], row["default"]) == (2, "environment variable COLAB_BRIDGE_PORT", 0)


def test_setting_what_is_covered_says_so(shell: Shell) -> None:
    assert "covers it here" in shell.run("config", "set", "port", "1", COLAB_BRIDGE_PORT="2").stderr


def test_unset_brings_the_default_back(shell: Shell) -> None:
    shell.ok("config", "set", "port", "1")
    assert shell.document("config", "unset", "port")["removed"] is True
    assert shell.document("config", "get", "port")["source"] == "default"


def test_a_project_value_goes_into_the_project(shell: Shell) -> None:
    shell.ok("config", "set", "--project", "reattach", "never")
    assert (shell.project / "colab-bridge.toml").read_text() == 'reattach = "never"\n'
    assert not shell.user_file.exists()
    assert shell.document("config", "path")["project_file"] == str(shell.project / "colab-bridge.toml")


def test_a_token_never_comes_back_out(shell: Shell) -> None:
    shell.ok("config", "add-runtime", "gpu", "--url", "http://127.0.0.1:9/lab?token=s3cr3t")
    commands = [
        ("list",), ("explain",), ("runtimes",), ("get", "runtimes.gpu.token"), ("explain", "runtimes.gpu.token"),
        ("set", "runtimes.gpu.token", "s3cr3t"), ("get", "runtimes.gpu.url"),
    ]  # fmt: skip
    for command in commands:
        for flags in ((), ("--json",)):
            done = shell.run("config", *command, *flags)
            assert done.returncode == 0, done.stderr
            assert "s3cr3t" not in done.stdout + done.stderr
    if os.name == "posix":
        assert shell.user_file.stat().st_mode & 0o777 == 0o600


def test_a_token_can_be_given_on_standard_input(shell: Shell) -> None:
    shell.ok("config", "set", "runtimes.gpu.token", "-", stdin="s3cr3t\n")
    assert 'token = "s3cr3t"' in shell.user_file.read_text()


def test_a_runtime_can_be_added_listed_and_removed(shell: Shell) -> None:
    shell.ok("config", "add-runtime", "gpu", "--url", "https://host:1/x", "--token-env", "MY_TOKEN", "--kernel", "ir")
    gpu = shell.document("config", "runtimes")["runtimes"][1]
    assert (gpu["name"], gpu["provider"], gpu["url"], gpu["token"]) == (
        "gpu", "jupyter", "https://host:1/x", "from MY_TOKEN",
    )  # fmt: skip
    shell.ok("config", "remove-runtime", "gpu")
    assert [row["name"] for row in shell.document("config", "runtimes")["runtimes"]] == ["local"]


def test_a_token_for_a_project_runtime_is_refused(shell: Shell) -> None:
    done = shell.run("config", "add-runtime", "gpu", "--project", "--url", "http://x/?token=s3cr3t")
    assert done.returncode == 2
    assert "s3cr3t" not in done.stderr
    assert not (shell.project / "colab-bridge.toml").exists()


@pytest.mark.parametrize(
    "argv",
    [
        ("get", "prot"),
        ("set", "prot", "1"),
        ("set", "port", "many"),
        ("add-runtime", "local", "--url", "http://x"),
        ("add-runtime", "gpu", "--url", "not an address"),
        ("remove-runtime", "gpu"),
    ],
)
def test_a_slip_gives_a_message_and_a_fix(shell: Shell, argv: tuple[str, ...]) -> None:
    done = shell.run("config", *argv)
    assert done.returncode == 2
    assert done.stdout == ""
    assert 1 <= len(done.stderr.strip().splitlines()) <= 3
    assert "Traceback" not in done.stderr


def test_a_broken_file_names_the_line_and_can_be_found(shell: Shell) -> None:
    shell.user_file.parent.mkdir(parents=True)
    shell.user_file.write_text("port = 1\nport = 2\n")
    done = shell.run("config", "list")
    assert done.returncode == 2
    assert f"{shell.user_file}, line 2" in done.stderr
    assert shell.document("config", "path")["user_file"] == str(shell.user_file)


def test_doctor_is_quick_and_finds_nothing_broken_here(shell: Shell) -> None:
    begun = time.monotonic()
    done = shell.run("doctor", "--json")
    assert time.monotonic() - begun < 10
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert {check["status"] for check in report["checks"]} <= {"ok", "warn"}
    assert all(set(check) == {"id", "status", "text", "fix"} for check in report["checks"])
    assert report["next"] == "colab-bridge kernels install"


def test_doctor_survives_everything_being_broken_at_once(shell: Shell) -> None:
    bare = [sys.executable, "-m", "venv", "--without-pip", str(shell.project / ".venv")]
    subprocess.run(bare, check=True, timeout=60)
    (shell.project / "colab-bridge.toml").write_text("port = \n")
    shell.home.write_text("a file where a folder should be")
    begun = time.monotonic()
    done = shell.run("doctor", "--json", HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="")
    assert time.monotonic() - begun < 10
    status = {check["id"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert (status["folders"], status["config"]) == ("fail", "fail")
    assert (status["interpreter"], status["proxy"]) == ("warn", "warn")
    assert status["loopback"] == "ok"


def test_doctor_says_at_most_one_next_command_and_says_it_last(shell: Shell) -> None:
    (shell.project / "colab-bridge.toml").write_text("prot = 1\n")
    done = shell.run("doctor")
    assert done.returncode == 1
    assert done.stdout.count("Next: ") == 1
    assert "Next: Did you mean 'port'?" in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_doctor_shows_words_where_marks_cannot_be_printed(shell: Shell) -> None:
    done = shell.run("doctor", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "+ ok" in done.stdout
