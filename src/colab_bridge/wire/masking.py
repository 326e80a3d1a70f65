"""Hides secrets that were handed to a kernel: in what it publishes, and in what is kept of a request. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

from colab_bridge.wire.message import RawMessage

__all__ = ["MASK", "Masks", "without_answer"]

MASK: Final = "[secret hidden by colab-bridge]"

#: A shorter value occurs by chance, and hiding it everywhere would garble what a program prints.
SHORTEST_VALUE = 6


class Masks:
    """Values that must not appear in outputs.

    Only whole values inside one message are found: a program that prints a secret letter by letter, or encoded, is not
    stopped. This keeps secrets out of notebooks by accident, it is no wall against the code that holds them.
    """

    def __init__(self) -> None:
        self._forms: set[bytes] = set()
        self._pattern: re.Pattern[bytes] | None = None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def add(self, value: str) -> bool:
        """Hide a value from now on.

        Returns:
            False for a value that is too short to be looked for.
        """
        if len(value) < SHORTEST_VALUE:
            return False
        # As JSON writes it, with and without letters beyond ASCII, and as the repr of a string inside that.
        for text in (value, repr(value)[1:-1]):
            for ascii_only in (True, False):
                self._forms.add(json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode("utf-8", "backslashreplace"))
        # A value may be part of another one: the longest first.
        self._pattern = re.compile(b"|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True)))
        return True

    def hide(self, message: RawMessage) -> RawMessage:
        """Return the message with every value hidden; the same object where there was none."""
        if self._pattern is None:
            return message
        content, found = self._pattern.subn(MASK.encode(), message.raw_content)
        if not found:
            return message
        return RawMessage(message.channel, message.header, message.parent, message.metadata, content, message.buffers)


def without_answer(message: RawMessage) -> RawMessage:
    """Return a request as it may lie on a disk: without what was typed or handed over, which may be a secret."""
    if message.channel != "stdin":
        return message
    return RawMessage("stdin", message.header, message.parent, message.metadata, b"{}")
