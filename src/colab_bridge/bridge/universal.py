"""``UniversalColabBridge``: code on whatever runtime is there, from anywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from colab_bridge.bridge.files import FileSyncManager
from colab_bridge.bridge.link import Link
from colab_bridge.bridge.results import Result

__all__ = ["UniversalColabBridge"]


class UniversalColabBridge:
    """The smallest face: initialize, execute, files.

    Args:
        folder: Working folder; the current one when omitted.
        runtime: Name of a configured runtime.
        url: Address of a Jupyter server, with its token.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        runtime: str | None = None,
        url: str | None = None,
    ) -> None:
        self._link = Link(folder, runtime=runtime, options={"url": url})

    def initialize(self) -> dict[str, Any]:
        """Get the project's session, started if need be, and return what it is."""
        return self._link.open()

    def execute_code(self, code: str, *, check: bool = False) -> Result:
        """Execute code on the session's main kernel, which keeps its variables.

        Args:
            code: What to execute.
            check: Raise when the code raises.

        Raises:
            ExecutionFailed: the code raised, and ``check`` is set.
        """
        return self._link.run({"kind": "code", "code": code}, check=check)

    @property
    def files(self) -> FileSyncManager:
        """The files of the session."""
        return FileSyncManager(link=self._link)

    def sync(self) -> dict[str, Any]:
        """Bring the folder and the workspace on the runtime to agreement now."""
        return self.files.sync()

    def list_files(self, path: str = ".") -> list[dict[str, Any]]:
        """Return what is in a folder of the runtime."""
        return self.files.list_files(path)

    def upload_file(self, source: str | os.PathLike[str], target: str = "") -> list[str]:
        """Copy a file or folder to the runtime; returns the paths there."""
        return self.files.upload(source, target)

    def download_file(self, source: str, target: str | os.PathLike[str] = ".") -> list[Path]:
        """Copy a file or folder from the runtime; returns the paths here."""
        return self.files.download(source, target)

    def download_workspace(self, target: str | os.PathLike[str]) -> list[Path]:
        """Copy the whole workspace of the runtime into a folder here, verified; returns the paths here."""
        return self.files.download(".", target)

    def remove_file(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file of the runtime, or with ``recursive`` a folder with everything in it."""
        self.files.remove(path, recursive=recursive)
