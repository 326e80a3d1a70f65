"""What a channel tells its application. Events come in order from :meth:`~.channel.Channel.next_event`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Union

from .faults import ProtocolError

__all__ = [
    "CallCancelled",
    "CallError",
    "CallReceived",
    "CallResult",
    "CallWithdrawn",
    "ChannelClosed",
    "Event",
    "LinkDead",
    "LinkUp",
    "Notified",
    "PeerReset",
    "Piece",
    "Priority",
    "StreamClosed",
    "StreamData",
    "StreamGap",
    "StreamOpened",
    "Unacknowledged",
    "Writable",
]


class Priority(IntEnum):
    """Which streams go first."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUp:
    """The handshake is done; traffic flows.

    Attributes:
        link: Number of the link, as :meth:`~.channel.Channel.connected` gave it.
        resumed: The peer remembers everything: streams and calls go on where they were.
        version: Protocol version in use.
        codec: Compression that both ends can do, or empty.
        capabilities: What the peer's application said about itself.
    """

    link: int
    resumed: bool
    version: int
    codec: str
    capabilities: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDead:
    """The link cannot be used any more: close the transport, connect anew. Nothing is lost by it.

    Attributes:
        link: Number of the link.
        reason: ``silent`` (black hole), ``handshake`` (no answer), ``damaged`` (no frames), ``gap`` (frames missing).
        detail: One line for a log.
    """

    link: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A message, or a part of one, that the lost peer had not consumed."""

    number: int
    header: bytes
    payload: bytes
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unacknowledged:
    """What the lost peer had not consumed of a stream; ``pieces`` are in order, none is missing."""

    stream: int
    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerReset:
    """The peer has lost its state (it was started anew, or another one took its place).

    All streams are gone and all calls have ended; the ends of the calls come as events of their own before this one.

    Attributes:
        streams: The streams that were open, each with what the peer's application had not consumed.
        notifications: How many notifications it had not taken.
    """

    streams: tuple[Unacknowledged, ...]
    notifications: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelClosed:
    """The channel is closed for good. ``error`` says which rule the peer broke; ``None`` after an orderly goodbye."""

    error: ProtocolError | None
    by_peer: bool
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """The peer opened a stream. It wants this side's messages from number ``resume_from`` on."""

    stream: int
    name: str
    params: Mapping[str, Any]
    priority: Priority
    resume_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamData:
    """A message or a piece of one. Call ``consumed(stream, seq)`` when it is done with, or the stream comes to a halt.

    Attributes:
        stream: Where it came.
        seq: What to give to ``consumed``.
        number: The message's number, the same for all its pieces; the cursor to resume from.
        header: The message's header with its first piece, ``None`` with the others.
        payload: Binary part.
        final: The message ends here.
    """

    stream: int
    seq: int
    number: int
    header: Mapping[str, Any] | None
    payload: bytes
    final: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGap:
    """The sender has declared that the messages ``first`` to ``last`` do not exist any more."""

    stream: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """The peer sends nothing more on this stream. The own direction stays open until ``close_stream``."""

    stream: int
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Writable:
    """A stream that refused data has room again. Streams 0 and 1 carry the calls."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReceived:
    """The peer calls. Answer with ``respond`` or ``fail`` within ``timeout_s``."""

    call: int
    method: str
    params: Mapping[str, Any]
    payload: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallWithdrawn:
    """The peer does not wait for this call's answer any more: ``cancelled``, ``deadline``, ``reset`` or ``closed``."""

    call: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallResult:
    """An own call has ended well."""

    call: int
    result: Mapping[str, Any]
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CallError:
    """An own call has failed. Codes of the channel: ``deadline``, ``reset`` (the peer lost it), ``closed``."""

    call: int
    code: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCancelled:
    """An own call has ended because it was cancelled, by this side or by the peer."""

    call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notified:
    """The peer tells something and expects no answer."""

    method: str
    params: Mapping[str, Any]
    payload: bytes


# The form that works at run time on Python 3.10 under any checker setting.
Event = Union[
    LinkUp,
    LinkDead,
    PeerReset,
    ChannelClosed,
    StreamOpened,
    StreamData,
    StreamGap,
    StreamClosed,
    Writable,
    CallReceived,
    CallWithdrawn,
    CallResult,
    CallError,
    CallCancelled,
    Notified,
]
