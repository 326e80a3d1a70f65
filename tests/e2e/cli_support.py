"""A user at a terminal: own folders, own daemon, own runtime; all of it ended afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from daemon_home import SOURCE as SRC
from daemon_home import WAIT_S, eventually, processes_of

__all__ = ["SRC", "WAIT_S", "Desk", "desk_in", "eventually"]

PROGRAM = "from colab_bridge.cli.main import main; main()"


class Desk:
    """A user with a home and a project of their own, who types commands."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.project.mkdir(parents=True)
        (self.project / ".colab-bridge").mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COLAB_BRIDGE_")}
        self.environ = kept | {
            "COLAB_BRIDGE_HOME": str(self.home),
            "JUPYTER_DATA_DIR": str(folder / "jupyter"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYTHONPATH": str(SRC),
            "TERM": "xterm",
        }
        self.environ.pop("PWD", None)
        self._started: list[subprocess.Popen[str]] = []

    def argv(self, *argv: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, *argv]

    def run(
        self, *argv: str, stdin: str = "", cwd: Path | None = None, timeout_s: float = 60, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*argv),
            cwd=cwd or self.project,
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(*argv),
            cwd=self.project,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            **options,
        )
        self._started.append(process)
        return process

    def out(self, *argv: str, **options: Any) -> str:
        done = self.run(*argv, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def document(self, *argv: str, **options: Any) -> Any:
        return json.loads(self.out(*argv, "--json", **options))

    def refusal(self, *argv: str, status: int | None = None, **options: Any) -> str:
        """Run a command that must fail as the project promises, and return what it said."""
        done = self.run(*argv, **options)
        lines = done.stderr.splitlines()
        assert done.returncode != 0, done.stdout
        assert status is None or done.returncode == status, done.stderr
        assert 1 <= len(lines) <= 3, done.stderr
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr
        return done.stderr

    def write(self, name: str, text: str) -> Path:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def notebook(self, name: str, *cells: str | tuple[str, list[str]]) -> Path:
        made = []
        for number, cell in enumerate(cells):
            source, tags = cell if isinstance(cell, tuple) else (cell, [])
            metadata = {"tags": tags} if tags else {}
            made.append(
                {
                    "cell_type": "code",
                    "id": f"cell-{number}",
                    "metadata": metadata,
                    "source": source,
                    "outputs": [],
                    "execution_count": None,
                }
            )
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        return self.write(name, json.dumps({"cells": made, "metadata": spec, "nbformat": 4, "nbformat_minor": 5}))

    def daemon_pid(self) -> int | None:
        pid = self.document("daemon", "status")["pid"]
        return None if pid is None else int(pid)

    def end(self) -> None:
        """End every process that commands at this desk have left."""
        for started in self._started:
            started.kill()
            started.wait(10)
            for stream in (started.stdout, started.stderr):
                if stream is not None:
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("stop", "--all", "--yes")
            self.run("daemon", "stop")
        _, left = psutil.wait_procs(self.processes(), timeout=5)
        names = [" ".join(process.cmdline()) for process in left if process.is_running()]
        for process in left:
            process.kill()
        assert not names, f"left behind: {names}"

    def processes(self) -> list[psutil.Process]:
        """Return every process that works in our folders, this one left out."""
        return processes_of(self.home)


@contextlib.contextmanager
def desk_in(folder: Path) -> Iterator[Desk]:
    desk = Desk(folder)
    try:
        yield desk
    finally:
        desk.end()
