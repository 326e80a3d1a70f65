"""A small JSON file of ours that several processes read and change: locked, replaced as a whole, never half read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from colab_bridge._util.atomic import write_atomic
from colab_bridge.credentials.file_lock import held
from colab_bridge.errors import UserError

__all__ = ["Stamp", "StateFile"]

_MAX_FILE: Final = 4 * 1024 * 1024
_T = TypeVar("_T")
#: What shows that a file was replaced.
Stamp = tuple[int, int, int]


class StateFile:
    """A JSON object in a file with mode 0600.

    Args:
        path: The file; its folder must exist before it is changed.
        schema: Number of its form. A file of a higher number is left alone.
    """

    def __init__(self, path: Path, schema: int) -> None:
        self._path = path
        self._schema = schema

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def stamp(self) -> Stamp | None:
        """Return what changes with every change; None when there is no file."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self) -> dict[str, Any]:
        """Return the members; empty when there is no file.

        Raises:
            UserError: it is damaged, or of a newer kind.
        """
        try:
            with self._path.open("rb") as file:
                tree: Any = json.loads(file.read(_MAX_FILE))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            tree = None
        if isinstance(tree, dict) and tree.get("schema") == self._schema:
            return tree
        if isinstance(tree, dict) and isinstance(tree.get("schema"), int):
            raise UserError(
                f"{self._path} belongs to another version of Colab Bridge", hint="update it", code="CB-USER-072"
            )
        raise UserError(
            f"{self._path} is damaged",
            hint="move it away; then sign in again, or set your secrets again",
            code="CB-USER-072",
        )

    def change(self, change: Callable[[dict[str, Any]], _T]) -> _T:
        """Change the members while no other process does.

        Args:
            change: Gets the members and changes them in place; its result is returned.

        Raises:
            TransientError: another process holds the file.
            UserError: as :meth:`read`.
        """
        with held(self._path):
            tree = self.read()
            result = change(tree)
            tree["schema"] = self._schema
            write_atomic(self._path, json.dumps(tree, indent=1).encode(), mode=0o600)
        return result
