"""Faults at single file-system calls of one side of a pair: an error, or the end of the process."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

from colab_bridge.agent.sync.disk.exchange import AtomicExchange
from colab_bridge.agent.sync.service_folder import SyncFolder
from colab_bridge.sync.base import SyncStore
from sync_pair import Pair

CALLS = """
    chmod copy_file_range fchmod fdatasync fsync ftruncate link listdir lseek lstat mkdir open pread pwrite read
    readlink remove rename replace rmdir scandir stat statvfs symlink truncate unlink utime write
"""
_SETS = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks")


class Killed(BaseException):
    """The process has ended; nothing of it runs any more."""


class Faults:
    """Counts the calls of one side, and lets something happen at one of them.

    Attributes:
        side: ``here`` or ``there``: whose calls count.
        at: Number of the call, from 0; None for never.
        error: errno that the call fails with; None ends the process instead.
        after: The process ends after the call rather than before it.
        fired: Name of the call at which it happened.
        count: Calls of the side so far.
    """

    def __init__(self, side: str, at: int | None, error: int | None, *, after: bool = False) -> None:
        self.side = side
        self.at = at
        self.error = error
        self.after = after
        self.fired = ""
        self.count = 0
        self.dead = False
        self._tag = threading.local()

    def on_side(self, side: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, whose calls belong to a side."""

        def tagged(*args: Any, **more: Any) -> Any:
            self._tag.side = side
            try:
                return function(*args, **more)
            finally:
                self._tag.side = ""

        return tagged

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """Return a call that may fail."""

        def call(*args: Any, **more: Any) -> Any:
            if getattr(self._tag, "side", "") != self.side or _is_about_processes(args):
                return real(*args, **more)
            if self.dead:
                raise Killed
            mine = self.count
            self.count += 1
            if mine != self.at:
                return real(*args, **more)
            self.fired = name
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            if self.after:
                _take_back(name, real(*args, **more))
            self.dead = True
            raise Killed

        return call

    @contextlib.contextmanager
    def installed(self, pair: Pair) -> Iterator[Faults]:
        """Let the calls of a pair's two sides go through this object for a while."""
        service = pair.service
        assert service._peer is not None
        peer: Any = service._peer
        local: Any = pair.local
        in_thread, do = peer.in_thread, local.do
        peer.in_thread = lambda function, *args: in_thread(self.on_side("there", function), *args)
        local.do = lambda function, *args, **more: do(self.on_side("here", function), *args, **more)
        undo: list[Callable[[], None]] = []
        for owner, names in ((os, CALLS.split()), (AtomicExchange, ["swap", "place"])):
            for name in names:
                _replace(owner, name, self.wrap(name, getattr(owner, name)), undo)
        if self.error is None:
            for name in ("commit", "set_meta"):
                _replace(SyncStore, name, self.wrap(name, getattr(SyncStore, name)), undo)
        try:
            yield self
        finally:
            for back in reversed(undo):
                back()
            peer.in_thread, local.do = in_thread, do


async def start_again(pair: Pair, side: str) -> None:
    """Start the side anew whose process has ended; what it would have tidied up at its end is not done."""
    if side == "there":
        for workspace in pair.service._workspaces.values():
            _bury(workspace.folder)
        pair.service._workspaces.clear()
        await pair.new_agent()
        return
    _bury(pair.local.folder)
    pair.local._let_go()
    pair.store.close()
    pair.local.store.close()
    await pair.way.aclose()
    await pair.start()


def _bury(folder: SyncFolder) -> None:
    """Give back what the system takes back from a dead process: descriptors and watches. Nothing is written."""
    folder._cache_file = None
    folder.close()


def _take_back(name: str, result: Any) -> None:
    """Close what the last call of a dead process has opened, as the system does."""
    if name == "open":
        os.close(result)
    elif name == "scandir":
        result.close()


def _is_about_processes(args: tuple[Any, ...]) -> bool:
    """Looks at other processes are many, differ from run to run, and tell nothing about the two folders."""
    return bool(args) and isinstance(args[0], str) and args[0].startswith("/proc/")


def _replace(owner: Any, name: str, wrapped: Any, undo: list[Callable[[], None]]) -> None:
    real = getattr(owner, name)
    setattr(owner, name, wrapped)
    undo.append(lambda: setattr(owner, name, real))
    if owner is not os:
        return
    for kind in _SETS:
        known: set[Any] = getattr(os, kind)
        if real in known:
            known.add(wrapped)
            undo.append(lambda known=known: known.discard(wrapped))  # type: ignore[misc]
