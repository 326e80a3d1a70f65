"""``LocalColabNotebook``: a notebook file and the kernel behind it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from colab_bridge._util.atomic import write_atomic
from colab_bridge.bridge.link import Link
from colab_bridge.bridge.results import Result
from colab_bridge.client.daemon import segment
from colab_bridge.errors import UserError

__all__ = ["LocalColabNotebook"]


class LocalColabNotebook:
    """A notebook whose cells run on a runtime; outputs go into the file as they come.

    Args:
        path: The notebook.
        link: Where it runs; the project's own session when omitted.

    Raises:
        UserError: there is no such file, or it is no notebook.
    """

    def __init__(self, path: str | os.PathLike[str], *, link: Link | None = None) -> None:
        self.path = Path(path).resolve()
        base = link or Link(self.path.parent)
        self._link = base
        self._content: dict[str, Any] = {}
        self._reload()

    def _reload(self) -> None:
        try:
            content = json.loads(self.path.read_bytes())
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}", hint="check the path") from error
        except ValueError as error:
            raise UserError(f"{self.path.name} is no notebook", hint="give an .ipynb file") from error
        if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
            raise UserError(f"{self.path.name} is no notebook", hint="give an .ipynb file of format 4")
        self._content = content

    @property
    def cells(self) -> list[dict[str, Any]]:
        """All cells, with the outputs of the last run; change them and call :meth:`save`."""
        cells: list[dict[str, Any]] = self._content["cells"]
        return cells

    def run_cell(self, i: int, *, check: bool = False) -> Result:
        """Run one cell on the notebook's kernel, which keeps its variables.

        Args:
            i: Position among all cells, from 0; negative counts from the end.
            check: Raise when the cell raises.
        """
        position = i if i >= 0 else len(self.cells) + i
        return self._run({"cells": [position]}, check=check)

    def run_all(self, *, check: bool = False, keep_going: bool = False) -> Result:
        """Run all cells on a new kernel, in order, up to the first that fails.

        Args:
            check: Raise when a cell raises.
            keep_going: Go on after a cell that failed.
        """
        return self._run({"keep_going": keep_going}, check=check)

    def _run(self, part: dict[str, Any], *, check: bool) -> Result:
        notebook = {"path": str(self.path), "keep_kernel": True, **part}
        request = {"kind": "notebook", "cwd": str(self.path.parent), "notebook": notebook}
        try:
            return self._link.run(request, check=check)
        finally:
            self._reload()

    def _kernel(self) -> str | None:
        for kernel in self._link.client.get("/v1/kernels")["kernels"]:
            if kernel["purpose"] == "notebook" and kernel["key"] == str(self.path):
                return str(kernel["id"])
        return None

    def interrupt_kernel(self) -> None:
        """Interrupt the cell that runs; call it from another thread."""
        if kernel := self._kernel():
            self._link.client.post(f"/v1/kernels/{segment(kernel)}/interrupt")

    def restart_kernel(self) -> None:
        """Restart the notebook's kernel; its variables are gone."""
        if kernel := self._kernel():
            self._link.client.post(f"/v1/kernels/{segment(kernel)}/restart")

    def close(self) -> None:
        """End the notebook's kernel."""
        if kernel := self._kernel():
            self._link.client.delete(f"/v1/kernels/{segment(kernel)}")

    def save(self) -> None:
        """Write :attr:`cells` to the file, atomically."""
        text = json.dumps(self._content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        write_atomic(self.path, text.encode())
