"""The agent's tunnel as an upstream: every message of a kernel once and in order, whatever happens to the connection.

The agent on the runtime keeps a numbered journal of what a kernel says and of what was said to it. This end asks for
everything after its durable cursor, the highest of those numbers in the kernel's record, and hands it on; an entry is
acknowledged when it is in the record. So a daemon that is killed goes on where its record ends, and the server's limits
on output do not matter.

Requests go up with their ``msg_id``, of which the agent takes each once. They are kept here until the journal shows
them, and sent again when an agent was started anew.

Source: ``docs/design/channel.md`` for streams; messages are in the ``v1.kernel.websocket.jupyter.org`` framing.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio

from colab_bridge.agent.events import Piece, StreamData
from colab_bridge.errors import ColabBridgeError, InternalError, TransientError, UserError
from colab_bridge.kernels.agent_link import AgentLink, LinkStream
from colab_bridge.ports.upstream import JournalEvents, LinkState, UpstreamEvents
from colab_bridge.wire.jupyter_ws import decode_v1, v1_chunks
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["TunnelError", "TunnelUpstream"]

log = logging.getLogger(__name__)

#: Kinds of journal entries, in the header of a message.
DOWN, UP, NOTE = 0, 1, 2

#: A message upwards is cut into pieces of this size.
PIECE_BYTES = 512 * 1024
#: The agent puts a message together in memory, and takes 128 MiB with its framing.
MAX_REQUEST_BYTES = 120 * 1024 * 1024
#: What may wait here for a link that is down or slow.
MAX_QUEUED_BYTES = 256 * 1024 * 1024
#: A longer message from the runtime is left out, and said to be missing.
MAX_MESSAGE_BYTES = 512 * 1024 * 1024
#: Seconds for the question how far the journal reaches, and between two tries.
ASK_TIMEOUT_S = 10.0
ASK_PAUSE_S = 2.0


class TunnelError(TransientError):
    """A kernel cannot be reached through the agent.

    Args:
        message: Why, one sentence.
        untouched: Whether nothing that was sent can have reached the kernel.
    """

    def __init__(self, message: str, *, untouched: bool) -> None:
        super().__init__(message, code="CB-TRANSIENT-TUNNEL")
        self.untouched = untouched


class TunnelUpstream:
    """A link to one remote kernel through the agent; implements ``ports.upstream.Upstream``.

    It is the ``LinkStreamHandler`` of its own stream, too.

    Args:
        link: The link to the agent.
        kernel_id: The server's id of the kernel.
        cursor: Returns the number of the last journal entry that is in the record.
    """

    reliable = True

    def __init__(self, link: AgentLink, kernel_id: str, cursor: Callable[[], int]) -> None:
        self._link = link
        self._kernel_id = kernel_id
        self._handed = cursor()
        self._journal: JournalEvents | None = None
        self._on_state: Callable[[LinkState, str], None] | None = None
        self._link_state, self._link_text = LinkState.CONNECTING, ""
        self._told: tuple[LinkState, str] | None = None
        self._stream: LinkStream | None = None
        self._was_connected = False
        self._unconfirmed: OrderedDict[str, RawMessage] = OrderedDict()
        self._confirmed_any = False
        self._queued_bytes = 0
        self._todo: deque[RawMessage] = deque()
        self._cut: Iterator[tuple[bytes, bool]] | None = None
        self._next: tuple[bytes, bool] | None = None
        self._begun = False
        self._coming = _Assembly()
        self._pending: deque[tuple[int, int]] = deque()
        self._ended = anyio.Event()
        self._error: TunnelError | None = None
        self._end_wanted = anyio.Event()

    # -- the port --------------------------------------------------------------------------------------------

    def send(self, message: RawMessage) -> None:
        """Queue a message for the kernel; it goes out as soon as the link is up, in order, once.

        Raises:
            UserError: the message is too large, or too much waits already.
        """
        size = message.size_bytes
        if size > MAX_REQUEST_BYTES:
            raise UserError(
                f"{size / 2**20:.0f} MiB in one message are too large: {MAX_REQUEST_BYTES >> 20} MiB go at once",
                hint="write the data to a file in the project, and read that file in the code",
                code="CB-USER-TOOLARGE",
            )
        if self._queued_bytes + size > MAX_QUEUED_BYTES:
            raise UserError(
                "too much waits to be sent to the kernel",
                hint="wait until the connection is back, or write large data to a file in the project",
                code="CB-USER-BACKLOG",
            )
        self._queued_bytes += size
        self._unconfirmed[message.msg_id] = message
        self._todo.append(message)
        self._flush()

    def reconnect(self) -> None:
        """Do nothing: the agent sees that the kernel is another process now."""

    def set_busy(self, busy: bool) -> None:
        """Do nothing: the link to the agent is watched all the time."""

    def recorded(self, origin: int) -> None:
        """Acknowledge entries that are in the record."""
        seq = None
        while self._pending and self._pending[0][0] <= origin:
            seq = self._pending.popleft()[1]
        if seq is not None and self._stream is not None:
            self._stream.consumed(seq)

    async def run(self, events: UpstreamEvents) -> None:
        """Keep the stream open until cancelled or until the runtime is gone.

        Raises:
            TunnelError: the agent cannot carry this kernel.
        """
        if events.journal is None:
            raise InternalError("a tunnel needs somebody who takes journal entries")
        self._journal, self._on_state = events.journal, events.state
        end_early = self._link.on_notify("tunnel.early", self._early)
        self._tell()
        try:
            self._open_stream()
        except ColabBridgeError as error:
            end_early()
            raise TunnelError(error.message, untouched=True) from error
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._learn_end)
                await self._ended.wait()
                tasks.cancel_scope.cancel()
        finally:
            # The link goes on for others; what it tells from now on is not about this kernel.
            self._ended.set()
            end_early()
            self._on_state = self._journal = None
            if self._stream is not None:
                self._stream.close()
                self._stream = None
        if self._error is not None:
            raise self._error

    def take_unsent(self, *, untouched: bool) -> list[RawMessage]:
        """Give away, in order, what certainly did not reach the kernel; for a link that takes over.

        Args:
            untouched: Whether nothing at all has reached it.
        """
        left = list(self._unconfirmed.values())
        waiting = {message.msg_id for message in self._todo}
        self._unconfirmed.clear()
        self._todo.clear()
        self._queued_bytes = 0
        return [message for message in left if untouched or message.msg_id in waiting]

    # -- the link --------------------------------------------------------------------------------------------

    def link_changed(self, state: LinkState, text: str) -> None:
        """Learn the state of the link to the agent."""
        if state is LinkState.GONE:
            self.give_up(text or "no agent can be had on this runtime")
            return
        self._link_state, self._link_text = state, text
        self._tell()

    def give_up(self, reason: str) -> None:
        """Learn that the agent cannot be had any more; ends ``run`` with a :class:`TunnelError`."""
        self._end(reason, untouched=not self._was_connected)

    def _end(self, reason: str, *, untouched: bool) -> None:
        if self._error is None:
            self._error = TunnelError(reason, untouched=untouched and not self._confirmed_any)
            self._ended.set()

    def _tell(self) -> None:
        """Report the state, each once: connected means that the link is up and there is a stream."""
        state, text = self._link_state, self._link_text
        if state is LinkState.CONNECTED:
            text = ""
            if self._stream is None:
                state = LinkState.RECONNECTING if self._was_connected else LinkState.CONNECTING
            else:
                self._was_connected = True
                self._end_wanted.set()
        if self._on_state is not None and self._told != (state, text):
            self._told = (state, text)
            self._on_state(state, text)

    def _open_stream(self) -> None:
        # What was handed on is on its way into the record, so the next entry after it is wanted, not the record's.
        self._coming = _Assembly()
        self._stream = self._link.open_stream(
            "tunnel.kernel", {"kernel": self._kernel_id}, resume_from=self._handed + 1, handler=self
        )
        self._tell()
        self._flush()

    async def _learn_end(self) -> None:
        """Ask how far the journal reaches, until there is an answer."""
        await self._end_wanted.wait()
        last: int | None = None
        while last is None:
            last = await self._ask_end()
            await anyio.sleep(0 if last is not None else ASK_PAUSE_S)
        if self._journal is not None:
            self._journal.end_known(last)

    async def _ask_end(self) -> int | None:
        try:
            answer, _ = await self._link.call("tunnel.kernels", deadline_s=ASK_TIMEOUT_S)
        except ColabBridgeError as error:
            log.info("end of the journal not known yet", extra={"kernel": self._kernel_id, "reason": error.message})
            return None
        kernels = answer.get("kernels")
        for entry in kernels if isinstance(kernels, list) else []:
            if isinstance(entry, dict) and entry.get("kernel") == self._kernel_id:
                following = entry.get("next")
                return following - 1 if isinstance(following, int) else None
        return None

    # -- upwards ---------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._stream is not None and (piece := self._peek()) is not None:
            payload, final = piece
            if not self._stream.can_send(len(payload)):
                return
            # Only the first piece of a message has a header.
            self._stream.send(None if self._begun else {}, payload, final=final, prompt=True)
            self._next, self._begun = None, not final
            if final:
                self._todo.popleft()
                self._cut = None

    def _peek(self) -> tuple[bytes, bool] | None:
        """Return the next piece to send; it stays the next one until it is taken."""
        if self._next is None and self._todo:
            if self._cut is None:
                self._cut = _pieces(v1_chunks(self._todo[0]))
            self._next = next(self._cut)
        return self._next

    # -- events of the stream --------------------------------------------------------------------------------

    def opened(self) -> None:
        """Learn that the agent is connected, again or for the first time, and the stream goes on."""
        self._flush()

    def writable(self) -> None:
        """Learn that there is room again."""
        self._flush()

    def gap(self, first: int, last: int) -> None:
        """Learn that the journal does not hold these entries any more."""
        self._handed = max(self._handed, last)
        self._hand_lost(f"the runtime does not keep messages {first} to {last} any more", last)

    def lost(self, unacknowledged: Sequence[Piece]) -> None:
        """Learn that the agent was started anew: open a stream again, and send what its journal has not shown."""
        log.info("agent started anew", extra={"kernel": self._kernel_id, "unacknowledged": len(unacknowledged)})
        self._stream = None
        self._pending.clear()
        self._todo = deque(self._unconfirmed.values())
        self._cut, self._next, self._begun = None, None, False
        self._tell()
        if self._ended.is_set():
            return
        try:
            self._open_stream()
        except ColabBridgeError as error:
            self.give_up(error.message)

    def closed(self, code: str, message: str) -> None:
        """Learn that the agent ends the stream: it cannot reach this kernel."""
        self._stream = None
        reason = message or code or "the agent has closed the connection to the kernel"
        # A kernel that could not be reached was not told anything either, unless the journal has shown otherwise.
        self._end(reason, untouched=not self._was_connected or code == "unreachable")

    def data(self, piece: StreamData) -> None:
        """Take a journal entry, or a part of one."""
        if self._ended.is_set():
            return
        if piece.number <= self._handed:
            self._consume(piece.seq)  # the channel does not repeat; this is a faulty agent
            return
        self._coming.add(piece)
        if not piece.final:
            self._consume(piece.seq)
            return
        kind, body = self._coming.take()
        self._pending.append((piece.number, piece.seq))
        self._handed = piece.number
        self._hand_on(kind, body, piece.number)

    def _consume(self, seq: int) -> None:
        """Give the room of a piece back that is kept here, or not wanted; not before that of the entries before it."""
        if self._pending:
            self._pending.append((self._handed, seq))
        elif self._stream is not None:
            self._stream.consumed(seq)

    def _early(self, _method: str, params: Mapping[str, Any], payload: bytes) -> None:
        """Take a message that overtakes the stream."""
        if self._journal is None or params.get("kernel") != self._kernel_id:
            return
        try:
            self._journal.early(decode_v1(payload))
        except MessageError as error:
            log.warning("unreadable early message", extra={"kernel": self._kernel_id, "why": str(error)})

    def _hand_on(self, kind: int, body: bytes | None, number: int) -> None:
        journal = self._journal
        assert journal is not None
        if body is None:
            self._hand_lost("a message from the runtime was too large and has been left out", number)
            return
        try:
            if kind == DOWN:
                journal.message(decode_v1(body), number)
            elif kind == UP:
                message = decode_v1(body)
                self._confirm(message.msg_id)
                journal.request(message, number)
            else:
                journal.note(_note(body), number)
        except MessageError as error:
            log.warning("unreadable journal entry", extra={"kernel": self._kernel_id, "why": str(error)})
            self._hand_lost("the runtime sent a message that cannot be read", number)

    def _hand_lost(self, text: str, number: int) -> None:
        if self._journal is not None:
            self._journal.note({"type": "lost", "text": text}, number)

    def _confirm(self, msg_id: str) -> None:
        self._confirmed_any = True
        if (message := self._unconfirmed.pop(msg_id, None)) is not None:
            self._queued_bytes -= message.size_bytes


class _Assembly:
    """Puts the pieces of one message together, up to a limit."""

    def __init__(self) -> None:
        self._kind = -1
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, piece: StreamData) -> None:
        if piece.header is not None:
            kind = piece.header.get("k")
            self._kind = kind if isinstance(kind, int) else -1
        self._size += len(piece.payload)
        if self._size > MAX_MESSAGE_BYTES:
            self._parts.clear()
        else:
            self._parts.append(piece.payload)

    def take(self) -> tuple[int, bytes | None]:
        """Return kind and body, None for a body that is too long, and begin anew."""
        body = None if self._size > MAX_MESSAGE_BYTES else b"".join(self._parts)
        kind, self._kind = self._kind, -1
        self._parts, self._size = [], 0
        return kind, body


def _note(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"note is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise MessageError("note is no JSON object")
    return value


def _pieces(chunks: Sequence[bytes | memoryview]) -> Iterator[tuple[bytes, bool]]:
    """Cut a message into pieces, each with whether it is the last one."""
    total = sum(len(chunk) for chunk in chunks)
    if total <= PIECE_BYTES:
        yield b"".join(chunks), True
        return
    whole = memoryview(b"".join(chunks))
    for start in range(0, total, PIECE_BYTES):
        yield bytes(whole[start : start + PIECE_BYTES]), start + PIECE_BYTES >= total
