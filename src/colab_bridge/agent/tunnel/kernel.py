"""One kernel that the agent holds on to: its journal, its requests, its jobs, and the streams that follow it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..process.service import ServerStream
from .files import read_object, write_object
from .frames import FrameFault, fields, pack, unpack
from .jobs import JobQueue
from .journal import Journal
from .link import KernelLink, own_header
from .processes import KernelProcess
from .requests import Flight, Requests
from .upward import Incoming, KernelStream

if TYPE_CHECKING:
    import zmq

__all__ = ["HeldKernel", "is_interactive"]

log = logging.getLogger(__name__)

# What a front end waits for is smaller; a larger answer may come in its turn.
_MOST_EARLY_BYTES = 512 * 1024
# The types of requests that a kernel answers without publishing anything, as they stand in the parent header.
_QUESTIONS = tuple(
    f'"{name}_request"'.encode("ascii")
    for name in ("complete", "inspect", "is_complete", "history", "kernel_info", "comm_info", "interrupt")
)
_LOST_AGENT = "the agent on the runtime was started anew; output of the time in between may be missing"
_LOST_CUT = "the connection to the kernel broke on the runtime; output of that moment may be missing"
_UNKNOWN_END = "the code ran to its end, but how it ended was lost when the agent on the runtime was started anew"


class HeldKernel:
    """See the module. Everything but :meth:`_load` runs on the event loop.

    Attributes:
        id: The server's id of the kernel.
        folder: Where everything about it is kept.
        state: ``connecting``, ``alive`` or ``dead``.
        text: One line for people when it is not alive.
        journal: Known when ``loaded`` is set.
        loaded: What was on the disk has been read.
        failed: A defect ended this; only a new agent can hold the kernel again.

    Args:
        kernel_id: An id that has been checked.
        folder: Made when absent.
        loop: The event loop.
        context: Returns the ZMQ context.
        folders: Returns where connection files may be.
        in_thread: Runs something that blocks.
        journal_bytes: Size of the journal above which its oldest part goes.
        guard: Asked before the disk is filled further.
        alone_for: Returns whether no daemon has been connected for so many seconds.
        notify: Tells the daemon something past all streams; returns False when it was dropped.
        after: Tasks to wait for, which still delete files of the same name.
        on_unknown: Called when there is nothing to keep about this kernel: it was never reached.
    """

    def __init__(
        self,
        kernel_id: str,
        folder: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[], zmq.Context[Any]],
        folders: Callable[[], Sequence[Path]],
        in_thread: Callable[..., Awaitable[Any]],
        journal_bytes: int,
        guard: Callable[[], None],
        alone_for: Callable[[float], bool],
        notify: Callable[[str, Mapping[str, Any], bytes], bool],
        after: frozenset[asyncio.Task[None]],
        on_unknown: Callable[[HeldKernel], None],
    ) -> None:
        self.id = kernel_id
        self.folder = folder
        self.loop = loop
        self.state = "connecting"
        self.text = ""
        self.journal: Journal | None = None
        self.loaded = asyncio.Event()
        self.failed = False
        self._in_thread = in_thread
        self._journal_bytes = journal_bytes
        self._guard = guard
        self._notify = notify
        self._after = after
        self._on_unknown = on_unknown
        self._requests = Requests(folder / "requests.log")
        self._jobs = JobQueue(folder / "jobs", self._requests, note=self._note, send=self._send, alone_for=alone_for)
        self._link = KernelLink(
            kernel_id, loop=loop, context=context, folders=folders, in_thread=in_thread, events=self
        )
        self._streams: list[KernelStream] = []
        self._held: deque[Incoming] = deque()
        self._ready = False
        self._busy_with = ""
        self._fenced_number = 0
        self._taken_up = False
        self._task: asyncio.Task[None] | None = None

    # -- for the service

    def start(self) -> None:
        """Begin to hold it."""
        self._task = self.loop.create_task(self._run())

    async def stop(self) -> None:
        """Let go of it; everything stays on the disk."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._ready = False
        for stream in list(self._streams):
            stream.reader.close()
        self._requests.close()
        if self.journal is not None:
            self.journal.record.close()

    async def forget(self, text: str) -> None:
        """Let go of it, end its streams and delete everything about it."""
        for stream in list(self._streams):
            stream.refuse(text)
        self._streams.clear()
        await self.stop()
        await self._in_thread(shutil.rmtree, self.folder, True)

    def attach(self, stream: ServerStream) -> KernelStream:
        """Let a stream follow the kernel from the entry that it asks for."""
        attached = KernelStream(stream, self)
        self._streams.append(attached)
        if self.journal is not None:
            self._begin(attached)
        self._link.want()
        return attached

    def remove_stream(self, stream: KernelStream) -> None:
        """Forget a stream that has ended."""
        if stream in self._streams:
            self._streams.remove(stream)

    @property
    def is_busy(self) -> bool:
        """Whether the kernel executes something."""
        return self._busy_with != "" or self._requests.executing

    @property
    def job_names(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return self._jobs.names()

    @property
    def is_needed(self) -> bool:
        """Whether the agent must stay for this kernel."""
        return self.state != "dead" or len(self._jobs) > 0

    def status(self) -> dict[str, Any]:
        """Return what ``tunnel.kernels`` tells of it; only when ``loaded``."""
        assert self.journal is not None
        record, process = self.journal.record, self._link.process
        return {
            "kernel": self.id,
            "first": record.first_seq,
            "next": record.next_seq,
            "state": self.state,
            "busy": self.is_busy,
            "pid": process.pid if process is not None and self.state == "alive" else None,
            "text": self.text or record.degraded,
        }

    def set_journal_bytes(self, size: int) -> None:
        """Change how large the journal may grow."""
        self._journal_bytes = size
        if self.journal is not None:
            self.journal.record.set_limit(size)

    def submit(self, incoming: Incoming) -> None:
        """Bring a message to the kernel, once; it waits here while the kernel cannot take any."""
        if not self._ready or not self._link.is_whole():
            self._held.append(incoming)
            self._link.want()
        elif self._requests.knows(incoming.msg_id):
            incoming.done()
        else:
            self._send(incoming)

    def note_lost(self, text: str) -> None:
        """Say in the journal that something is missing."""
        self._note({"type": "lost", "text": text})

    def add_job(self, name: str, payload: bytes, *, stop_on_error: bool, patience_s: float | None) -> None:
        """Take a job; see :meth:`JobQueue.add`."""
        self._jobs.add(name, payload, stop_on_error=stop_on_error, patience_s=patience_s)
        self._link.want()

    def look_at_jobs(self) -> None:
        """Go on with what was left here, if its time has come."""
        if self._ready and self._link.is_whole():
            self._jobs.look()

    def cancel_job(self, name: str) -> tuple[bool, bool]:
        """Take a job back; see :meth:`JobQueue.cancel`."""
        return self._jobs.cancel(name)

    # -- life

    async def _run(self) -> None:
        try:
            if self._after:
                await asyncio.wait(self._after)
            await self._in_thread(self._load)
            assert self.journal is not None
            self._taken_up = not self.journal.is_empty
            if self._link.is_dead:
                self.state, self.text = "dead", "the kernel's process has ended"
            for stream in list(self._streams):
                self._begin(stream)
            self.loaded.set()
            await self._link.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Root of the task: one kernel must not take the others with it.
            log.exception("a kernel cannot be held", extra={"kernel": self.id})
            self.failed = True
            self.loaded.set()
            self._refuse(f"the agent failed with this kernel: {type(error).__name__}")

    def _load(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        known = read_object(self.folder / "kernel.json")
        if isinstance(known.get("identity"), str):
            self._link.identity = known["identity"].encode("ascii", "replace")[:64]
        if isinstance(known.get("file"), str):
            self._link.path = Path(known["file"])
        if isinstance(known.get("pid"), int) and isinstance(known.get("started"), int):
            self._link.process = KernelProcess(known["pid"], known["started"])
        self._link.is_dead = known.get("dead") is True
        self._requests.load()
        self._jobs.load()
        self.journal = Journal.open(self.folder / "journal", max_bytes=self._journal_bytes, guard=self._guard)

    def _write_down(self) -> None:
        process = self._link.process
        known = {
            "kernel": self.id,
            "identity": self._link.identity.decode("ascii"),
            "file": str(self._link.path),
            "pid": process.pid if process else None,
            "started": process.started if process else None,
            "dead": self.state == "dead",
        }
        try:
            write_object(self.folder / "kernel.json", known)
        except OSError as error:
            log.warning("state of a kernel not written", extra={"kernel": self.id, "why": str(error)})

    def _begin(self, stream: KernelStream) -> None:
        assert self.journal is not None
        self.journal.lift(stream.stream.resume_from)
        stream.reader.begin(self.journal)

    def _refuse(self, text: str) -> None:
        self.state, self.text = "dead", text
        streams, self._streams = self._streams, []
        for stream in streams:
            stream.refuse(text)
        self._drop_held()

    def _drop_held(self) -> None:
        while self._held:
            self._held.popleft().done()

    # -- what the link tells

    def message(self, channel: str, parts: list[bytes]) -> None:
        """Take a message of the kernel."""
        assert self.journal is not None
        chunks = pack(channel, parts)
        self.journal.down(chunks, urgent=channel != "iopub" or not _announces(parts))
        if is_interactive(channel, parts) and any(stream.lags for stream in self._streams):
            self._overtake(chunks)
        if channel == "iopub":
            if b'"status"' in parts[0]:
                self._note_status(parts)
        elif channel != "stdin":
            self._note_reply(parts)

    def joined(self, *, first: bool, other: bool) -> None:
        """Learn that the kernel can be talked to."""
        assert self.journal is not None
        self.state, self.text, self._ready = "alive", "", True
        self._write_down()
        if other:
            self._process_ended("the kernel was restarted")
            self._note({"type": "restarted", "text": "the kernel was restarted"})
        elif not first:
            self._note({"type": "lost", "text": _LOST_CUT})
        elif self._taken_up and (self._requests.executing or len(self._jobs)):
            self._note({"type": "lost", "text": _LOST_AGENT})
        if self._requests.flying:
            self._fenced_number = self.journal.record.next_seq
            self._link.fence()
        held, self._held = self._held, deque()
        for incoming in held:
            self.submit(incoming)
        self._jobs.set_ready(True)

    def cut(self) -> None:
        """Learn that the kernel cannot be talked to now."""
        self.state, self._ready = "connecting", False
        self._jobs.set_ready(False)

    def died(self, text: str) -> None:
        """Learn that the kernel's process has ended."""
        assert self.journal is not None
        self.state, self.text = "dead", text
        self._write_down()
        # What was meant for that process must not reach the next one: it counts as having gone down with it.
        while self._held:
            incoming = self._held.popleft()
            if not self._requests.knows(incoming.msg_id):
                self._journal_up(incoming)
            incoming.done()
        self._process_ended(text)
        self._note({"type": "died", "text": text})

    def unreachable(self, text: str) -> None:
        """Learn that there is no way to the kernel."""
        assert self.journal is not None
        if self._link.is_dead:
            self.state = "dead"
            self._drop_held()
            return
        log.info("kernel unreachable", extra={"kernel": self.id, "why": text})
        self._refuse(text)
        if self.journal.is_empty:
            self._on_unknown(self)

    def fenced(self) -> None:
        """End the requests whose end was missed while no agent was there."""
        lost = [(msg_id, one) for msg_id, one in self._requests.flying.items() if one.number < self._fenced_number]
        for msg_id, flight in lost:
            self._make_up_end(msg_id, flight)

    # -- messages

    def _send(self, incoming: Incoming) -> None:
        self._journal_up(incoming)
        self._link.send(incoming.channel, incoming.parts)
        incoming.done()

    def _journal_up(self, incoming: Incoming) -> None:
        assert self.journal is not None
        frame = incoming.frame
        if incoming.channel == "stdin":
            # What was typed or handed over may be a password: the disk learns only that there was an answer.
            frame = b"".join(pack("stdin", [*incoming.parts[:3], b"{}"]))
        number = self.journal.up(frame)
        self._requests.sent(incoming.msg_id, number, incoming.msg_type, incoming.channel)

    def _overtake(self, chunks: Sequence[bytes]) -> None:
        """Show a message at once, past the output before it; it comes again in its place, so nothing depends on it."""
        if sum(map(len, chunks)) <= _MOST_EARLY_BYTES:
            self._notify("tunnel.early", {"kernel": self.id}, b"".join(chunks))

    def _note(self, note: Mapping[str, Any]) -> None:
        if self.journal is not None:
            self.journal.note(note)

    def _note_status(self, parts: Sequence[bytes]) -> None:
        state = fields(parts[3]).get("execution_state")
        parent = fields(parts[1])
        msg_id = parent.get("msg_id")
        if not isinstance(msg_id, str):
            return
        if state == "busy" and parent.get("msg_type") == "execute_request":
            self._busy_with = msg_id
        elif state == "idle":
            if msg_id == self._busy_with:
                self._busy_with = ""
            self._ended(msg_id, self._requests.idled(msg_id))

    def _note_reply(self, parts: Sequence[bytes]) -> None:
        msg_id = fields(parts[1]).get("msg_id")
        flight = self._requests.flying.get(msg_id) if isinstance(msg_id, str) else None
        if flight is None or not isinstance(msg_id, str):
            return
        status = "ok"
        if flight.msg_type == "execute_request":
            status = str(fields(parts[3]).get("status", "ok"))
        self._ended(msg_id, self._requests.replied(msg_id, status))

    def _ended(self, msg_id: str, flight: Flight | None) -> None:
        if flight is not None:
            self._jobs.ended(msg_id, flight.status)

    def _process_ended(self, text: str) -> None:
        self._busy_with = ""
        self._requests.process_ended()
        self._jobs.fail_all(text)

    def _make_up_end(self, msg_id: str, flight: Flight) -> None:
        """Write the reply and the idle that nobody heard, so that whoever waits for them does not wait for ever."""
        assert self.journal is not None
        parent = own_header(flight.msg_type, msg_id)
        body = self.journal.read_one(flight.number)
        if body is not None:
            with contextlib.suppress(FrameFault):
                parent = unpack(body)[1][0]
        if not flight.replied:
            content = {"status": "error", "ename": "OutputLost", "evalue": _UNKNOWN_END, "traceback": []}
            reply = own_header(flight.msg_type.replace("_request", "_reply"), secrets.token_hex(16))
            self.message(flight.channel, [reply, parent, b"{}", json.dumps(content).encode("ascii")])
        if msg_id in self._requests.flying:
            status = own_header("status", secrets.token_hex(16))
            self.message("iopub", [status, parent, b"{}", b'{"execution_state":"idle"}'])


def _announces(parts: Sequence[bytes]) -> bool:
    """Return whether a message on iopub, ``busy`` or ``execute_input``, only says that an execution begins.

    A wrong guess costs nothing but the moment that such a message may wait for the next one.
    """
    return b'"execute_input"' in parts[0] or (b'"status"' in parts[0] and b'"busy"' in parts[3])


def is_interactive(channel: str, parts: Sequence[bytes]) -> bool:
    """Return whether a message answers a question of somebody at a keyboard: its reply, or the state around it.

    Only of questions that publish nothing: after the idle state of a ``comm_msg``, for one, front ends take no more
    output of it, so that state must not come before the output.

    Args:
        channel: Where the kernel has sent it.
        parts: Header, parent, metadata, content.
    """
    if channel == "stdin" or not any(question in parts[1] for question in _QUESTIONS):
        return False
    return b'"status"' in parts[0] if channel == "iopub" else b'_reply"' in parts[0]
