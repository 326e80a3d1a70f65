"""The two framings of Jupyter messages on a WebSocket. Bytes in, messages out, and back; no input or output.

``v1.kernel.websocket.jupyter.org``, always binary::

    u64 LE  number of offsets n
    u64 LE  n offsets from the start of the frame
    bytes   channel | header | parent | metadata | content | buffers ...   (offset i to offset i+1)

The default framing, without a subprotocol: a JSON text, or where there are buffers a binary frame::

    u32 BE  number of parts n (the JSON and the buffers)
    u32 BE  n offsets from the start of the frame
    bytes   JSON | buffers ...

Source: jupyter_server, "WebSocket kernel wire protocols".
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import Any

from colab_bridge.wire.message import CHANNELS, MessageError, RawMessage, dump_json

__all__ = [
    "COPIED_BYTES",
    "V1_SUBPROTOCOL",
    "decode",
    "decode_json",
    "decode_v1",
    "encode",
    "encode_json",
    "encode_v1",
    "v1_chunks",
]

V1_SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"

#: channel, header, parent, metadata, content, and the end of the content.
_FIXED_OFFSETS = 6
_U64 = struct.Struct("<Q")
_U32 = struct.Struct("!I")
#: A larger content stays a view into its frame.
COPIED_BYTES = 1024 * 1024
_MAX_U32 = 2**32 - 1
_CHANNEL_NAMES = {name.encode(): name for name in CHANNELS}

Data = bytes | bytearray | memoryview


def encode_v1(message: RawMessage) -> bytes:
    """Return the v1 frame of a message; its parts go in byte for byte."""
    return b"".join(v1_chunks(message))


def v1_chunks(message: RawMessage) -> list[bytes | memoryview]:
    """Return the v1 frame of a message in pieces that follow each other, so that large parts need not be copied."""
    parts: list[bytes | memoryview] = [
        message.channel.encode(),
        message.header,
        message.parent,
        message.metadata,
        message.raw_content,
        *message.buffers,
    ]
    count = len(parts) + 1
    offset = 8 * (count + 1)
    offsets = [offset]
    for part in parts:
        offset += len(part)
        offsets.append(offset)
    return [struct.pack(f"<{count + 1}Q", count, *offsets), *parts]


def decode_v1(data: Data) -> RawMessage:
    """Read a v1 frame.

    Args:
        data: One whole binary frame, not to be changed while the message lives.

    Raises:
        MessageError: the frame is not what the protocol says.
    """
    size = len(data)
    if size < 8:
        raise MessageError("v1 frame is shorter than its count")
    (count,) = _U64.unpack_from(data)
    if count < _FIXED_OFFSETS or count > (size - 8) // 8:
        raise MessageError(f"v1 frame of {size} bytes claims {count} offsets")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    previous = 8 * (count + 1)
    for offset in offsets:
        if offset < previous or offset > size:
            raise MessageError("v1 frame has offsets out of order or out of range")
        previous = offset
    view = memoryview(data)
    spans = list(pairwise(offsets))
    name, header, parent, metadata = (bytes(view[start:end]) for start, end in spans[:4])
    channel = _CHANNEL_NAMES.get(name)
    if channel is None:
        raise MessageError("v1 frame names no known channel")
    begin, end = spans[4]
    content = view[begin:end] if end - begin > COPIED_BYTES else bytes(view[begin:end])
    return RawMessage(channel, header, parent, metadata, content, [bytes(view[start:end]) for start, end in spans[5:]])


def encode_json(message: RawMessage) -> str | bytes:
    """Return the default framing of a message: a text without buffers, else bytes.

    Raises:
        MessageError: a part is no JSON object, or a buffer begins beyond 4 GiB.
    """
    value = {
        "header": message.header_fields(),
        "parent_header": message.parent_fields(),
        "metadata": message.metadata_fields(),
        "content": message.content_fields(),
        "channel": message.channel,
        "buffers": [],
    }
    if not message.buffers:
        return dump_json(value).decode("utf-8")
    parts = [dump_json(value), *message.buffers]
    offset = 4 * (len(parts) + 1)
    offsets = []
    for part in parts:
        offsets.append(offset)
        offset += len(part)
    if offsets[-1] > _MAX_U32:
        raise MessageError("message is too large for the default framing (4 GiB)")
    return b"".join((struct.pack(f"!{len(parts) + 1}I", len(parts), *offsets), *parts))


def decode_json(data: str | Data) -> RawMessage:
    """Read a frame in the default framing.

    Args:
        data: One whole frame, text or binary.

    Raises:
        MessageError: the frame is not what the protocol says.
    """
    if isinstance(data, str):
        return _from_value(_load(data), [])
    parts = _split_json(data)
    return _from_value(_load(parts[0]), parts[1:])


def _split_json(data: Data) -> list[bytes]:
    size = len(data)
    if size < 4:
        raise MessageError("binary frame is shorter than its count")
    (count,) = _U32.unpack_from(data)
    if count < 1 or count > (size - 4) // 4:
        raise MessageError(f"binary frame of {size} bytes claims {count} parts")
    offsets = [*struct.unpack_from(f"!{count}I", data, 4), size]
    previous = 4 * (count + 1)
    for offset in offsets:
        if offset < previous or offset > size:
            raise MessageError("binary frame has offsets out of order or out of range")
        previous = offset
    view = memoryview(data)
    return [bytes(view[start:end]) for start, end in pairwise(offsets)]


def _load(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"frame is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise MessageError("frame is no JSON object")
    return value


def _from_value(value: dict[str, Any], buffers: list[bytes]) -> RawMessage:
    channel = value.get("channel") or "shell"
    if channel not in CHANNELS:
        raise MessageError("frame names no known channel")
    parts = [value.get(name) or {} for name in ("header", "parent_header", "metadata", "content")]
    if not all(isinstance(part, dict) for part in parts):
        raise MessageError("a part of the message is no JSON object")
    try:
        header, parent, metadata, content = (dump_json(part) for part in parts)
    except RecursionError as error:  # writing may need a little more depth than reading did
        raise MessageError("frame is nested too deeply") from error
    return RawMessage(channel, header, parent, metadata, content, buffers)


def encode(message: RawMessage, subprotocol: str | None) -> str | bytes:
    """Encode for the subprotocol that the server chose; None is the default framing."""
    return encode_v1(message) if subprotocol == V1_SUBPROTOCOL else encode_json(message)


def decode(data: str | Data, subprotocol: str | None) -> RawMessage:
    """Decode from the subprotocol that the server chose; None is the default framing.

    Raises:
        MessageError: the frame is not what the protocol says.
    """
    if subprotocol != V1_SUBPROTOCOL:
        return decode_json(data)
    if isinstance(data, str):
        raise MessageError("a text frame in the v1 protocol")
    return decode_v1(data)
