"""The side protocol by which code on a Colab runtime asks its front end for something. Pure.

The kernel publishes ``colab_request`` on iopub and waits on stdin for an ``input_reply`` whose value is an object.

Source: what ``google.colab`` (the package in Colab's machines) sends and accepts, as published in ``colabtools``.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from colab_bridge._util.ids import new_id
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = [
    "AUTH_DRIVE",
    "AUTH_USER",
    "DownloadOffer",
    "SideRequest",
    "UploadFeed",
    "UploadStep",
    "download_offer",
    "read_side_request",
    "side_answer",
    "side_failure",
    "upload_step",
]

AUTH_DRIVE: Final = "dfs_ephemeral"
AUTH_USER: Final = "auth_user_ephemeral"

#: The kernel's own front end sends at most 100 KiB of base64 at a time.
UPLOAD_PIECE_BYTES: Final = 75_000

_UPLOAD = re.compile(r"google\.colab\._files\._(uploadFiles|uploadFilesContinue)\(")
_DOWNLOAD = re.compile(
    r"""^\s*download\(\s*"(download_[0-9A-Za-z-]{1,64})",\s*("(?:[^"\\]|\\.)*"),\s*(\d{1,18})\s*\)"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SideRequest:
    """What a kernel asks for.

    Attributes:
        kind: Google's name of the request, such as ``GetSecret``.
        reply_id: Number that the answer must carry; None when the kernel does not wait for one.
        fields: The request's own fields.
        parent: Header that the kernel named as the cause; often only a session.
    """

    kind: str
    reply_id: int | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    parent: Mapping[str, Any] = field(default_factory=dict)


def read_side_request(message: RawMessage) -> SideRequest | None:
    """Read a ``colab_request``; None when the message is none that can be read."""
    try:
        if message.channel != "iopub" or message.msg_type != "colab_request":
            return None
        metadata = message.metadata_fields()
        fields = message.content_fields().get("request")
        parent = message.parent_fields()
    except MessageError:
        return None
    kind, reply_id = metadata.get("colab_request_type"), metadata.get("colab_msg_id")
    if not isinstance(kind, str) or not kind:
        return None
    return SideRequest(
        kind=kind,
        reply_id=reply_id if isinstance(reply_id, int) and not isinstance(reply_id, bool) else None,
        fields=fields if isinstance(fields, dict) else {},
        parent=parent,
    )


def side_answer(reply_id: int, data: Any, *, session: str, parent: Mapping[str, Any]) -> RawMessage:
    """Make the message that answers a request.

    Args:
        reply_id: Number of the request.
        data: JSON value that the kernel's call returns.
        session: Session of the header.
        parent: Header of the execution under way; ``{}`` when there is none.
    """
    return _reply({"type": "colab_reply", "colab_msg_id": reply_id, "data": data}, session, parent)


def side_failure(reply_id: int, text: str, *, session: str, parent: Mapping[str, Any]) -> RawMessage:
    """Make the message that has the kernel's call raise an error with this text."""
    return _reply({"type": "colab_reply", "colab_msg_id": reply_id, "error": text}, session, parent)


def _reply(value: Mapping[str, Any], session: str, parent: Mapping[str, Any]) -> RawMessage:
    return RawMessage.build(
        "stdin", "input_reply", {"value": value}, msg_id=new_id("side"), session=session, parent=parent
    )


# -- files.upload() ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UploadStep:
    """One script of ``files.upload()``: the first one of an upload, or one that asks for the next piece."""

    first: bool


def upload_step(script: object) -> UploadStep | None:
    """Recognise the scripts by which ``files.upload()`` takes in files; None for any other script."""
    found = _UPLOAD.search(script) if isinstance(script, str) else None
    return UploadStep(first=found[1] == "uploadFiles") if found else None


class UploadFeed:
    """Hands files over piece by piece, in the form in which the kernel takes the result of its scripts.

    Args:
        pieces: Names of files, each with one piece of its content; a file's pieces in order, an empty file as one
            empty piece. Read as the kernel asks, so nothing large is held.
    """

    def __init__(self, pieces: Iterator[tuple[str, bytes]]) -> None:
        self._pieces = pieces

    def start(self) -> dict[str, Any]:
        """Return the result of the first script."""
        return {"action": "starting"}

    def next(self) -> dict[str, Any]:
        """Return the result of the next script: a piece, or the end.

        Raises:
            OSError: a file cannot be read any more.
        """
        piece = next(self._pieces, None)
        if piece is None:
            return {"action": "complete"}
        name, data = piece
        return {"action": "append", "file": name, "data": base64.b64encode(data).decode()}


# -- files.download() ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadOffer:
    """A file that ``files.download()`` has ready.

    Attributes:
        target: Name of the comm target at which the kernel waits.
        name: File name as the runtime says; hostile input.
        size_bytes: Size as the runtime says.
    """

    target: str
    name: str
    size_bytes: int


def download_offer(message: RawMessage) -> DownloadOffer | None:
    """Recognise the display by which ``files.download()`` starts a download in a browser."""
    try:
        if message.channel != "iopub" or message.msg_type != "display_data":
            return None
        if len(message.raw_content) > UPLOAD_PIECE_BYTES:
            return None  # that call is one short line
        script = message.content_fields().get("data", {}).get("application/javascript")
        found = _DOWNLOAD.match("".join(script) if isinstance(script, list) else str(script))
        if found is None:
            return None
        name = json.loads(found[2])
    except (MessageError, AttributeError, TypeError, ValueError):
        return None
    return DownloadOffer(target=found[1], name=str(name), size_bytes=int(found[3]))
