"""Requests that are sent to a kernel one after the other, with nobody attached.

A job is a list of requests. Each is sent when the one before has its reply and the kernel is done with it. Jobs of one
kernel run one after the other, in the order in which they came. They are on the disk, so that they survive the agent::

    <number>.job    u32 length of a JSON object ``{"job", "stop_on_error"}``, the object, then the requests: a u32
                    length and a v1 frame each (big-endian)
    <number>.pos    ``{"index": n, "msg_id": id}``: the request that was sent last

Every step is written to the kernel's journal as a note.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import write_file, write_object
from .frames import FrameFault
from .requests import Requests
from .upward import Incoming

__all__ = ["Job", "JobQueue", "read_frames"]

log = logging.getLogger(__name__)

_U32 = struct.Struct("!I")
_MAX_JOBS = 1000
_MAX_REQUESTS = 100_000


@dataclass
class Job:
    """One job.

    Attributes:
        name: The daemon's id of it.
        stop_on_error: Whether a failed request ends it.
        frames: Its requests.
        path: Where it is written; its position is beside.
        index: Number of the request that was sent last, from 0; -1 before the first.
        msg_id: The id of that.
        waiting: That request has not ended yet.
    """

    name: str
    stop_on_error: bool
    frames: Sequence[bytes]
    path: Path
    index: int = -1
    msg_id: str = ""
    waiting: bool = field(default=False)

    @property
    def is_last(self) -> bool:
        """Whether all its requests were sent."""
        return self.index + 1 >= len(self.frames)


def read_frames(payload: bytes) -> list[bytes]:
    """Return the requests of a job: v1 frames, each after its length.

    Raises:
        FrameFault: the payload is something else, or holds something that no kernel can be asked.
    """
    frames: list[bytes] = []
    at = 0
    while at < len(payload):
        if at + _U32.size > len(payload):
            raise FrameFault("a length is cut off")
        (length,) = _U32.unpack_from(payload, at)
        at += _U32.size
        frame = payload[at : at + length]
        if len(frame) < length:
            raise FrameFault("a request is cut off")
        incoming = Incoming(frame, _nothing)
        if incoming.channel != "shell" or not incoming.msg_id or not incoming.msg_type.endswith("_request"):
            raise FrameFault("a job can only hold requests on the shell channel")
        frames.append(frame)
        at += length
    if not frames or len(frames) > _MAX_REQUESTS:
        raise FrameFault("a job needs at least one request")
    return frames


class JobQueue:
    """The jobs of one kernel.

    Args:
        folder: Where they are written; made when the first one comes.
        requests: What was sent to the kernel.
        note: Writes a note to the journal.
        send: Sends a request to the kernel.
    """

    def __init__(
        self,
        folder: Path,
        requests: Requests,
        *,
        note: Callable[[Mapping[str, Any]], object],
        send: Callable[[Incoming], None],
    ) -> None:
        self._folder = folder
        self._requests = requests
        self._note = note
        self._send = send
        self._jobs: list[Job] = []
        self._ready = False

    def __len__(self) -> int:
        return len(self._jobs)

    def names(self) -> list[str]:
        """Return the ids of the jobs, in order."""
        return [job.name for job in self._jobs]

    def load(self) -> None:
        """Read what a predecessor left; blocks."""
        try:
            paths = sorted(self._folder.glob("*.job"))
        except OSError:
            return
        for path in paths:
            try:
                self._jobs.append(_read_job(path))
            except (OSError, ValueError, FrameFault) as error:
                log.warning("job unreadable", extra={"path": str(path), "why": str(error)})

    def add(self, name: str, payload: bytes, *, stop_on_error: bool) -> None:
        """Take a job; one that is there already is taken once. Begins it if nothing else is to be done.

        Raises:
            FrameFault: it is none.
            OSError: it cannot be written down.
        """
        if name in self.names():
            return
        frames = read_frames(payload)
        if len(self._jobs) >= _MAX_JOBS:
            raise FrameFault("too many jobs wait for this kernel")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        number = int(self._jobs[-1].path.stem) + 1 if self._jobs else 1
        path = self._folder / f"{number:012d}.job"
        meta = json.dumps({"job": name, "stop_on_error": stop_on_error}).encode("ascii")
        write_file(path, _U32.pack(len(meta)) + meta + payload)
        self._jobs.append(Job(name, stop_on_error, frames, path))
        self._pump()

    def cancel(self, name: str) -> tuple[bool, bool]:
        """Take a job back; what the kernel is doing for it goes on. Return whether it was there, and had begun."""
        for job in self._jobs:
            if job.name == name:
                begun = job.index >= 0
                self._end(job, "cancelled")
                self._pump()
                return True, begun
        return False, False

    def set_ready(self, ready: bool) -> None:
        """Learn whether the kernel takes requests."""
        self._ready = ready
        if ready and self._jobs and self._jobs[0].index >= 0:
            job = self._jobs[0]
            job.waiting = job.msg_id in self._requests.flying
            if not self._requests.knows(job.msg_id):
                # The agent was killed between noting the step and taking it.
                job.index -= 1
        self._pump()

    def ended(self, msg_id: str, status: str) -> None:
        """Learn that a request has ended."""
        job = self._jobs[0] if self._jobs else None
        if job is None or not job.waiting or job.msg_id != msg_id:
            return
        job.waiting = False
        if status != "ok" and job.stop_on_error:
            self._end(job, "failed", index=job.index, msg_id=msg_id)
        self._pump()

    def fail_all(self, text: str) -> None:
        """The kernel has died: no job can go on."""
        for job in list(self._jobs):
            self._end(job, "failed", index=max(0, job.index), msg_id=job.msg_id, text=text)

    def _pump(self) -> None:
        while self._ready and self._jobs and not self._jobs[0].waiting:
            job = self._jobs[0]
            if job.is_last:
                self._end(job, "finished")
            else:
                self._step(job)

    def _step(self, job: Job) -> None:
        if job.index < 0:
            self._tell(job, "started")
        incoming = Incoming(job.frames[job.index + 1], _nothing)
        job.index += 1
        job.msg_id, job.waiting = incoming.msg_id, True
        self._tell(job, "next", index=job.index, msg_id=job.msg_id)
        try:
            write_object(job.path.with_suffix(".pos"), {"index": job.index, "msg_id": job.msg_id})
        except OSError as error:
            # The job goes on; should the agent be started anew, requests that it has sent are not sent again.
            log.warning("position of a job not written", extra={"job": job.name, "why": str(error)})
        self._send(incoming)

    def _end(self, job: Job, event: str, **more: object) -> None:
        self._jobs.remove(job)
        self._tell(job, event, **more)
        for path in (job.path, job.path.with_suffix(".pos")):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("job not removed", extra={"path": str(path), "why": str(error)})

    def _tell(self, job: Job, event: str, **more: object) -> None:
        self._note({"type": "job", "job": job.name, "event": event, **more})


def _nothing() -> None:
    """Nobody waits for this request to be taken."""


def _read_job(path: Path) -> Job:
    raw = path.read_bytes()
    if len(raw) < _U32.size:
        raise FrameFault("a job is cut off")
    (length,) = _U32.unpack_from(raw)
    meta = json.loads(raw[_U32.size : _U32.size + length])
    job = Job(str(meta["job"]), bool(meta["stop_on_error"]), read_frames(raw[_U32.size + length :]), path)
    position = path.with_suffix(".pos")
    if position.exists():
        found = json.loads(position.read_bytes())
        job.index, job.msg_id = int(found["index"]), str(found["msg_id"])
    return job
