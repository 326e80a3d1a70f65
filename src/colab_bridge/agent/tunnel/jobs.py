"""Requests that are sent to a kernel one after the other, with nobody attached.

A job is a list of requests. Each is sent when the one before has its reply and the kernel is done with it. One that
went to the kernel already is never sent again: it is waited for, or passed over if it has ended. Jobs of one kernel run
one after the other, in the order in which they came. A job that was *left* is what the daemon sends itself as long as
it is there: it goes on here only when no daemon has been connected for some time, and rests when one comes back.

They are on the disk, so that they survive the agent::

    <number>.job    u32 length of a JSON object ``{"job", "stop_on_error", "patience_s"}``, the object, then the
                    requests: a u32 length and a v1 frame each (big-endian)
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
        patience_s: For how many seconds no daemon may have been connected before it goes on; None if that is all one.
        frames: Its requests.
        ids: Their ids.
        path: Where it is written; its position is beside.
        index: Number of the request that was sent last, from 0; -1 before the first.
        msg_id: The id of that.
        waiting: That request has not ended yet.
        started: At least one request was sent from here.
    """

    name: str
    stop_on_error: bool
    patience_s: float | None
    frames: Sequence[bytes]
    ids: frozenset[str]
    path: Path
    index: int = -1
    msg_id: str = ""
    waiting: bool = field(default=False)
    started: bool = field(default=False)

    @property
    def is_last(self) -> bool:
        """Whether all its requests were sent."""
        return self.index + 1 >= len(self.frames)


def read_frames(payload: bytes) -> tuple[list[bytes], frozenset[str]]:
    """Return the requests of a job, v1 frames, each after its length, and the ids of all of them.

    Raises:
        FrameFault: the payload is something else, or holds something that no kernel can be asked.
    """
    frames: list[bytes] = []
    ids: set[str] = set()
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
        ids.add(incoming.msg_id)
        at += length
    if not frames or len(frames) > _MAX_REQUESTS:
        raise FrameFault("a job needs at least one request")
    return frames, frozenset(ids)


class JobQueue:
    """The jobs of one kernel.

    Args:
        folder: Where they are written; made when the first one comes.
        requests: What was sent to the kernel.
        note: Writes a note to the journal.
        send: Sends a request to the kernel.
        alone_for: Returns whether no daemon has been connected for so many seconds.
    """

    def __init__(
        self,
        folder: Path,
        requests: Requests,
        *,
        note: Callable[[Mapping[str, Any]], object],
        send: Callable[[Incoming], None],
        alone_for: Callable[[float], bool],
    ) -> None:
        self._folder = folder
        self._requests = requests
        self._note = note
        self._send = send
        self._alone_for = alone_for
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
            except (OSError, ValueError, LookupError, TypeError, FrameFault) as error:
                log.warning("job unreadable", extra={"path": str(path), "why": str(error)})

    def add(self, name: str, payload: bytes, *, stop_on_error: bool, patience_s: float | None = None) -> None:
        """Take a job, and begin it if nothing else is to be done.

        One that is there already is taken once; if it is one that was left, the new list takes the place of the old.

        Raises:
            FrameFault: it is none.
            OSError: it cannot be written down.
        """
        before = next((job for job in self._jobs if job.name == name), None)
        if before is not None and patience_s is None:
            return
        frames, ids = read_frames(payload)
        if len(self._jobs) >= _MAX_JOBS:
            raise FrameFault("too many jobs wait for this kernel")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        number = int(self._jobs[-1].path.stem) + 1 if self._jobs else 1
        path = self._folder / f"{number:012d}.job"
        meta = json.dumps({"job": name, "stop_on_error": stop_on_error, "patience_s": patience_s}).encode("ascii")
        write_file(path, _U32.pack(len(meta)) + meta + payload)
        if before is not None:
            self._remove(before)
        self._jobs.append(Job(name, stop_on_error, patience_s, frames, ids, path))
        self.look()

    def cancel(self, name: str) -> tuple[bool, bool]:
        """Take a job back; what the kernel is doing for it goes on. Return whether it was there, and had begun."""
        for job in self._jobs:
            if job.name == name:
                if job.started or job.patience_s is None:
                    self._end(job, "cancelled")
                else:
                    self._remove(job)  # the daemon has done it all
                self.look()
                return True, job.started
        return False, False

    def set_ready(self, ready: bool) -> None:
        """Learn whether the kernel takes requests."""
        self._ready = ready
        for job in self._jobs if ready else ():
            if job.index >= 0:
                job.waiting = job.msg_id in self._requests.flying
                if not self._requests.knows(job.msg_id):
                    # The agent was killed between noting the step and taking it.
                    job.index -= 1
        self.look()

    def ended(self, msg_id: str, status: str) -> None:
        """Learn that a request has ended, whoever sent it."""
        for job in list(self._jobs):
            if msg_id not in job.ids:
                continue
            if msg_id == job.msg_id:
                job.waiting = False
            if status != "ok" and job.stop_on_error:
                self._end(job, "failed", index=max(0, job.index), msg_id=msg_id)
        self.look()

    def fail_all(self, text: str) -> None:
        """The kernel has died: no job can go on."""
        for job in list(self._jobs):
            self._end(job, "failed", index=max(0, job.index), msg_id=job.msg_id, text=text)

    def look(self) -> None:
        """Send what can be sent now."""
        while self._ready and not any(job.waiting for job in self._jobs):
            job = next((job for job in self._jobs if self._may_go_on(job)), None)
            if job is None:
                return
            if job.is_last:
                self._end(job, "finished")
            else:
                self._step(job)

    def _may_go_on(self, job: Job) -> bool:
        return job.patience_s is None or self._alone_for(job.patience_s)

    def _step(self, job: Job) -> None:
        incoming = Incoming(job.frames[job.index + 1], _nothing)
        job.index += 1
        job.msg_id = incoming.msg_id
        if self._requests.knows(incoming.msg_id):
            job.waiting = incoming.msg_id in self._requests.flying
            return
        if not job.started:
            job.started = True
            self._tell(job, "started")
        job.waiting = True
        self._tell(job, "next", index=job.index, msg_id=job.msg_id)
        try:
            write_object(job.path.with_suffix(".pos"), {"index": job.index, "msg_id": job.msg_id})
        except OSError as error:
            # The job goes on; should the agent be started anew, requests that it has sent are not sent again.
            log.warning("position of a job not written", extra={"job": job.name, "why": str(error)})
        self._send(incoming)

    def _end(self, job: Job, event: str, **more: object) -> None:
        self._remove(job)
        self._tell(job, event, **more)

    def _remove(self, job: Job) -> None:
        self._jobs.remove(job)
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
    patience = meta["patience_s"]
    frames, ids = read_frames(raw[_U32.size + length :])
    job = Job(
        str(meta["job"]), bool(meta["stop_on_error"]), None if patience is None else float(patience), frames, ids, path
    )
    position = path.with_suffix(".pos")
    if position.exists():
        found = json.loads(position.read_bytes())
        job.index, job.msg_id, job.started = int(found["index"]), str(found["msg_id"]), True
    return job
