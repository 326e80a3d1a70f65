"""Images and pages that a terminal cannot show, as files."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Artifacts", "has_picture"]

# In the order of Jupyter's own preference: of several forms of one picture the best is kept. All but the last group are
# base64 on the wire, see "display_data" of the Jupyter messaging protocol.
_IMAGES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "application/pdf": ".pdf",
    "image/svg+xml": ".svg",
}
_TEXT = frozenset({"image/svg+xml", "text/html"})
_PAGE = {"text/html": ".html"}


class Artifacts:
    """The files of one run.

    Args:
        folder: Folder for all runs.
        run_id: The run; its files go to a folder of that name.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in run_id)[:80]
        self._folder = folder / (safe or "run")
        self.paths: list[str] = []

    def save(self, data: Mapping[str, Any], name: str) -> Path | None:
        """Write the best picture of a bundle, or else its page.

        Args:
            data: MIME bundle.
            name: Name of the file without its ending; an existing file is replaced, so that a replay changes nothing.

        Returns:
            The file; None when the bundle holds nothing to save.

        Raises:
            OSError: it cannot be written.
        """
        for table in (_IMAGES, _PAGE):
            for kind, ending in table.items():
                content = _decode(kind, data.get(kind))
                if content is not None:
                    return self._write(name + ending, content)
        return None

    def _write(self, name: str, content: bytes) -> Path:
        from colab_bridge._util.atomic import write_atomic  # 4 ms that a run without pictures does not need

        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / name
        write_atomic(path, content, mode=0o600)
        if str(path) not in self.paths:
            self.paths.append(str(path))
        return path


def has_picture(data: Mapping[str, Any]) -> bool:
    """Whether a bundle holds a picture."""
    return any(kind in data for kind in _IMAGES)


def _decode(kind: str, value: object) -> bytes | None:
    text = "".join(map(str, value)) if isinstance(value, list) else value
    if not isinstance(text, str) or not text:
        return None
    if kind in _TEXT:
        return text.encode("utf-8", "backslashreplace")
    try:
        return base64.b64decode(text, validate=False)
    except (binascii.Error, ValueError):
        return None
