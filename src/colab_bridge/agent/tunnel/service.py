"""The service ``tunnel``: carries all channels of the server's kernels, and keeps a journal of each on the disk.

Streams: ``tunnel.kernel`` with ``{"kernel": id}``, and optionally ``"journal_bytes"``. Calls: ``tunnel.kernels``,
``tunnel.forget``, ``tunnel.queue``, ``tunnel.leave``, ``tunnel.unqueue``. Notification: ``tunnel.early`` with
``{"kernel": id}`` and a message that is in the journal behind much output.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .connection import Unreachable, is_kernel_id, runtime_folders
from .frames import FrameFault
from .kernel import HeldKernel
from .sockets import load_zmq

if TYPE_CHECKING:
    import zmq

__all__ = ["TunnelService", "make"]

log = logging.getLogger(__name__)

MIB = 1024 * 1024
_JOURNAL_BYTES = 1024 * MIB
_LEAST_JOURNAL_BYTES = 8 * MIB
_MOST_JOURNAL_BYTES = 64 * 1024 * MIB
#: All journals together; below what the agent's files may take as a whole.
_ALL_JOURNALS_BYTES = 3072 * MIB
#: What is left of the disk: this, or a share of it if that is more.
_RESERVE_BYTES = 512 * MIB
_RESERVE_SHARE = 0.02
_MAX_KERNELS = 64
_MAX_JOB_NAME = 200
#: Seconds between two looks whether a daemon is connected, and for which absence what was left goes on.
_LOOK_S = 1.0
_PATIENCE_S = 10.0
#: The journal of a dead kernel that nobody has asked for in this time is deleted.
_FORGOTTEN_S = 30 * 24 * 3600.0


class TunnelService:
    """See the module.

    Args:
        journal_bytes: Size of one kernel's journal above which its oldest part goes.
        reserve_bytes: What is left free of the runtime's disk, at least.
    """

    name = "tunnel"

    def __init__(self, *, journal_bytes: int = _JOURNAL_BYTES, reserve_bytes: int = _RESERVE_BYTES) -> None:
        self._journal_bytes = journal_bytes
        self._reserve_bytes = reserve_bytes
        self._kernels: dict[str, HeldKernel] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._context: zmq.Context[Any] | None = None
        self._heard_at = 0.0

    # -- the service

    def start(self, peer: Peer) -> None:
        """Take up the kernels that the agent before this one held."""
        self._peer = peer
        self._notice()
        self._watch = peer.loop.call_later(_LOOK_S, self._look)
        for folder in sorted(peer.folder.iterdir()):
            if not folder.is_dir() or not is_kernel_id(folder.name):
                continue
            if _is_forgotten(folder):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                self._hold(folder.name)

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer a call.

        Raises:
            CallFailure: ``unknown``, ``invalid``, or ``full``.
        """
        self._notice()
        if verb == "kernels":
            return Reply({"kernels": await self._statuses()})
        if verb == "forget":
            return Reply({"forgotten": await self._forget(_kernel_id(params))})
        if verb == "queue":
            await self._queue(params, payload, None)
            return Reply({})
        if verb == "leave":
            await self._queue(params, payload, _patience(params))
            return Reply({})
        if verb == "unqueue":
            return Reply(self._unqueue(_job_name(params)))
        raise CallFailure("unknown", f"the tunnel cannot {verb}")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Take a stream.

        Raises:
            CallFailure: ``unknown``, ``invalid``, ``full``, or ``unreachable``.
        """
        self._notice()
        if stream.name != "tunnel.kernel":
            raise CallFailure("unknown", f"the tunnel has no stream {stream.name}")
        kernel = self._wanted(_kernel_id(stream.params))
        size = stream.params.get("journal_bytes")
        if isinstance(size, int) and not isinstance(size, bool):
            kernel.set_journal_bytes(min(max(size, _LEAST_JOURNAL_BYTES), _MOST_JOURNAL_BYTES))
        return kernel.attach(stream)

    def busy(self) -> bool:
        """Return whether there are living kernels or jobs."""
        return any(kernel.is_needed for kernel in self._kernels.values())

    async def stop(self) -> None:
        """Let go of all kernels; their journals stay."""
        self._watch.cancel()
        kernels, self._kernels = self._kernels, {}
        for kernel in kernels.values():
            await kernel.stop()
        if self._leaving:
            await asyncio.wait(set(self._leaving))
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    # -- kernels

    def _wanted(self, kernel_id: str) -> HeldKernel:
        if (found := self._kernels.get(kernel_id)) is not None:
            if found.failed:
                raise CallFailure("unreachable", found.text)
            return found
        try:
            load_zmq()
        except Unreachable as error:
            raise CallFailure("unreachable", str(error)) from error
        if len(self._kernels) >= _MAX_KERNELS:
            raise CallFailure("full", f"the agent holds {_MAX_KERNELS} kernels already")
        return self._hold(kernel_id)

    def _hold(self, kernel_id: str) -> HeldKernel:
        kernel = HeldKernel(
            kernel_id,
            self._peer.folder / kernel_id,
            loop=self._peer.loop,
            context=self._zmq_context,
            folders=lambda: runtime_folders(os.environ, self._peer.hints()),
            in_thread=self._peer.in_thread,
            journal_bytes=self._journal_bytes,
            guard=self._guard_disk,
            alone_for=self._alone_for,
            notify=self._peer.notify,
            after=frozenset(self._leaving),
            on_unknown=self._drop,
        )
        self._kernels[kernel_id] = kernel
        kernel.start()
        return kernel

    def _zmq_context(self) -> zmq.Context[Any]:
        if self._context is None:
            self._context = load_zmq().Context()
        return self._context

    def _drop(self, kernel: HeldKernel) -> None:
        """Forget a kernel that was never reached, so that the next stream begins from nothing."""
        self._dismiss(kernel, "the kernel was never reached")

    def _dismiss(self, kernel: HeldKernel, text: str) -> asyncio.Task[None]:
        self._kernels.pop(kernel.id, None)
        task = self._peer.loop.create_task(kernel.forget(text))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def _statuses(self) -> list[dict[str, Any]]:
        kernels = list(self._kernels.values())
        for kernel in kernels:
            await kernel.loaded.wait()
        return [kernel.status() for kernel in kernels if kernel.journal is not None]

    async def _forget(self, kernel_id: str) -> bool:
        kernel = self._kernels.get(kernel_id)
        if kernel is None:
            return False
        await asyncio.shield(self._dismiss(kernel, "the kernel is not wanted any more"))
        return True

    async def _queue(self, params: Mapping[str, Any], payload: bytes, patience_s: float | None) -> None:
        name = _job_name(params)
        kernel = self._wanted(_kernel_id(params))
        await kernel.loaded.wait()
        try:
            strict = params.get("stop_on_error") is not False
            kernel.add_job(name, payload, stop_on_error=strict, patience_s=patience_s)
        except FrameFault as fault:
            raise CallFailure("invalid", f"this is no job: {fault}") from fault
        except OSError as error:
            raise CallFailure("full", f"the job cannot be written down on the runtime: {error.strerror}") from error

    def _unqueue(self, name: str) -> dict[str, bool]:
        for kernel in self._kernels.values():
            if name in kernel.job_names:
                found, begun = kernel.cancel_job(name)
                return {"found": found, "begun": begun}
        return {"found": False, "begun": False}

    # -- whether a daemon is there

    def _notice(self) -> None:
        """Note that a daemon is connected, or was until now."""
        self._heard_at = time.monotonic()

    def _alone_for(self, seconds: float) -> bool:
        return not self._peer.linked() and time.monotonic() - self._heard_at >= seconds

    def _look(self) -> None:
        # The link has no event for its end; a second matters little to what waits for many of them.
        self._watch = self._peer.loop.call_later(_LOOK_S, self._look)
        if self._peer.linked():
            self._notice()
        else:
            for kernel in self._kernels.values():
                kernel.look_at_jobs()

    # -- the disk

    def _guard_disk(self) -> None:
        """Keep the runtime's disk usable for its user; called about once a MiB.

        Raises:
            OSError: nothing more may be written now.
        """
        usage = shutil.disk_usage(self._peer.folder)
        reserve = max(self._reserve_bytes, int(usage.total * _RESERVE_SHARE))
        if usage.free < reserve:
            raise OSError(errno.ENOSPC, f"the disk has only {usage.free // MIB} MB left, {reserve // MIB} MB stay free")
        journals = [kernel.journal for kernel in self._kernels.values() if kernel.journal is not None]
        if sum(journal.record.size_bytes for journal in journals) > _ALL_JOURNALS_BYTES:
            max(journals, key=lambda journal: journal.record.size_bytes).record.drop_oldest()
        elif self._peer.disk_room() <= 0:
            raise OSError(errno.ENOSPC, "the agent's files have reached their limit")


def make() -> TunnelService:
    """Return the service."""
    return TunnelService()


def _kernel_id(params: Mapping[str, Any]) -> str:
    value = params.get("kernel")
    if not is_kernel_id(value):
        raise CallFailure("invalid", "this cannot be the id of a kernel")
    return str(value)


def _job_name(params: Mapping[str, Any]) -> str:
    value = params.get("job")
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_JOB_NAME:
        raise CallFailure("invalid", "this cannot be the id of a job")
    return value


def _patience(params: Mapping[str, Any]) -> float:
    value = params.get("patience_s", _PATIENCE_S)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 24 * 3600:
        raise CallFailure("invalid", "this cannot be a number of seconds to wait")
    return float(value)


def _is_forgotten(folder: Path) -> bool:
    try:
        files = [file.stat().st_mtime for file in (folder / "kernel.json", *(folder / "journal").glob("*.rec"))]
    except OSError:
        return False
    return time.time() - max(files) > _FORGOTTEN_S
