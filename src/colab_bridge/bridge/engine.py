"""``LocalColabEngine``: notebooks of one project."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colab_bridge._util.atomic import write_atomic
from colab_bridge.bridge.files import FileSyncManager
from colab_bridge.bridge.link import Link
from colab_bridge.bridge.notebook import LocalColabNotebook
from colab_bridge.bridge.results import Result
from colab_bridge.errors import ConflictError

__all__ = ["LocalColabEngine"]


class LocalColabEngine:
    """Makes, opens and runs the notebooks of a project on one session.

    Args:
        folder: The project or a folder in it; the current one when omitted.
        session: Session name; the project's own when omitted.
        runtime: Name of a configured runtime.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        session: str | None = None,
        runtime: str | None = None,
    ) -> None:
        self._link = Link(folder, session=session, runtime=runtime)

    def create_notebook(
        self, path: str | os.PathLike[str], sources: Iterable[str] = (), *, overwrite: bool = False
    ) -> LocalColabNotebook:
        """Write a new notebook with the given code cells and open it.

        Args:
            path: Where, relative to the engine's folder.
            sources: One code cell each.
            overwrite: Replace a file that exists.

        Raises:
            ConflictError: the file exists.
        """
        full = (self._link.folder / os.fspath(path)).resolve()
        if full.exists() and not overwrite:
            raise ConflictError(f"{full} exists", hint="pass overwrite=True, or another name")
        content = {
            "cells": [_code_cell(source) for source in sources],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        write_atomic(full, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode(), mode=0o644)
        return self.load_notebook(full)

    def load_notebook(self, path: str | os.PathLike[str]) -> LocalColabNotebook:
        """Open a notebook on this engine's session."""
        return LocalColabNotebook(Path(self._link.folder / os.fspath(path)), link=self._link)

    def sync_workspace(self) -> dict[str, Any]:
        """Bring the folder and the workspace on the runtime to agreement now; see :meth:`FileSyncManager.sync`."""
        return FileSyncManager(link=self._link).sync()

    def execute_cell(self, code: str, *, check: bool = False) -> Result:
        """Execute code on the session's main kernel, which keeps its variables."""
        return self._link.run({"kind": "code", "code": code}, check=check)


def _code_cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": uuid.uuid4().hex[:8],
        "metadata": {},
        "source": source.splitlines(True),
        "outputs": [],
        "execution_count": None,
    }
