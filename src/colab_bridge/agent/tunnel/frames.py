"""The two forms of a kernel message that meet in the agent, and the few fields that it looks at.

ZMQ frames: identities, a delimiter, the signature, four JSON parts, buffers. The journal and the daemon have them in
the framing ``v1.kernel.websocket.jupyter.org``::

    u64 LE  number of offsets n
    u64 LE  n offsets from the start of the frame
    bytes   channel | header | parent | metadata | content | buffers ...   (offset i to offset i+1)

The parts are never written anew: they pass byte for byte.

Source: Jupyter messaging protocol 5.4, "The Wire Protocol"; jupyter_server, "WebSocket kernel wire protocols".
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Sequence
from typing import Any

__all__ = ["CHANNELS", "DELIMITER", "FrameFault", "Signer", "fields", "pack", "split_zmq", "unpack"]

CHANNELS = ("shell", "control", "stdin", "iopub")
DELIMITER = b"<IDS|MSG>"
_NAMES = {name.encode(): name for name in CHANNELS}
_FIXED_OFFSETS = 6
_U64 = struct.Struct("<Q")
_JOINED_BYTES = 64 * 1024


class FrameFault(Exception):
    """Bytes that claim to be a kernel message and are none."""


def pack(channel: str, parts: Sequence[bytes]) -> list[bytes]:
    """Return the v1 frame of a message in chunks that follow each other: a long part is one, and is not copied.

    Args:
        channel: One of :data:`CHANNELS`.
        parts: Header, parent, metadata, content and the buffers.
    """
    name = channel.encode()
    count = len(parts) + 2
    offset = 8 * (count + 1)
    offsets = [offset]
    offset += len(name)
    offsets.append(offset)
    for part in parts:
        offset += len(part)
        offsets.append(offset)
    chunks = [struct.pack(f"<{count + 1}Q", count, *offsets), name, *parts]
    return [b"".join(chunks)] if offset <= _JOINED_BYTES else chunks


def unpack(data: bytes) -> tuple[str, list[bytes]]:
    """Return channel and parts of a v1 frame.

    Raises:
        FrameFault: it is none.
    """
    size = len(data)
    if size < 8:
        raise FrameFault("a v1 frame is shorter than its count")
    (count,) = _U64.unpack_from(data)
    if count < _FIXED_OFFSETS or count > (size - 8) // 8:
        raise FrameFault(f"a v1 frame of {size} bytes claims {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    before = 8 * (count + 1)
    for offset in offsets:
        if offset < before or offset > size:
            raise FrameFault("a v1 frame has offsets out of order or out of range")
        before = offset
    parts = [data[offsets[at] : offsets[at + 1]] for at in range(count - 1)]
    channel = _NAMES.get(parts[0])
    if channel is None:
        raise FrameFault("a v1 frame names no known channel")
    return channel, parts[1:]


def fields(part: bytes) -> dict[str, Any]:
    """Return a JSON part as an object; empty when it is none."""
    try:
        value = json.loads(part)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


class Signer:
    """Signs messages with the key of a connection file, and checks signatures.

    Args:
        key: Empty when messages are not signed.
        digest: Name of the hash function.
    """

    def __init__(self, key: bytes, digest: str) -> None:
        self._mac = hmac.new(key, digestmod=digest) if key else None

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the signature of the four JSON parts, in hexadecimal digits; empty without a key."""
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode("ascii")

    def is_genuine(self, parts: Sequence[bytes], signature: bytes) -> bool:
        """Return whether the four JSON parts were signed with the key."""
        return self._mac is None or hmac.compare_digest(self.sign(parts), signature)


def split_zmq(frames: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return signature and parts (four and the buffers) of a ZMQ message.

    Raises:
        FrameFault: the delimiter or a part is missing.
    """
    at = next((at for at, frame in enumerate(frames) if frame == DELIMITER), -1)
    if at < 0:
        raise FrameFault("a ZMQ message without a delimiter")
    if len(frames) < at + 6:
        raise FrameFault("a ZMQ message with too few frames")
    return frames[at + 1], list(frames[at + 2 :])
