"""Small files that are either the old version or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_object", "write_file", "write_object"]

_MAX_BYTES = 256 * 1024


def write_file(path: Path, data: bytes) -> None:
    """Replace a file, readable by its owner only, by a complete new version.

    Raises:
        OSError: it cannot be written; the old version is still there.
    """
    fresh = path.with_name(path.name + ".new")
    # Windows would translate line ends otherwise; elsewhere the bit does not exist.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(data)
    os.replace(fresh, path)


def write_object(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a file by a JSON object.

    Raises:
        OSError: it cannot be written.
    """
    write_file(path, json.dumps(value).encode("ascii"))


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty when there is none."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
