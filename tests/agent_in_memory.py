"""An agent's tunnel in memory: a journal, and a link that tests cut and reset by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.wire.jupyter_ws import decode_v1, encode_v1
from colab_bridge.wire.message import RawMessage

DOWN, UP, NOTE = 0, 1, 2


class MemoryStream:
    """One stream; what is sent down is delivered when the test says so."""

    def __init__(self, link: MemoryLink, params: Mapping[str, Any], resume_from: int, handler: Any) -> None:
        self.link = link
        self.params = params
        self.handler = handler
        self.resume_from = resume_from
        self.following = resume_from
        self.seq = 0
        self.consumed_seq = -1
        self.room = 1 << 30
        self.parts: list[bytes] = []
        self.gone = False
        self.code: str | None = None

    def can_send(self, size_bytes: int = 0) -> bool:
        return not self.gone and size_bytes <= self.room

    def send(
        self,
        header: Mapping[str, Any] | None,
        payload: bytes = b"",
        *,
        number: int | None = None,
        final: bool = True,
        prompt: bool = False,
    ) -> int:
        assert self.can_send(len(payload))
        assert (header is None) == bool(self.parts)  # only the first piece of a message has one
        self.room -= len(payload)
        self.parts.append(payload)
        if final:
            frame, self.parts = b"".join(self.parts), []
            self.link.take(frame)
        return 1

    def consumed(self, seq: int) -> None:
        assert not self.gone
        assert seq > self.consumed_seq
        self.consumed_seq = seq

    def close(self, code: str = "", message: str = "") -> None:
        self.code = code
        self.gone = True


class MemoryLink:
    """Implements what a tunnel uses of ``AgentLink``; the agent's journal of one kernel is a list.

    Attributes:
        journal: Pairs of kind and body; the number of an entry is its place, counted from 1.
        streams: Every stream that was ever opened.
        received: Requests in the order in which the agent took them, each once.
        listening: Whether requests are journalled as they come; otherwise they wait in ``inbox``.
        chunk: Bytes of a message in one piece.
    """

    def __init__(self) -> None:
        self.journal: list[tuple[int, bytes]] = []
        self.streams: list[MemoryStream] = []
        self.received: list[RawMessage] = []
        self.inbox: list[RawMessage] = []
        self.listening = True
        self.chunk = 1 << 20
        self.on_request: Callable[[RawMessage], None] | None = None
        self.end: int | None = None
        self.calls: list[str] = []
        self.subscribers: list[tuple[str, Callable[[str, Mapping[str, Any], bytes], None]]] = []

    # -- what the tunnel calls -------------------------------------------------------------------------------

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", **more: Any
    ) -> tuple[Mapping[str, Any], bytes]:
        self.calls.append(method)
        following = self.end if self.end is not None else len(self.journal) + 1
        return {"kernels": [{"kernel": "remote-1", "first": 1, "next": following, "state": "alive"}]}, b""

    def open_stream(
        self, name: str, params: Mapping[str, Any] | None = None, *, handler: Any, resume_from: int = 1, **more: Any
    ) -> MemoryStream:
        assert name == "tunnel.kernel"
        stream = MemoryStream(self, params or {}, resume_from, handler)
        self.streams.append(stream)
        return stream

    def on_notify(self, prefix: str, callback: Callable[[str, Mapping[str, Any], bytes], None]) -> Callable[[], None]:
        entry = (prefix, callback)
        self.subscribers.append(entry)
        return lambda: self.subscribers.remove(entry)

    # -- what tests do ---------------------------------------------------------------------------------------

    def tell(self, method: str, params: Mapping[str, Any], payload: bytes) -> None:
        """Notify whoever listens."""
        for prefix, callback in list(self.subscribers):
            if method.startswith(prefix):
                callback(method, params, payload)

    @property
    def stream(self) -> MemoryStream:
        return self.streams[-1]

    def open(self) -> None:
        self.stream.handler.opened()

    def take(self, frame: bytes) -> None:
        message = decode_v1(frame)
        if not self.listening:
            self.inbox.append(message)
            return
        if message.msg_id in [known.msg_id for known in self.received]:
            return
        self.received.append(message)
        self.journal.append((UP, frame))
        if self.on_request is not None:
            self.on_request(message)

    def say(self, *messages: RawMessage) -> None:
        self.journal += [(DOWN, encode_v1(message)) for message in messages]

    def note(self, **note: Any) -> None:
        self.journal.append((NOTE, json.dumps(note).encode()))

    def foreign(self, message: RawMessage) -> None:
        self.journal.append((UP, encode_v1(message)))

    def deliver(self, most: int = 1 << 30) -> None:
        """Send what the journal holds and the stream has not had."""
        stream = self.stream
        for kind, body in self.journal[stream.following - 1 :][:most]:
            number = stream.following
            stream.following += 1
            pieces = [body[start : start + self.chunk] for start in range(0, len(body), self.chunk)] or [b""]
            for place, payload in enumerate(pieces):
                header = {"k": kind, "t": 1.0} if place == 0 else None
                stream.seq += 1
                stream.handler.data(
                    StreamData(
                        stream=2,
                        seq=stream.seq,
                        number=number,
                        header=header,
                        payload=payload,
                        final=place == len(pieces) - 1,
                    )
                )

    def reset(self) -> None:
        """Start the agent anew: the journal stays, the stream is gone."""
        stream = self.stream
        stream.gone = True
        stream.handler.lost(_NOTHING)


_NOTHING: Sequence[Piece] = ()
