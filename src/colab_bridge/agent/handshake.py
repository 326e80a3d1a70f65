"""What the two ends tell one another when a link begins: who they are, whom they remember, and how far they are.

``HELLO`` (client), ``WELCOME`` (server), ``READY`` (client). The third step exists because bytes of an old connection
may arrive late: only a client that has just read the server's fresh epoch can send a ``READY`` that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .faults import ProtocolError
from .frames import (
    CODECS,
    Frame,
    FrameError,
    FrameType,
    Position,
    dump_object,
    pack_positions,
    parse_object,
    unpack_positions,
)
from .limits import MOST_STREAMS, PeerLimits

__all__ = ["MOST_POSITIONS", "VERSIONS", "Greeting", "farewell"]

VERSIONS = (1, 1)
"""Lowest and highest version of the rules of the channel that this side knows; the highest common one is used."""

MOST_POSITIONS = MOST_STREAMS + 2
_ID_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The content of ``HELLO`` and ``WELCOME``.

    Attributes:
        own_id: Random name of this side's state, drawn when the channel was made.
        peer_id: The peer's state that this side remembers, or None.
        epoch: Name of the link, chosen by the server; 0 in ``HELLO``.
        versions: Lowest and highest version of the rules.
        codecs: Compressions that can be unpacked.
        capabilities: From the application.
        limits: What this side accepts.
        highest: Highest id of a stream of the peer that this side has seen.
        positions: How far this side is on each stream that it knows.
    """

    own_id: int
    peer_id: int | None
    epoch: int = 0
    versions: tuple[int, int] = VERSIONS
    codecs: tuple[str, ...] = CODECS
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    limits: PeerLimits
    highest: int = 0
    positions: tuple[Position, ...] = ()

    def to_frame(self, kind: FrameType, epoch: int) -> Frame:
        """Return the frame of the given kind with this content."""
        header = {
            "id": f"{self.own_id:016x}",
            "peer": None if self.peer_id is None else f"{self.peer_id:016x}",
            "epoch": f"{self.epoch:016x}",
            "versions": list(self.versions),
            "codecs": list(self.codecs),
            "capabilities": self.capabilities,
            "limits": self.limits.to_json(),
            "highest": self.highest,
        }
        return Frame(kind, epoch=epoch, header=dump_object(header), payload=pack_positions(self.positions))

    @classmethod
    def from_frame(cls, frame: Frame) -> Greeting:
        """Check and read a greeting.

        Raises:
            ProtocolError: it makes no sense.
        """
        try:
            value = parse_object(frame.header)
            positions = unpack_positions(frame.payload, most=MOST_POSITIONS)
        except FrameError as error:
            raise ProtocolError(f"the greeting is not readable: {error}") from error
        peer = value.get("peer")
        codecs, capabilities, limits = value.get("codecs"), value.get("capabilities"), value.get("limits")
        if not isinstance(capabilities, dict) or not isinstance(limits, dict) or not isinstance(codecs, list):
            raise ProtocolError("the greeting lacks a part")
        return cls(
            own_id=_read_id(value.get("id")),
            peer_id=None if peer is None else _read_id(peer),
            epoch=_read_id(value.get("epoch")),
            versions=_read_versions(value.get("versions")),
            codecs=tuple(codec for codec in codecs if isinstance(codec, str)),
            capabilities=capabilities,
            limits=PeerLimits.from_json(limits),
            highest=_read_stream(value.get("highest")),
            positions=tuple(positions),
        )

    def common_version(self) -> int:
        """Return the version that both sides use.

        Raises:
            ProtocolError: there is none.
        """
        lowest, highest = max(self.versions[0], VERSIONS[0]), min(self.versions[1], VERSIONS[1])
        if lowest > highest:
            raise ProtocolError(f"the peer speaks versions {self.versions[0]} to {self.versions[1]} only")
        return highest

    def common_codec(self) -> str:
        """Return the best compression that both sides can do, or an empty text."""
        return next((codec for codec in CODECS if codec in self.codecs), "")


def _read_id(value: object) -> int:
    if not isinstance(value, str) or len(value) * 4 != _ID_BITS or not all(c in "0123456789abcdef" for c in value):
        raise ProtocolError("an id of the greeting is none")
    return int(value, 16)


def _read_versions(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(each) is int for each in value):
        raise ProtocolError("the greeting has no version range")
    return (value[0], value[1])


def _read_stream(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise ProtocolError("the greeting names an impossible stream")
    return value


def farewell(code: str, message: str, epoch: int) -> Frame:
    """Return the frame that ends a channel, or refuses one, with a word for the other end."""
    return Frame(FrameType.BYE, epoch=epoch, header=dump_object({"code": code, "message": message[:200]}))
