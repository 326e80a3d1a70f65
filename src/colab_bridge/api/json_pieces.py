"""JSON in pieces, so that one giant string in a value is not held several times while it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["json_pieces"]

#: Characters of a string that are encoded at once; a longer string goes out in several pieces.
PIECE_CHARACTERS = 256 * 1024
#: Where giant strings are looked for: an event, its bundle, one bundle more. Deeper ones are encoded as a whole.
MAX_DEPTH = 3


def json_pieces(value: Any, depth: int = MAX_DEPTH) -> Iterator[bytes]:
    """Yield the compact JSON of a value; half a character, which user code may print, is no error."""
    if isinstance(value, str) and len(value) > PIECE_CHARACTERS:
        yield b'"'
        for start in range(0, len(value), PIECE_CHARACTERS):
            yield _dump(value[start : start + PIECE_CHARACTERS])[1:-1]
        yield b'"'
    elif isinstance(value, dict) and depth:
        opening = b"{"
        for key, member in value.items():
            yield opening + _dump(str(key)) + b":"
            yield from json_pieces(member, depth - 1)
            opening = b","
        yield b"}" if value else b"{}"
    else:
        yield _dump(value)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
