"""The first line that each end of a connection says, before the channel begins: who asks, and who may come in.

Pure functions; docs/design/agent.md has the fields. A line is a JSON object of at most 4 KiB and ends with a line feed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST_BYTES", "VERSION", "Preamble", "PreambleError", "dump_line", "parse_line"]

MOST_BYTES = 4096
VERSION = 1
_MOST_TEXT_CHARS = 200


class PreambleError(ValueError):
    """A first line that is none."""


@dataclass(frozen=True)
class Preamble:
    """What a daemon says first.

    Attributes:
        owner: Id of the daemon, the same over its restarts.
        label: ``user@host`` of the daemon, for other people's eyes.
        take: Take the agent from another daemon.
        want: Content hash of the agent that the daemon has; empty when any will do.
        probe: Only ask whether somebody answers here; nothing follows.
    """

    owner: str = ""
    label: str = ""
    take: bool = False
    want: str = ""
    probe: bool = False

    def to_line(self) -> bytes:
        """Return the line."""
        return dump_line(
            {
                "v": VERSION,
                "owner": self.owner,
                "label": self.label[:_MOST_TEXT_CHARS],
                "take": self.take,
                "want": self.want,
                "probe": self.probe,
            }
        )

    @classmethod
    def from_line(cls, line: bytes) -> Preamble:
        """Read the line.

        Raises:
            PreambleError: it is none, or no owner is named.
        """
        value = parse_line(line)
        owner, probe = _text(value, "owner"), value.get("probe") is True
        if not owner and not probe:
            raise PreambleError("the preamble names no owner")
        return cls(
            owner=owner,
            label=_text(value, "label"),
            take=value.get("take") is True,
            want=_text(value, "want"),
            probe=probe,
        )


def parse_line(line: bytes) -> dict[str, Any]:
    """Read any first line.

    Raises:
        PreambleError: it is no JSON object, too long, or of another version.
    """
    if len(line) > MOST_BYTES:
        raise PreambleError(f"a preamble has more than {MOST_BYTES} bytes")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PreambleError("a preamble is no JSON") from error
    if not isinstance(value, dict):
        raise PreambleError("a preamble is no JSON object")
    if value.get("v") != VERSION:
        raise PreambleError(f"a preamble is of version {str(value.get('v'))[:20]}, not {VERSION}")
    return value


def dump_line(value: Mapping[str, Any]) -> bytes:
    """Return a first line."""
    return json.dumps(value).encode("ascii") + b"\n"


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value.get(key)
    return found[:_MOST_TEXT_CHARS] if isinstance(found, str) else ""
