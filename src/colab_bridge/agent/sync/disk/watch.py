"""Which paths changed since the last question: inotify with a cookie that proves that every event before it was read.

Events are hints about where to look, never about what is there. A watch that may have lost one says so (``healthy``),
and the answer is then a walk. No store through a memory map and no change through another name of a file is reported by
any system; see ``mapped`` and the scanner for those.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import time
from contextlib import suppress
from dataclasses import dataclass

from ..ignore import FolderRules, IgnoreRules
from ..names import MAX_DEPTH, name_from_disk
from .platform_folder import Folder, FolderReplaced
from .platform_inotify import (
    ATTRIB,
    CREATE,
    DELETE,
    DELETE_SELF,
    IGNORED,
    IS_FOLDER,
    MOVE_SELF,
    MOVED_FROM,
    MOVED_TO,
    OVERFLOW,
    UNMOUNT,
    Inotify,
    RawEvent,
    WatcherUnavailable,
)
from .root import STATE_FOLDER, Root

__all__ = ["Settled", "Watcher", "WatcherUnavailable"]

_START_WAIT_S = 1.0
_MAX_DIRTY = 200_000
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.EACCES, errno.EPERM})
_BY_DESCRIPTOR = "/proc/self/fd"


@dataclass(frozen=True, slots=True)
class Settled:
    """All that happened before the question.

    Attributes:
        dirty: Paths to look at, as the disk spells them; folders with everything in them.
        healthy: Nothing can be missing in ``dirty``; otherwise everything must be looked at.
        reason: Why not, for people; empty when healthy.
    """

    dirty: frozenset[str]
    healthy: bool
    reason: str = ""


class _Watched:
    """One watched folder."""

    __slots__ = ("below", "name", "parent", "path", "rules", "watch")

    def __init__(self, watch: int, path: str, name: str, parent: _Watched | None, rules: FolderRules) -> None:
        self.watch = watch
        self.path = path
        self.name = name
        self.parent = parent
        self.rules = rules
        self.below: dict[str, _Watched] = {}


class Watcher:
    """Watches the folders of one root that are not left out; not for several threads at once.

    Start it before the first walk, so that nothing falls between the two.

    Args:
        root: The root.
        rules: What is left out: such folders get no watch.
    """

    def __init__(self, root: Root, rules: IgnoreRules) -> None:
        self._root = root
        self._rules = rules
        self._queue: Inotify | None = None
        self._epoll: select.epoll | None = None
        self._cookies: Folder | None = None
        self._cookie_watch = -1
        self._prefix = secrets.token_hex(4)
        self._number = 0
        self._cookie = ""
        self._cookie_seen = False
        self._by_watch: dict[int, _Watched] = {}
        self._stopped: set[int] = set()
        self._dirty: set[str] = set()
        self._lost = ""
        self._broken = ""

    @property
    def watched(self) -> int:
        """Number of folders that are watched."""
        return len(self._by_watch)

    def start(self) -> None:
        """Watch all folders.

        Raises:
            WatcherUnavailable: Nothing is reported here, or the limit of watches is too low.
        """
        if not hasattr(select, "epoll"):
            raise WatcherUnavailable("this system has no inotify")
        self.close()
        self._epoll = select.epoll()
        try:
            self._open()
            self._write_cookie()
            if not self._drain(time.monotonic() + _START_WAIT_S):
                raise WatcherUnavailable("the file system does not report changes")
            if self._broken:
                raise WatcherUnavailable(self._broken)
        except OSError as error:
            self.close()
            raise WatcherUnavailable(f"the folder cannot be watched: {error.strerror or error}") from error
        except WatcherUnavailable:
            self.close()
            raise

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait; the same one for the life of the watcher."""
        if self._epoll is None:
            raise ValueError("the watcher is not started")
        return self._epoll.fileno()

    @property
    def has_news(self) -> bool:
        """Whether events wait."""
        return self._epoll is not None and bool(self._epoll.poll(0))

    def settle(self, timeout_s: float = 1.0) -> Settled:
        """Return everything that happened before this call, and forget it: the caller looks at it now.

        Args:
            timeout_s: How long to wait for the cookie, seconds.
        """
        if self._queue is None:
            return Settled(frozenset(), False, self._broken or "the watcher is not started")
        if not self._broken:
            try:
                self._write_cookie()
            except OSError as error:
                self._lost = f"no cookie can be written: {error.strerror or error}"
            else:
                if not self._drain(time.monotonic() + timeout_s):
                    self._lost = "events did not come in time"
        return self._answer()

    def _answer(self) -> Settled:
        dirty, self._dirty = self._dirty, set()
        if self._broken:
            return Settled(frozenset(), False, self._broken)
        if self._lost:
            reason, self._lost = self._lost, ""
            self._begin_again()
            return Settled(frozenset(), False, reason)
        return Settled(frozenset(dirty), True)

    def close(self) -> None:
        """Stop watching; may be called twice."""
        self._close_queue()
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        self._broken = self._lost = ""

    # -- inside

    def _close_queue(self) -> None:
        if self._queue is not None:
            if self._epoll is not None:
                self._epoll.unregister(self._queue.fd)
            self._queue.close()
            self._queue = None
        if self._cookies is not None:
            self._cookies.close()
            self._cookies = None
        self._by_watch.clear()
        self._stopped.clear()
        self._dirty.clear()

    def _begin_again(self) -> None:
        """Start with a new queue after a loss: the walk that follows sees what was missed."""
        self._close_queue()
        try:
            self._open()
        except (OSError, WatcherUnavailable) as error:
            self._broken = f"the folder cannot be watched: {error}"

    def _open(self) -> None:
        self._queue = Inotify()
        assert self._epoll is not None
        self._epoll.register(self._queue.fd, select.EPOLLIN)
        with self._root.folder(STATE_FOLDER) as state:
            self._cookies = state.child("ck")
        for left in self._cookies.names():
            # Of a watcher that was ended between making and removing.
            with suppress(OSError):
                self._cookies.remove_file(left)
        self._cookie_watch = self._queue.add(*self._address(self._cookies), mask=CREATE)
        with self._root.folder("") as top:
            self._add(top, "", None, self._rules.root())

    @staticmethod
    def _address(folder: Folder) -> tuple[str, bool]:
        if folder.fd is not None and os.path.isdir(_BY_DESCRIPTOR):
            return f"{_BY_DESCRIPTOR}/{folder.fd}", True
        return folder.path, False

    def _add(self, folder: Folder, name: str, parent: _Watched | None, rules: FolderRules) -> None:
        """Watch a folder first and list it then, so that nothing made meanwhile is missed."""
        assert self._queue is not None
        try:
            watch = self._queue.add(*self._address(folder))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._broken = "the limit of watched folders is reached (fs.inotify.max_user_watches)"
            elif error.errno not in _GONE:
                self._lost = f"a folder cannot be watched: {error.strerror}"
            return
        moved = self._by_watch.get(watch)
        if moved is not None:
            # The same folder under the name it had before; the event of its move comes later.
            self._detach(moved, stop=False)
        self._stopped.discard(watch)
        node = self._by_watch[watch] = _Watched(watch, folder.below, name, parent, rules)
        if parent is not None:
            parent.below[name] = node
        if folder.below.count("/") + 2 > MAX_DEPTH:
            return
        try:
            with os.scandir(folder.fd) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            if error.errno not in _GONE:
                self._lost = f"a folder cannot be listed: {error.strerror}"
            return
        for below in names:
            self._add_child(folder, node, below)

    def _add_child(self, folder: Folder, node: _Watched, name: str) -> None:
        if self._broken or (node.parent is None and name == STATE_FOLDER):
            return
        wire = name if name.isascii() else name_from_disk(os.fsencode(name))[0]
        verdict = node.rules.verdict(wire, is_folder=True)
        if not verdict.travels:
            return
        try:
            with folder.child(name) as child:
                if child.device == self._root.dev:
                    self._add(child, name, node, self._rules.inside(node.rules, wire, verdict))
        except OSError as error:
            if error.errno not in _GONE and not isinstance(error, FolderReplaced):
                self._lost = f"a folder cannot be opened: {error.strerror}"

    def _detach(self, node: _Watched, *, stop: bool = True) -> None:
        """Forget a folder and all below it."""
        if node.parent is not None and node.parent.below.get(node.name) is node:
            del node.parent.below[node.name]
        waiting = [node]
        while waiting:
            one = waiting.pop()
            waiting += one.below.values()
            if self._by_watch.get(one.watch) is one:
                del self._by_watch[one.watch]
                if self._queue is not None and (stop or one is not node):
                    self._queue.remove(one.watch)
                    self._stopped.add(one.watch)

    def _write_cookie(self) -> None:
        assert self._cookies is not None
        self._number += 1
        self._cookie = f"{self._prefix}-{self._number}"
        self._cookie_seen = False
        os.close(self._cookies.create_file(self._cookie))
        self._cookies.remove_file(self._cookie)

    def _drain(self, deadline: float) -> bool:
        """Take in events until the cookie came; return whether it came in time."""
        while self._queue is not None:
            events = self._queue.read()
            for event in events:
                self._take(event)
            if self._cookie_seen or self._broken or self._lost:
                return True
            if not events and not self._queue.wait(deadline):
                return False
        return False

    def _take(self, event: RawEvent) -> None:
        mask = event.mask
        if mask & OVERFLOW:
            self._lost = "more changed at once than the system reports"
            return
        if event.watch == self._cookie_watch:
            self._cookie_seen = self._cookie_seen or event.name == self._cookie
            if mask & (IGNORED | UNMOUNT):
                self._lost = "our own folder is gone"
            return
        node = self._by_watch.get(event.watch)
        if node is None:
            if event.watch not in self._stopped:
                self._lost = "an event came from a folder that nobody watches"
            elif mask & IGNORED:
                self._stopped.discard(event.watch)
        elif mask & UNMOUNT:
            self._lost = "a disk was unmounted"
        elif mask & IGNORED:
            self._detach(node)
            self._stopped.discard(event.watch)
        elif event.name:
            self._take_name(node, mask, event.name)
        elif node.parent is None:
            self._take_root(mask)

    def _take_root(self, mask: int) -> None:
        if mask & (DELETE_SELF | MOVE_SELF):
            self._lost = "the folder itself was moved or removed"
        elif mask & ATTRIB:
            self._lost = "the folder itself changed its permissions"

    def _take_name(self, node: _Watched, mask: int, name: str) -> None:
        if node.parent is None and name == STATE_FOLDER:
            return
        self._dirty.add(f"{node.path}/{name}" if node.path else name)
        if len(self._dirty) > _MAX_DIRTY:
            self._lost = "very much changed at once"
        if not mask & IS_FOLDER:
            return
        known = node.below.get(name)
        if mask & (MOVED_FROM | DELETE | MOVED_TO | CREATE) and known is not None:
            self._detach(known)
            known = None
        if known is None and mask & (CREATE | MOVED_TO | ATTRIB):
            self._add_by_path(node, name)

    def _add_by_path(self, node: _Watched, name: str) -> None:
        try:
            with self._root.folder(node.path) as folder:
                self._add_child(folder, node, name)
        except (OSError, ValueError) as error:
            if getattr(error, "errno", errno.ENOENT) not in _GONE:
                self._lost = f"a folder cannot be opened: {error}"
