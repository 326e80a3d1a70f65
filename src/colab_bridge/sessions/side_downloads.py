"""Fetches the files that ``files.download()`` has ready on a runtime.

The kernel waits at a comm target. We open the comm and send an empty message; each of its answers carries one piece,
which we answer with an empty message, until it closes the comm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from colab_bridge._util.ids import new_id
from colab_bridge.ports.side import SideLine
from colab_bridge.sessions.side_files import DOWNLOADS, Incoming
from colab_bridge.wire.colab_side import DownloadOffer
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["Downloads"]

log = logging.getLogger(__name__)

#: Largest file that is fetched this way; piece by piece over the shell channel it is slow.
MOST_BYTES: Final = 4 * 1024**3
#: A kernel that computes answers when its cell has ended, which may take long.
SILENCE_S: Final = 3600.0
MOST_AT_ONCE: Final = 8

_Pieces = MemoryObjectSendStream[bytes | None]


class Downloads:
    """The downloads of one session.

    Args:
        project: Returns the project's root.
        tasks: Owner of the work.
    """

    def __init__(self, project: Callable[[], Path], tasks: anyio.abc.TaskGroup) -> None:
        self._project = project
        self._tasks = tasks
        self._open: dict[str, _Pieces] = {}

    def begin(self, line: SideLine, offer: DownloadOffer) -> bool:
        """Fetch a file; False when it is too large or too many are under way, which the user is told."""
        if offer.size_bytes > MOST_BYTES or len(self._open) >= MOST_AT_ONCE:
            line.say(f"{offer.name[:200]!r} is not fetched by files.download(); use: colab-bridge download")
            return True
        comm_id = new_id("side")
        send, receive = anyio.create_memory_object_stream[bytes | None](max_buffer_size=2)
        self._open[comm_id] = send
        self._tasks.start_soon(self._fetch, line, offer, comm_id, receive)
        return True

    def heard(self, _line: SideLine, message: RawMessage) -> bool:
        """Take a message of a comm; False when it is none of a download here."""
        try:
            comm_id = message.content_fields().get("comm_id")
        except MessageError:
            return False
        pieces = self._open.get(comm_id) if isinstance(comm_id, str) else None
        if pieces is None:
            return False
        try:
            # Each piece was asked for, so more than one at a time comes from nobody honest.
            pieces.send_nowait(None if message.msg_type == "comm_close" else b"".join(message.buffers))
        except anyio.WouldBlock:
            pieces.close()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            log.info("piece of a download that is over", extra={"comm": comm_id})
        return True

    async def _fetch(
        self, line: SideLine, offer: DownloadOffer, comm_id: str, pieces: MemoryObjectReceiveStream[bytes | None]
    ) -> None:
        """Task root: fetch one file, and say what became of it."""
        name = repr(offer.name[:200])
        cell = line.cell()  # it has ended when the file is here
        try:
            place = await self._take(line, offer, comm_id, pieces)
        except (OSError, ValueError, TimeoutError, anyio.EndOfStream) as error:
            line.say(f"files.download() of {name} failed: {error or type(error).__name__}", cell)
        except Exception as error:
            log.exception("download failed")
            line.say(f"files.download() of {name} failed: {type(error).__name__}", cell)
        else:
            line.say(f"saved {DOWNLOADS}/{place.name}", cell)
        finally:
            self._open.pop(comm_id).close()
            pieces.close()

    async def _take(
        self,
        line: SideLine,
        offer: DownloadOffer,
        comm_id: str,
        pieces: MemoryObjectReceiveStream[bytes | None],
    ) -> Path:
        incoming = await anyio.to_thread.run_sync(Incoming, self._project(), offer.name, offer.size_bytes)
        try:
            line.send(_comm("comm_open", {"comm_id": comm_id, "target_name": offer.target, "data": {}}))
            line.send(_comm("comm_msg", {"comm_id": comm_id, "data": {}}))
            while True:
                with anyio.fail_after(SILENCE_S):
                    piece = await pieces.receive()
                if piece is None:
                    return await anyio.to_thread.run_sync(incoming.finish)
                await anyio.to_thread.run_sync(incoming.write, piece)
                line.send(_comm("comm_msg", {"comm_id": comm_id, "data": {}}))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(incoming.abandon)


def _comm(msg_type: str, content: dict[str, object]) -> RawMessage:
    return RawMessage.build("shell", msg_type, content, msg_id=new_id("side"), session="side")
