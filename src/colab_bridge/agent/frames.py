"""The frame codec of the channel between the daemon and the agent: bytes to frames and back, nothing else.

A frame is a fixed header of 60 bytes, a JSON object (may be absent) and a binary payload (may be empty)::

    magic 2 | version 1 | type 1 | flags 2 | zero 2 | stream 4 | epoch 8 | seq 8 | ack 8 | number 8
    | json length 4 | payload length 4 | raw length 4 | crc32 4 | json ... | payload ...

All numbers are unsigned, big-endian. The checksum covers everything but itself. Lengths are checked against the limits
as soon as the fixed header is there, before anything is reserved for the rest. docs/design/channel.md gives the meaning
of each field. Every fault of the sender ends in :class:`FrameError`, never in another exception.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

__all__ = [
    "CODECS",
    "FLAG_MORE",
    "FLAG_ZLIB",
    "HEAD_BYTES",
    "MAX_FRAME_BYTES",
    "MAX_HEADER_BYTES",
    "VERSION",
    "Frame",
    "FrameError",
    "FrameReader",
    "FrameType",
    "Position",
    "dump_object",
    "encode",
    "encode_parts",
    "pack_positions",
    "parse_object",
    "unpack_positions",
]

MAGIC = b"\xc0\xb1"
VERSION = 1
MAX_FRAME_BYTES = 4 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
FLAG_ZLIB = 1
FLAG_MORE = 2
CODECS = ("zlib",)
"""Compressions that this side can do, best first. ``zstd`` is reserved for interpreters that bring it (3.14)."""

_KNOWN_FLAGS = FLAG_ZLIB | FLAG_MORE
_HEAD = struct.Struct("!2sBBHHIQQQQIII")
_CRC = struct.Struct("!I")
HEAD_BYTES = _HEAD.size + _CRC.size
_POSITION = struct.Struct("!IQQ")
# Below this size the checksum and the header outweigh what compression saves.
_COMPRESS_FROM_BYTES = 512
_COMPRESS_LEVEL = 1


class FrameError(ValueError):
    """Bytes that claim to be frames and are none, or break a limit."""


class FrameType(IntEnum):
    """What a frame says. From ``OPEN`` on, frames are numbered within their stream and acknowledged."""

    HELLO = 1
    WELCOME = 2
    READY = 3
    PING = 4
    PONG = 5
    ACK = 6
    BYE = 7
    OPEN = 16
    DATA = 17
    CLOSE = 18
    CALL = 24
    RESULT = 25
    ERROR = 26
    CANCEL = 27
    NOTIFY = 28


_TYPES: dict[int, FrameType] = {int(kind): kind for kind in FrameType}


class Frame(NamedTuple):
    """One frame.

    Attributes:
        kind: What it says.
        stream: Stream that it belongs to, 0 where it belongs to none.
        epoch: Random name of the connection; frames of another one are stale.
        seq: Number of this frame within its stream and direction, from 0; 0 for unnumbered types.
        ack: Number of the frame that its sender expects next on this stream.
        number: Message number (``DATA``), call id (calls), or the echo of a ``PING``.
        flags: ``FLAG_MORE``: the message goes on in the next frame. ``FLAG_ZLIB`` is set and cleared by the codec.
        header: JSON object as bytes, or empty.
        payload: Binary part, uncompressed.
    """

    kind: FrameType
    stream: int = 0
    epoch: int = 0
    seq: int = 0
    ack: int = 0
    number: int = 0
    flags: int = 0
    header: bytes = b""
    payload: bytes | memoryview = b""


class Position(NamedTuple):
    """How far a receiver is on a stream: all before ``received`` has come, all before ``consumed`` is done with."""

    stream: int
    received: int
    consumed: int


def encode(frame: Frame, *, compress: bool = False) -> bytes:
    """Turn a frame into bytes; see :func:`encode_parts`."""
    return b"".join(encode_parts(frame, compress=compress))


def encode_parts(frame: Frame, *, compress: bool = False) -> tuple[bytes | memoryview, ...]:
    """Turn a frame into bytes that follow each other, so that its payload is not copied here.

    Args:
        frame: Its parts must keep the limits of the protocol; the channel sees to that.
        compress: Compress the payload with zlib where that makes it smaller.

    Raises:
        FrameError: it would break a limit that every receiver enforces.
    """
    payload: bytes | memoryview = frame.payload
    flags = frame.flags
    raw_length = len(payload)
    if compress and raw_length >= _COMPRESS_FROM_BYTES:
        packed = zlib.compress(payload, _COMPRESS_LEVEL)
        if len(packed) < raw_length:
            payload, flags = packed, flags | FLAG_ZLIB
    if len(frame.header) > MAX_HEADER_BYTES or HEAD_BYTES + len(frame.header) + raw_length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(frame.header)} + {raw_length} bytes is too large")
    head = _HEAD.pack(
        MAGIC,
        VERSION,
        frame.kind,
        flags,
        0,
        frame.stream,
        frame.epoch,
        frame.seq,
        frame.ack,
        frame.number,
        len(frame.header),
        len(payload),
        raw_length,
    )
    crc = zlib.crc32(payload, zlib.crc32(frame.header, zlib.crc32(head)))
    return (head, _CRC.pack(crc), frame.header, payload)


class _Head(NamedTuple):
    frame: Frame
    head: bytes
    header_length: int
    payload_length: int
    raw_length: int

    @property
    def total(self) -> int:
        return HEAD_BYTES + self.header_length + self.payload_length


class FrameReader:
    """Cuts a stream of bytes into frames. It keeps less than one frame, and stays broken after the first fault.

    Args:
        max_frame_bytes: Longest frame that is accepted, on the wire and after unpacking.
    """

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._fault: str | None = None

    @property
    def buffered_bytes(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Take bytes as they come and yield the frames that are complete now.

        Raises:
            FrameError: the bytes are no frame; nothing after them can be trusted.
        """
        self._buffer += data
        while True:
            try:
                frame = self._next()
            except FrameError as fault:
                self._fault = str(fault)
                self._buffer.clear()
                raise
            if frame is None:
                return
            yield frame

    def _next(self) -> Frame | None:
        if self._fault is not None:
            raise FrameError(self._fault)
        if self._head is None:
            self._head = self._read_head()
        head = self._head
        if head is None or len(self._buffer) < head.total:
            return None
        with memoryview(self._buffer) as view:
            header = bytes(view[HEAD_BYTES : HEAD_BYTES + head.header_length])
            payload = bytes(view[HEAD_BYTES + head.header_length : head.total])
        del self._buffer[: head.total]
        self._head = None
        return _finish(head, header, payload)

    def _read_head(self) -> _Head | None:
        # The first bytes are judged at once, so that a foreign peer is noticed before it has sent sixty of them.
        start = bytes(self._buffer[:3])
        if start != (MAGIC + bytes((VERSION,)))[: len(start)]:
            raise FrameError("not a frame of this protocol")
        if len(self._buffer) < HEAD_BYTES:
            return None
        head = bytes(self._buffer[:HEAD_BYTES])
        fields = _HEAD.unpack_from(head)
        _, _, kind, flags, zero, stream, epoch, seq, ack, number, header_length, payload_length, raw_length = fields
        if kind not in _TYPES or flags & ~_KNOWN_FLAGS or zero:
            raise FrameError(f"unknown frame type {kind} or flags {flags:#x}")
        if header_length > MAX_HEADER_BYTES:
            raise FrameError(f"a header of {header_length} bytes is too long")
        if HEAD_BYTES + header_length + max(payload_length, raw_length) > self._max_frame_bytes:
            raise FrameError(f"a frame of {max(payload_length, raw_length)} bytes is too long")
        if payload_length >= raw_length if flags & FLAG_ZLIB else payload_length != raw_length:
            raise FrameError("the lengths contradict one another")
        frame = Frame(_TYPES[kind], stream, epoch, seq, ack, number, flags & ~FLAG_ZLIB)
        return _Head(frame, head, header_length, payload_length, raw_length)


