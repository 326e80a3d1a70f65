"""An emulator as a process of its own, driven over its control interface."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import psutil

START_S = 30.0


@dataclass
class Emulated:
    """A running emulator process.

    Attributes:
        env: What a client needs.
        control: Base URL of its control interface.
    """

    env: dict[str, str]
    control: str

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        with httpx2.Client(trust_env=False, timeout=30.0) as client:
            answer = client.request(method, self.control + path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def state(self) -> dict[str, Any]:
        found = self.call("GET", "/state")
        assert isinstance(found, dict)
        return found

    def fault(self, **members: Any) -> None:
        self.call("POST", "/faults", members)

    def gpu(self, **options: Any) -> dict[str, Any]:
        """Return the members of a request for a machine with a T4."""
        return {"options": {"gpu": "T4", **options}, "env": self.env}

    @property
    def endpoints(self) -> list[str]:
        return [each["endpoint"] for each in self.state()["runtimes"]]


@contextlib.contextmanager
def emulated(*arguments: str) -> Iterator[Emulated]:
    """Run the emulator as its users do, and end it with all of its machines."""
    start = "from colab_bridge.cli.main import main; main()"
    argv = [sys.executable, "-P", "-c", start, "emulator", "--stdin-eof", *arguments]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    children: list[psutil.Process] = []
    try:
        line = json.loads(process.stdout.readline())
        yield Emulated(env=line["env"], control=line["control_url"])
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.stdin.close()
        process.wait(START_S)
        process.stdout.close()
        psutil.wait_procs(children, timeout=START_S)
    assert [child for child in children if child.is_running()] == []
