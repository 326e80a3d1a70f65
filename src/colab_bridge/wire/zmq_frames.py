"""Jupyter messages as ZMQ multipart frames: identities, delimiter, signature, four JSON parts, buffers.

Everything but the signature is relayed byte for byte. Signatures are local to one connection file.

Source: Jupyter messaging protocol 5.4, "The Wire Protocol"; the replay rule is that of
``jupyter_client.session.Session``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["DELIMITER", "Signer", "split", "to_frames", "to_message"]

DELIMITER = b"<IDS|MSG>"

#: Signatures remembered against replay; jupyter_client's default.
HISTORY_SIZE = 65_536


class Signer:
    """Signs and checks messages with the key of a connection file.

    Args:
        key: The connection file's ``key``; empty means that messages are not signed.
        scheme: Its ``signature_scheme``.
        history_size: How many accepted signatures are remembered, so that none is accepted twice.

    Raises:
        ValueError: the scheme is unknown.
    """

    def __init__(self, key: bytes, scheme: str = "hmac-sha256", *, history_size: int = HISTORY_SIZE) -> None:
        algorithm = scheme.removeprefix("hmac-")
        if algorithm == scheme or algorithm not in hashlib.algorithms_available:
            raise ValueError(f"unknown signature scheme {scheme!r}")
        self._mac = hmac.new(key, digestmod=algorithm) if key else None
        self._history: dict[bytes, None] = {}  # in the order of arrival, so that the oldest leave first
        self._history_size = history_size

    def sign(self, parts: Sequence[bytes | memoryview]) -> bytes:
        """Return the signature (hexadecimal) of the four JSON parts; empty without a key."""
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode("ascii")

    def verify(self, parts: Sequence[bytes], signature: bytes) -> bool:
        """Return whether a message is genuine and new; one that is remembers its signature.

        Args:
            parts: The four JSON parts.
            signature: What came with them.
        """
        if self._mac is None:
            return True
        if signature in self._history or not hmac.compare_digest(self.sign(parts), signature):
            return False
        if self._history_size > 0:
            self._history[signature] = None
            if len(self._history) > self._history_size:
                del self._history[next(iter(self._history))]
        return True


def split(frames: Sequence[bytes]) -> tuple[list[bytes], bytes, list[bytes], list[bytes]]:
    """Take a multipart message apart.

    Returns:
        Identities, signature, the four JSON parts (header, parent, metadata, content), buffers.

    Raises:
        MessageError: the delimiter or a part is missing.
    """
    try:
        at = list(frames).index(DELIMITER)
    except ValueError as error:
        raise MessageError("ZMQ message without a delimiter") from error
    if len(frames) < at + 6:
        raise MessageError(f"ZMQ message has {len(frames) - at - 1} frames after the delimiter, at least 5 are needed")
    return list(frames[:at]), frames[at + 1], list(frames[at + 2 : at + 6]), list(frames[at + 6 :])


def to_message(channel: str, frames: Sequence[bytes], signer: Signer) -> tuple[list[bytes], RawMessage]:
    """Read a multipart message.

    Args:
        channel: The socket that it came from.
        frames: All its frames.
        signer: Checks the signature.

    Returns:
        Identities, message.

    Raises:
        MessageError: it is malformed, its signature is wrong, or it came before.
    """
    identities, signature, parts, buffers = split(frames)
    if not signer.verify(parts, signature):
        raise MessageError("ZMQ message has a wrong or repeated signature")
    return identities, RawMessage(channel, parts[0], parts[1], parts[2], parts[3], buffers)


def to_frames(identities: Sequence[bytes], message: RawMessage, signer: Signer) -> list[bytes | memoryview]:
    """Return the multipart frames of a message, signed."""
    parts = [message.header, message.parent or b"{}", message.metadata or b"{}", message.raw_content]
    return [*identities, DELIMITER, signer.sign(parts), *parts, *message.buffers]
