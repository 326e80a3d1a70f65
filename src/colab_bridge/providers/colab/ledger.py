"""What this machine has asked Colab for, on disk before it is asked, so that no crash leaves a runtime unknown.

One file a request, named by its UUID, readable by the user only. It holds no token. It is written before the first
question, names the runtime once there is one, and goes when the runtime is known to be gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from colab_bridge._util.atomic import write_atomic
from colab_bridge.model.hardware import Hardware

__all__ = ["Entry", "Ledger"]

log = logging.getLogger(__name__)

_SCHEMA = 1
_NAME: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request.

    Attributes:
        request: Its UUID.
        session: Name of the session that asked.
        project: Absolute path of the project's root.
        account: E-mail address that pays; empty when it was not known.
        api: ``v1`` or ``v1beta``.
        asked_for: What was wanted, best first.
        version: Label of the image; empty for the newest.
        asked_at: Unix seconds.
        runtime: Id of the runtime; empty while there is none that we know of.
        name: Its resource name in the public API; empty in the other one.
        adopted: True when somebody else asked for it and we took it over.
    """

    request: str
    session: str
    project: str
    account: str = ""
    api: str = "v1"
    asked_for: tuple[Hardware, ...] = ()
    version: str = ""
    asked_at: float = 0.0
    runtime: str = ""
    name: str = ""
    adopted: bool = False


class Ledger:
    """The requests of this machine that may have a runtime.

    Args:
        folder: Where the files are; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entry: Entry) -> None:
        """Put an entry on disk, in place of an older one.

        Raises:
            OSError: it is not there; then nothing may be asked for.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._path(entry.request), json.dumps(_to_json(entry), indent=1).encode(), mode=0o600)

    def remove(self, request: str) -> None:
        """Forget a request; one that is not there is no error."""
        with contextlib.suppress(OSError):
            self._path(request).unlink()

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first. A file that cannot be read is set aside and reported in the log."""
        found: list[Entry] = []
        try:
            names = [file.name for file in os.scandir(self._folder) if _NAME.fullmatch(file.name)]
        except OSError:
            return []
        for name in names:
            path = self._folder / name
            try:
                found.append(_from_json(path.stem, json.loads(path.read_bytes())))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                log.warning("a request of the ledger cannot be read", extra={"file": name, "why": type(error).__name__})
                with contextlib.suppress(OSError):
                    os.replace(path, path.with_suffix(".unreadable"))
        return sorted(found, key=lambda entry: entry.asked_at)

    def find(self, matches: Callable[[Entry], bool]) -> Entry | None:
        """Return the newest entry that fits."""
        return next((entry for entry in reversed(self.entries()) if matches(entry)), None)

    def _path(self, request: str) -> Path:
        name = f"{request}.json"
        assert _NAME.fullmatch(name)  # it becomes a path
        return self._folder / name


def _to_json(entry: Entry) -> dict[str, object]:
    return {
        "v": _SCHEMA,
        "session": entry.session,
        "project": entry.project,
        "account": entry.account,
        "api": entry.api,
        "asked_for": [
            {"kind": each.kind, "accelerator": each.accelerator, "high_memory": each.high_memory}
            for each in entry.asked_for
        ],
        "version": entry.version,
        "asked_at": entry.asked_at,
        "runtime": entry.runtime,
        "name": entry.name,
        "adopted": entry.adopted,
    }


def _from_json(request: str, value: dict[str, object]) -> Entry:
    asked_for = value["asked_for"]
    if value.get("v") != _SCHEMA or not isinstance(asked_for, list):
        raise ValueError("schema")
    return Entry(
        request=request,
        session=str(value["session"]),
        project=str(value["project"]),
        account=str(value["account"]),
        api=str(value["api"]),
        asked_for=tuple(
            Hardware(kind=each["kind"], accelerator=str(each["accelerator"]), high_memory=bool(each["high_memory"]))
            for each in asked_for
        ),
        version=str(value["version"]),
        asked_at=float(str(value["asked_at"])),
        runtime=str(value["runtime"]),
        name=str(value["name"]),
        adopted=bool(value["adopted"]),
    )
