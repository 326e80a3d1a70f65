"""What rows of the scenario table need besides two folders: less privilege, other abilities, mounts, lying callers."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.agent.sync import service_folder
from colab_bridge.agent.sync.disk.root import Root

_NOBODY = 65534


@contextlib.contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Own a folder without any privilege, also where the tests run as root."""
    folder.mkdir(parents=True, exist_ok=True)
    privileged = os.geteuid() == 0
    if privileged:
        os.chown(folder, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)
        for here, folders, _ in os.walk(folder):
            for name in folders:
                os.chmod(os.path.join(here, name), 0o700)


@contextlib.contextmanager
def mounted(*arguments: str, at: Path) -> Iterator[None]:
    """Mount something for a while; skips the test where nothing may be mounted."""
    at.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()[:100]}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def able(monkeypatch: pytest.MonkeyPatch, folder: Path, **abilities: Any) -> None:
    """Give the file system of one root other abilities than it has."""
    real = service_folder.probe

    def probe(root: Root) -> Any:
        found = real(root)
        return replace(found, **abilities) if root.path == folder else found

    monkeypatch.setattr(service_folder, "probe", probe)


Lie = Callable[[dict[str, Any], bytes], tuple[Mapping[str, Any], bytes]]


class Liar:
    """A caller that changes answers, refuses calls or counts them.

    Attributes:
        lies: By verb: given an answer, what is told instead.
        before: By verb: done before the call goes out; it may raise.
        calls: Verbs in the order of the calls.
        sizes: Bytes of payload by direction.
    """

    def __init__(self, caller: Any) -> None:
        self.caller = caller
        self.lies: dict[str, Lie] = {}
        self.before: dict[str, Callable[[], Any]] = {}
        self.after: dict[str, Callable[[], Any]] = {}
        self.calls: list[str] = []
        self.sizes = {"up": 0, "down": 0}

    async def call(self, method: str, params: Any = None, payload: bytes = b"", **options: Any) -> Any:
        verb = method.partition(".")[2]
        self.calls.append(verb)
        self.sizes["up"] += len(payload)
        if verb in self.before:
            self.before[verb]()
        result, answer = await self.caller.call(method, params, payload, **options)
        if verb in self.after:
            self.after[verb]()
        self.sizes["down"] += len(answer)
        lie = self.lies.get(verb)
        return (result, answer) if lie is None else lie(dict(result), answer)
