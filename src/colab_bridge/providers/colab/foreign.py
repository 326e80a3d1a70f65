"""Reading JSON that somebody else wrote: what is needed must be there, everything else may change. Pure.

A field that is missing or has another type is named, so that a report says at once what Google changed.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from colab_bridge.errors import InternalError

__all__ = ["Fields", "ProtocolChangedError", "jwt_claims", "one_line", "parse_document"]

#: What Google's front ends put before JSON, so that no page can load it as a script.
XSSI_PREFIX = b")]}'"
_MOST_ITEMS = 1_000


class ProtocolChangedError(InternalError):
    """An answer of Google's lacks something without which we cannot go on.

    Args:
        where: ``<endpoint>.<field>``.
    """

    default_code = "CB-COLAB-090"

    def __init__(self, where: str) -> None:
        super().__init__(
            f"protocol changed: {where}",
            hint="update Colab Bridge; if it is the newest, report this line: colab-bridge doctor",
        )


def parse_document(endpoint: str, body: bytes) -> Fields:
    """Read the JSON object of an answer, with or without Google's prefix.

    Args:
        endpoint: Name for messages, such as ``assign``.
        body: The answer's body.

    Raises:
        ProtocolChangedError: it is no JSON object.
    """
    try:
        value = json.loads(body.lstrip().removeprefix(XSSI_PREFIX))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ProtocolChangedError(f"{endpoint}.(body)")
    return Fields(endpoint, value)


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of an answer.

    Attributes:
        where: Path of the object, for messages.
        values: Its members, unchecked.
    """

    where: str
    values: Mapping[str, Any] = field(repr=False)  # may hold tokens

    def has(self, name: str) -> bool:
        """Return whether there is a member that is not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """Return a member that must be a text and not empty.

        Raises:
            ProtocolChangedError: it is not.
        """
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise ProtocolChangedError(f"{self.where}.{name}")
        return value

    def word(self, name: str) -> str:
        """Return a member as one short line; empty when it is absent or no text."""
        value = self.values.get(name)
        return one_line(value) if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """Return a member that is a number, or a text that holds one as ProtoJSON writes 64 bits; None else."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None

    def flag(self, name: str) -> bool:
        """Return whether a member is true."""
        return self.values.get(name) is True

    def inner(self, name: str) -> Fields:
        """Return a member that must be an object.

        Raises:
            ProtocolChangedError: it is not.
        """
        found = self.maybe(name)
        if found is None:
            raise ProtocolChangedError(f"{self.where}.{name}")
        return found

    def maybe(self, name: str) -> Fields | None:
        """Return a member that is an object, None when it is absent or something else."""
        value = self.values.get(name)
        return Fields(f"{self.where}.{name}", value) if isinstance(value, dict) else None

    def each(self, name: str) -> Iterator[Fields]:
        """Yield the objects of a list; what is no object is left out, an absent list is empty."""
        value = self.values.get(name)
        for item in value[:_MOST_ITEMS] if isinstance(value, list) else ():
            if isinstance(item, dict):
                yield Fields(f"{self.where}.{name}[]", item)

    def words(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list in upper case, each once; an absent list is empty."""
        value = self.values.get(name)
        texts = [item for item in value[:_MOST_ITEMS] if isinstance(item, str)] if isinstance(value, list) else []
        return tuple(dict.fromkeys(one_line(text).upper() for text in texts if text.strip()))


def one_line(text: str, limit: int = 200) -> str:
    """Return foreign text so that it can be shown: one line, bounded, without control codes."""
    shown = "".join(c if c.isprintable() else " " for c in text[: limit * 4])
    return " ".join(shown.split())[:limit]


_JWT = re.compile(r"[A-Za-z0-9_-]{1,4000}\.([A-Za-z0-9_-]{1,4000})\.[A-Za-z0-9_-]{0,4000}")


def jwt_claims(token: str) -> Fields:
    """Return what a token says about itself; nothing is verified, so it is a hint only. Empty when it is no JWT."""
    found = _JWT.fullmatch(token)
    if found is None:
        return Fields("jwt", {})
    payload = found.group(1)
    try:
        value = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        value = None
    return Fields("jwt", value if isinstance(value, dict) else {})