def _finish(head: _Head, header: bytes, payload: bytes) -> Frame:
    expected = _CRC.unpack_from(head.head, _HEAD.size)[0]
    if zlib.crc32(payload, zlib.crc32(header, zlib.crc32(head.head[: _HEAD.size]))) != expected:
        raise FrameError("the checksum does not match")
    if head.raw_length != head.payload_length:
        payload = _inflate(payload, head.raw_length)
    return head.frame._replace(header=header, payload=payload)


def _inflate(packed: bytes, raw_length: int) -> bytes:
    """Unpack at most one byte more than announced, so that a bomb costs no more than its announcement."""
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(packed, raw_length + 1)
    except zlib.error as error:
        raise FrameError("the payload cannot be unpacked") from error
    if len(raw) != raw_length or not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
        raise FrameError("the payload does not have its announced length")
    return raw


def dump_object(value: Mapping[str, Any]) -> bytes:
    """Encode a JSON object as compact ASCII.

    Raises:
        FrameError: it has no JSON form (NaN, foreign types, cycles), or is longer than a header may be.
    """
    try:
        raw = _ENCODER.encode(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameError(f"the header has no JSON form: {error}") from error
    if len(raw) > MAX_HEADER_BYTES:
        raise FrameError(f"a header of {len(raw)} bytes is too long; put large values into the payload")
    return raw


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object; an empty header is an empty object.

    Raises:
        FrameError: it is no JSON object, or holds NaN or infinities.
    """
    if not raw:
        return {}
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError("the header is no JSON") from error
    if not isinstance(value, dict):
        raise FrameError("the header is no JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


# Made once: making them takes longer than what they do with a header.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def pack_positions(positions: Iterable[Position]) -> bytes:
    """Encode positions for ``ACK``, ``HELLO`` and ``WELCOME``: stream 4, received 8, consumed 8 bytes each."""
    return b"".join(_POSITION.pack(*position) for position in positions)


def unpack_positions(payload: bytes | memoryview, *, most: int) -> list[Position]:
    """Decode positions.

    Args:
        payload: As packed.
        most: How many may be there.

    Raises:
        FrameError: too many, a part of one, a stream twice, or more consumed than received.
    """
    if len(payload) % _POSITION.size or len(payload) // _POSITION.size > most:
        raise FrameError("a list of positions has a wrong length")
    positions = [Position(*fields) for fields in _POSITION.iter_unpack(payload)]
    if any(position.consumed > position.received for position in positions):
        raise FrameError("more was consumed than received")
    if len({position.stream for position in positions}) != len(positions):
        raise FrameError("a stream is listed twice")
    return positions
