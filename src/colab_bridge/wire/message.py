"""A Jupyter message as bytes, and the few fields that a relay must read.

A relay must not change what it carries, so the five JSON parts stay the bytes they arrived as, and are parsed only when
somebody asks for a field.

Source: Jupyter messaging protocol 5.4, "General message format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["CHANNELS", "PROTOCOL_VERSION", "MessageError", "RawMessage", "dump_json"]

CHANNELS = ("shell", "control", "stdin", "iopub")
PROTOCOL_VERSION = "5.4"
#: A status or a reply is looked at by several rules; what people print is looked at once.
KEPT_CONTENT_BYTES = 4096


class MessageError(ValueError):
    """Bytes that claim to be a Jupyter message and are none."""


def dump_json(value: Any) -> bytes:
    """Encode a JSON value the way Jupyter does: UTF-8, no NaN rewriting, compact."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


class RawMessage:
    """One message: channel, four JSON parts as bytes, and binary buffers.

    Args:
        channel: ``shell``, ``control``, ``stdin`` or ``iopub``.
        header: JSON object with ``msg_id``, ``msg_type``, ``session`` ...
        parent: JSON object, header of the request that this message belongs to, or ``{}``.
        metadata: JSON object.
        content: JSON object; a large one may be a view into the frame that it came in, which is not copied then.
        buffers: Binary attachments, in order.
    """

    __slots__ = ("_content", "_header", "_parent", "_raw", "buffers", "channel", "header", "metadata", "parent")

    def __init__(
        self,
        channel: str,
        header: bytes,
        parent: bytes,
        metadata: bytes,
        content: bytes | memoryview,
        buffers: Sequence[bytes] = (),
    ) -> None:
        self.channel = channel
        self.header = header
        self.parent = parent
        self.metadata = metadata
        self._raw: bytes | memoryview | None = content
        self.buffers = list(buffers)
        self._header: dict[str, Any] | None = None
        self._parent: dict[str, Any] | None = None
        self._content: dict[str, Any] | None = None

    @classmethod
    def build(
        cls,
        channel: str,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        msg_id: str,
        session: str,
        parent: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
        username: str = "colab-bridge",
        date: datetime | None = None,
    ) -> RawMessage:
        """Make a message of our own.

        Args:
            channel: Where it goes.
            msg_type: For example ``execute_request``.
            content: The content part.
            msg_id: Unique id; replies name it as their parent.
            session: Our session id.
            parent: Header of the message that this one answers.
            metadata: The metadata part.
            buffers: Binary attachments.
            username: Who sends it.
            date: Time of the header; now (UTC) when omitted.
        """
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": session,
            "username": username,
            "date": (date or datetime.now(UTC)).isoformat(),
            "version": PROTOCOL_VERSION,
        }
        return cls(
            channel,
            dump_json(header),
            dump_json(parent or {}),
            dump_json(metadata or {}),
            dump_json(content),
            buffers,
        )

    def header_fields(self) -> dict[str, Any]:
        """Return the parsed header.

        Raises:
            MessageError: it is no JSON object.
        """
        if self._header is None:
            self._header = _parse_object(self.header, "header")
        return self._header

    def parent_fields(self) -> dict[str, Any]:
        """Return the parsed parent header, ``{}`` when there is none.

        Raises:
            MessageError: it is no JSON object.
        """
        if self._parent is None:
            self._parent = _parse_object(self.parent, "parent_header") if self.parent else {}
        return self._parent

    def content_fields(self) -> dict[str, Any]:
        """Return the parsed content, not to be changed. A large one is parsed anew at each call and not kept.

        Raises:
            MessageError: it is no JSON object.
        """
        if self._content is not None:
            return self._content
        content = _parse_object(self.raw_content, "content")
        if len(self.raw_content) <= KEPT_CONTENT_BYTES:
            self._content = content
        return content

    def keep_parsed_only(self) -> None:
        """Parse the content and let its bytes go, before the parsed values are there: half the memory for a large one.

        For whoever does not pass the message on: :attr:`content` is made anew from the values then.

        Raises:
            MessageError: it is no JSON object; it is empty from now on.
        """
        raw, self._raw = self.raw_content, None
        text = _text_of(raw, "content")
        del raw
        self._content = {}
        self._content = _parse_object(text, "content")

    @property
    def raw_content(self) -> bytes | memoryview:
        """The content as it is held, which copies nothing."""
        return dump_json(self._content) if self._raw is None else self._raw

    @property
    def content(self) -> bytes:
        """The content as bytes."""
        raw = self.raw_content
        return raw if isinstance(raw, bytes) else bytes(raw)

    @content.setter
    def content(self, value: bytes) -> None:
        self._raw, self._content = value, None

    def metadata_fields(self) -> dict[str, Any]:
        """Parse and return the metadata.

        Raises:
            MessageError: it is no JSON object.
        """
        return _parse_object(self.metadata, "metadata") if self.metadata else {}

    @property
    def msg_type(self) -> str:
        """``header.msg_type``, empty when absent."""
        return str(self.header_fields().get("msg_type", ""))

    @property
    def msg_id(self) -> str:
        """``header.msg_id``, empty when absent."""
        return str(self.header_fields().get("msg_id", ""))

    @property
    def parent_id(self) -> str:
        """``parent_header.msg_id``, empty when there is no parent."""
        return str(self.parent_fields().get("msg_id", ""))

    @property
    def size_bytes(self) -> int:
        """Payload bytes without framing."""
        parts = len(self.header) + len(self.parent) + len(self.metadata) + len(self.raw_content)
        return parts + sum(len(buffer) for buffer in self.buffers)

    def parts(self) -> tuple[str, bytes, bytes, bytes, bytes, tuple[bytes, ...]]:
        """Return everything as one comparable value."""
        return (self.channel, self.header, self.parent, self.metadata, self.content, tuple(self.buffers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawMessage) and other.parts() == self.parts()

    __hash__ = None  # type: ignore[assignment]  # mutable by design of the slots; equality is for tests

    def __repr__(self) -> str:
        try:
            what = f"{self.msg_type} {self.msg_id} <- {self.parent_id or '-'}"
        except MessageError:
            what = "unreadable"
        return f"<RawMessage {self.channel} {what}, {self.size_bytes} B>"


def _text_of(raw: bytes | memoryview, what: str) -> str:
    try:
        return str(raw, "utf-8", "surrogatepass")
    except ValueError as error:
        raise MessageError(f"{what} is no text: {error}") from error


def _parse_object(raw: bytes | memoryview | str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(_text_of(raw, what) if isinstance(raw, memoryview) else raw)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise MessageError(f"{what} is a JSON {type(value).__name__}, not an object")
    return value
