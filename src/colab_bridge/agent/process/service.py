"""What a service of the agent is given, and what it has to offer.

A service lives as long as the agent process; the daemon comes and goes. Methods are named ``<service>.<verb>``, streams
``<service>`` or ``<service>.<kind>``. Everything runs on one event loop: whatever blocks goes through
:meth:`Peer.in_thread`. A package of the agent offers a service by a module ``service`` with a function ``make()`` that
takes nothing and returns it; the packages that are looked at are listed in :mod:`.loading`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..events import StreamData
from ..table import Payload

__all__ = ["CallFailure", "Peer", "Reply", "ServerStream", "Service", "StreamHandler"]

T = TypeVar("T")


class CallFailure(Exception):
    """A call, or the opening of a stream, that a service refuses.

    Args:
        code: For programs, short, lower case, such as ``unreachable``.
        message: One line for people.
        data: More for programs; a small JSON object.
    """

    def __init__(self, code: str, message: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.data: Mapping[str, Any] = data or {}


@dataclass(frozen=True)
class Reply:
    """The answer to a call.

    Attributes:
        result: JSON object, at most 64 KiB.
        payload: Binary part, at most 2 MiB.
        compress: Compress the payload on its way.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    compress: bool = False


class ServerStream(Protocol):
    """One stream that the daemon has opened, as the service sees it.

    Attributes:
        id: Its number in the channel.
        name: ``<service>`` or ``<service>.<kind>``.
        params: What the daemon said about it.
        resume_from: Number of the first message that the daemon wants.
    """

    id: int
    name: str
    params: Mapping[str, Any]
    resume_from: int

    def can_send(self, size_bytes: int = 0) -> bool:
        """Return whether ``send`` takes a message of this size; if not, the handler's ``writable`` will be called."""

    def send(
        self, header: Mapping[str, Any] | None, payload: Payload = b"", *, number: int | None = None, final: bool = True
    ) -> int:
        """Queue a message, or a piece of one, and return its number.

        Raises:
            BufferFull: nothing was taken; wait for ``writable``.
            ChannelMisuse: the stream is gone, or the message breaks a rule (numbers that fall).
        """

    @property
    def waiting_bytes(self) -> int:
        """What was queued and the daemon has not done with."""

    def consumed(self, seq: int) -> None:
        """Note that everything up to and including the piece ``seq`` is done with, which gives the sender room."""

    def close(self, code: str = "", message: str = "") -> None:
        """End the stream after everything queued; a stream that is gone already is no error."""


class StreamHandler(Protocol):
    """What a service gives for a stream. Its methods are called on the event loop and must not block."""

    def data(self, piece: StreamData) -> None:
        """Take a piece; call ``stream.consumed(piece.seq)`` when it is done with."""

    def writable(self) -> None:
        """Go on sending: there is room again after ``can_send`` said no or ``send`` raised."""

    def closed(self, code: str, message: str) -> None:
        """Learn that the stream is gone: closed by the daemon, or the daemon was started anew (code ``reset``)."""


class Peer(Protocol):
    """What a service gets at its start.

    Attributes:
        folder: The service's own folder on the runtime's disk, mode 0700; made already.
        loop: The process's event loop.
    """

    folder: Path
    loop: asyncio.AbstractEventLoop

    def notify(
        self, method: str, params: Mapping[str, Any] | None = None, payload: bytes = b"", *, bulk: bool = False
    ) -> bool:
        """Tell the daemon something; False when there is no link or no room, and it was dropped."""

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a blocking function in the service's one worker thread."""

    def hints(self) -> Mapping[str, str]:
        """Return what the latest doorman knows about the machine.

        ``jupyter_runtime_dir``: folder with the connection files of the server's kernels. ``jupyter_runtime_dirs``:
        that one and those of other servers that led here, latest first, joined by ``os.pathsep``. ``python``:
        interpreter of the doorman's kernel. ``cwd``: its working folder. ``site``: folder from which pyzmq can be
        imported (it is on ``sys.path`` already). Any of them may be missing.
        """

    def linked(self) -> bool:
        """Return whether a daemon is connected now."""

    def disk_room(self) -> int:
        """Return how many bytes may still be written: what the agent's disk cap and the disk itself leave."""


class Service(Protocol):
    """One part of the agent.

    Attributes:
        name: First part of the names of its methods and streams.
    """

    name: str

    def start(self, peer: Peer) -> None:
        """Begin; called once, before anything else, on the event loop. Must not block."""

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer a call; cancelled when the daemon does not wait any more.

        Raises:
            CallFailure: what the daemon is told.
        """

    def open(self, stream: ServerStream) -> StreamHandler:
        """Take a stream.

        Raises:
            CallFailure: closes the stream with this code and message.
        """

    def busy(self) -> bool:
        """Return whether the process is needed though nobody is connected: living kernels, queued jobs."""

    async def stop(self) -> None:
        """Write everything down; the process ends. At most a few seconds."""
