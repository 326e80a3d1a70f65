"""``FileSyncManager``: the folder and the workspace on a runtime from Python."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from colab_bridge.bridge.link import Link
from colab_bridge.client.daemon import segment
from colab_bridge.errors import TransientError, from_problem

__all__ = ["FileSyncManager"]

_SYNC_S = 3600.0
_WATCHED = 200


class FileSyncManager:
    """Files of one session.

    Nothing of it is needed for ordinary work: files go up before each run and results come down after it.

    Args:
        session: Name of the session; the project's own when omitted.
        folder: Working folder; the current one when omitted.
        runtime: Name of a configured runtime, for a session that is made.
        options: Provider options, such as ``{"isolated": True}``, for a session that is made.
        link: The way to a session that somebody else holds; instead of all the others.

    Example:
        >>> files = FileSyncManager("sales")  # doctest: +SKIP
        >>> files.sync()["line"]  # doctest: +SKIP
        '1 up, 1 down: models/m.pkl, data/sales.csv'
    """

    def __init__(
        self,
        session: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        options: dict[str, Any] | None = None,
        link: Link | None = None,
    ) -> None:
        self._link = link or Link(folder, session=session, runtime=runtime, options=options)

    def _path(self, rest: str) -> str:
        if self._link.session is None:
            self._link.open()
        return f"/v1/sessions/{segment(str(self._link.session))}/{rest}"

    def _post(self, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._link.client.post(self._path(f"sync{verb}"), body or {}, timeout_s=_SYNC_S)

    # -- in step -----------------------------------------------------------------------------------------------------

    def sync(self, *, wait_all: bool = True) -> dict[str, Any]:
        """Bring both folders to agreement now.

        Args:
            wait_all: Large results too.

        Returns:
            What was done: ``line``, ``up``, ``down``, ``notices``, ``holds``, ``failed`` and counts.

        Raises:
            ColabBridgeError: the folders do not agree, with the reason.
        """
        return self._post("", {"wait_all": wait_all})

    def get_modified_files(self) -> list[str]:
        """Return the paths on which the two sides differ now, sorted; nothing is done."""
        return sorted({str(change["path"]) for change in self.diff()})

    def sync_to_colab(self) -> list[str]:
        """Bring both folders to agreement; returns the paths that changed on the runtime.

        Raises:
            ColabBridgeError: the folders do not agree, with the reason.
        """
        return [str(path) for path in self.sync()["up"]]

    def sync_from_colab(self) -> list[str]:
        """Bring both folders to agreement, large results too; returns the paths that changed here.

        Raises:
            ColabBridgeError: the folders do not agree, with the reason.
        """
        return [str(path) for path in self.sync()["down"]]

    def history(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return what was synced, newest first: ``at``, ``reason``, ``line``, and counts."""
        return list(self._link.client.get(self._path("sync/history"), limit=limit)["history"])

    def watch_changes(self, *, interval_s: float = 1.0) -> Iterator[dict[str, Any]]:
        """Yield what travels from now on, as lines of :meth:`history`, until the caller stops asking.

        Changes travel by themselves; this only tells of them.

        Args:
            interval_s: Time between two looks.
        """
        known = {line["txn"] for line in self.history(_WATCHED)}
        pause = threading.Event()
        while True:
            lines = [line for line in reversed(self.history(_WATCHED)) if line["txn"] not in known]
            known |= {line["txn"] for line in lines}
            yield from lines
            pause.wait(interval_s)

    def status(self) -> dict[str, Any]:
        """Return how the folders stand: what is held, what is in conflict, what stays here and why."""
        return self._link.client.get(self._path("sync"), timeout_s=_SYNC_S)

    def diff(self) -> list[dict[str, Any]]:
        """Return the exact plan of a sync; nothing is done."""
        found = self._link.client.get(self._path("sync/diff"), timeout_s=_SYNC_S)
        return list(found["changes"])

    def pause(self) -> None:
        """Stop the sync; code runs with the files that are there."""
        self._post("/pause")

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._post("/resume")

    def include(self, path: str) -> dict[str, Any]:
        """Take a path along that was left out; relative to the project, with ``/``."""
        return self._post("/include", {"path": path})

    def conflicts(self) -> list[dict[str, Any]]:
        """Return versions that lost their place: ``id``, ``path``, and the files ``kept`` and ``current``."""
        return list(self._link.client.get(self._path("sync/conflicts"))["conflicts"])

    def resolve(self, conflict: str = "", *, take: str) -> dict[str, Any]:
        """Settle a conflict, or all of them.

        Args:
            conflict: Its id or path; all when omitted.
            take: ``kept`` or ``current``.
        """
        return self._post("/resolve", {"id": conflict, "all": not conflict, "take": take})

    def approve(self, *holds: str) -> dict[str, Any]:
        """Let happen what is held; all of it when none is named."""
        return self._post("/approve", {"ids": list(holds), "all": not holds})

    def reject(self, *holds: str) -> dict[str, Any]:
        """Undo on the other side what is held; all of it when none is named."""
        return self._post("/reject", {"ids": list(holds), "all": not holds})

    # -- single files ------------------------------------------------------------------------------------------------

    def list_files(self, path: str = ".") -> list[dict[str, Any]]:
        """Return what is in a folder of the runtime: ``name``, ``kind``, ``size``, ``mtime``."""
        return list(self._link.client.get(self._path("files"), file=path)["entries"])

    def upload(self, source: str | os.PathLike[str], target: str = "") -> list[str]:
        """Copy a file or folder to the runtime, verified; returns the paths there."""
        return list(self._move("upload", source, target)["uploaded"])

    def download(self, source: str, target: str | os.PathLike[str] = ".") -> list[Path]:
        """Copy a file or folder from the runtime, verified; returns the paths here."""
        return [Path(path) for path in self._move("download", target, source)["downloaded"]]

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file of the runtime, or with ``recursive`` a folder with everything in it."""
        self._link.client.delete(self._path("files"), file=path, recursive="true" if recursive else "false")

    def _move(self, verb: str, here: str | os.PathLike[str], there: str) -> dict[str, Any]:
        body = {"local": str((self._link.folder / os.fspath(here)).absolute()), "remote": there}
        with self._link.client.stream("POST", self._path(f"files/{verb}"), body) as events:
            for event in events:
                if event["type"] == "failed":
                    raise from_problem(event["problem"])
                if event["type"] == "done":
                    return event
        raise TransientError("the daemon stopped in the middle of it", hint="Try again: it goes on where it ended.")
