"""The three ways to send a file to Drive: plain, in one piece with its description, and in resumable chunks. No I/O.

Source: Drive API v3, "Upload file data".
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from colab_bridge.testing.colab.refused import RefusedValueError

__all__ = ["CHUNK_BYTES", "Chunk", "Upload", "content_range", "multipart_related"]

#: Every chunk but the last has a multiple of this size.
CHUNK_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_BOUNDARY: Final = re.compile(r"boundary=(?:\"([^\"]+)\"|([^;\s]+))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What a ``Content-Range`` says.

    Attributes:
        start: First byte; None when only the state is asked for.
        end: Byte after the last one; None likewise.
        total: Size of the file; None while the client does not know it.
    """

    start: int | None
    end: int | None
    total: int | None


@dataclass(slots=True, kw_only=True)
class Upload:
    """A resumable upload on its way.

    Attributes:
        metadata: Description of the file.
        file_id: File whose content is replaced; empty for a new one.
        mime_type: Type of the content.
        total: Announced size in bytes; None while unknown.
        account: Whose Drive it goes to.
        app: Client that sends it.
        expires_at: Unix seconds.
        content: What has arrived.
    """

    metadata: dict[str, Any]
    file_id: str
    mime_type: str
    total: int | None
    account: str
    app: str
    expires_at: float
    content: bytearray = field(default_factory=bytearray)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def take(self, chunk: Chunk, data: bytes) -> bool:
        """Take a chunk.

        Returns:
            True when the file is complete.

        Raises:
            RefusedValueError: it does not fit.
        """
        if chunk.total is not None:
            if self.total is not None and chunk.total != self.total:
                raise RefusedValueError(f"total {chunk.total}", f"the announced size {self.total}")
            self.total = chunk.total
        if chunk.start is None or chunk.end is None:
            if data:
                raise RefusedValueError("a body with a question for the state", "no body")
            return self.complete
        if chunk.start != len(self.content):
            raise RefusedValueError(f"a chunk from byte {chunk.start}", f"a chunk from byte {len(self.content)}")
        if chunk.end - chunk.start != len(data):
            raise RefusedValueError(f"{len(data)} bytes", f"{chunk.end - chunk.start}, as the Content-Range says")
        if self.total is not None and chunk.end > self.total:
            raise RefusedValueError(f"bytes up to {chunk.end}", f"{self.total} at most")
        if chunk.end != self.total and len(data) % CHUNK_BYTES:
            raise RefusedValueError(f"a chunk of {len(data)} bytes", f"a multiple of {CHUNK_BYTES}")
        self.content += data
        return self.complete

    @property
    def complete(self) -> bool:
        """Whether everything is here."""
        return self.total is not None and len(self.content) == self.total


def content_range(header: str, size: int) -> Chunk:
    """Read a ``Content-Range``.

    Args:
        header: Its value; empty means that the body is the whole file.
        size: Size of the body.

    Raises:
        RefusedValueError: it is malformed.
    """
    if not header:
        return Chunk(start=0, end=size, total=size)
    found = _RANGE.fullmatch(header.strip())
    if found is None or (found[1] is not None and int(found[2]) < int(found[1])):
        raise RefusedValueError(f"Content-Range: {header}", "bytes FIRST-LAST/TOTAL, or bytes */TOTAL")
    return Chunk(
        start=None if found[1] is None else int(found[1]),
        end=None if found[2] is None else int(found[2]) + 1,
        total=None if found[3] == "*" else int(found[3]),
    )


def multipart_related(content_type: str, body: bytes) -> tuple[bytes, str, bytes]:
    """Take a ``multipart/related`` body apart (RFC 2387).

    Returns:
        The JSON of the description, the content's type, the content.

    Raises:
        RefusedValueError: there are not exactly these two parts.
    """
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/related") or boundary is None:
        raise RefusedValueError(f"Content-Type: {content_type}", "multipart/related with a boundary")
    mark = b"--" + (boundary[1] or boundary[2]).encode()
    parts = (b"\r\n" + body).split(b"\r\n" + mark)[1:]
    if len(parts) != 3 or not parts[2].startswith(b"--"):
        raise RefusedValueError(f"{len(parts) - 1} parts", "two parts: the description, and the content")
    (_, description), (headers, content) = (_part(part) for part in parts[:2])
    if headers.get("content-transfer-encoding", "").lower() == "base64":
        try:
            content = base64.b64decode(content)
        except binascii.Error as error:
            raise RefusedValueError("content that is no base64", "base64, as its part says") from error
    return description, headers.get("content-type", ""), content


def _part(part: bytes) -> tuple[dict[str, str], bytes]:
    head, blank, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not blank:
        raise RefusedValueError("a part without a blank line after its head", "head, blank line, content")
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}, body
