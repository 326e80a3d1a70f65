"""Regular files and links: read, trusted by their signature, or left for later."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ..budget import Candidate, left_out
from ..ignore import Standing, Verdict
from ..names import check_target
from ..transfer.signatures import MIN_DELTA_BYTES
from ..tree import Blocked, File, Link, Why, join
from .content import Content, ContentReader, NotRegular, Unstable
from .ledger import Ledger
from .platform_folder import Folder
from .sqlite_files import main_name
from .statcache import NEVER, Node, Noted, Record, Skipped, record_of

__all__ = ["MAPPED_LIMIT_BYTES", "NO_MORE_DESCRIPTORS", "Files"]

MAPPED_LIMIT_BYTES = 256 * 2**20
NO_MORE_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


class Files:
    """Takes in the files of one look.

    Args:
        ledger: Where what is seen is written down.
        make_room: Gives back descriptors that are not needed at the moment.

    Attributes:
        reader: Reads content and counts the bytes.
    """

    def __init__(self, ledger: Ledger, make_room: Callable[[], None]) -> None:
        self._ledger = ledger
        self._setting = ledger.setting
        self._wishes = ledger.wishes
        self._make_room = make_room
        self.reader = ContentReader(self._setting.key, self._setting.sleep, self._setting.trails)
        self._pending: dict[tuple[Node, str], Record] = {}

    def link(self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str) -> None:
        """Take in a link.

        Raises:
            NotRegular: It is none any more.
            FileNotFoundError: It is gone.
        """
        try:
            target = folder.read_link(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotRegular from error
        self._ledger.role(node, name, key, record=True)
        self._forget_budget(node, name)
        if os.sep != "/":
            target = target.replace(os.sep, "/")
        node.put(name, Link(target) if check_target(target) is None else Blocked(Why.LINK_OUTSIDE))
        self._ledger.record(node, name, seen)

    def file(self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str, verdict: Verdict) -> None:
        """Take in a regular file: read it, or leave that for the end where the budget decides.

        Raises:
            NotRegular: It is none any more.
            FileNotFoundError: It is gone.
        """
        if (main := main_name(name)) is not None and self._is_sidecar(node, folder, name, main, seen):
            return
        self._ledger.role(node, name, key, record=True)
        if name in node.databases:
            # Looked at together with what belongs to it, after everything else in the folder.
            node.records[name] = (NEVER, *record_of(seen)[1:])
            return
        if verdict.standing is Standing.BUDGET:
            node.budgeted[name] = (seen.st_size, seen.st_mtime_ns)
            node.records[name] = (NEVER, *record_of(seen)[1:])
            self._ledger.unrest.paths.add(node.at(name))
            self._ledger.budget_changed = True
            self._pending[node, name] = record_of(seen)
            return
        self._forget_budget(node, name)
        if verdict.standing is Standing.TRAVELS and seen.st_size > self._setting.budget.file:
            node.put(name, Blocked(Why.TOO_BIG, seen.st_size))
            node.records[name] = record_of(seen)
            return
        self._read(node, folder, name, seen)

    def _forget_budget(self, node: Node, name: str) -> None:
        if node.budgeted.pop(name, None) is not None:
            self._ledger.budget_changed = True

    def _read(self, node: Node, folder: Folder, name: str, seen: os.stat_result) -> None:
        path = join(node.path, node.keys.get(name, name))
        if self._wishes.mapped and path in self._wishes.mapped and seen.st_size > MAPPED_LIMIT_BYTES:
            self._ledger.doubtful(node, name, seen, Blocked(Why.MAPPED, seen.st_size))
            return
        if self._setting.cache.noted and not self._wishes.rehash:
            noted = self._setting.cache.noted.pop(path, None)
            if noted is not None and noted.record == record_of(seen) and self._is_trusted(noted):
                self._ledger.put_file(node, name, seen, noted.digest)
                return
        try:
            content = self._content(node, folder, name, seen.st_size)
        except Unstable:
            self._ledger.doubtful(node, name, seen, Blocked(Why.UNSTABLE, seen.st_size))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotRegular from error
            self._ledger.doubtful(node, name, seen, Blocked(Why.UNREADABLE, seen.st_size))
        else:
            entry = self._ledger.put_file(node, name, content.seen, content.digest)
            if self._wishes.on_content is not None and content.data is not None:
                self._wishes.on_content(path, entry, content.data)

    def _content(self, node: Node, folder: Folder, name: str, size: int) -> Content:
        # What a small one was before helps nobody.
        entry = node.entry(name) if size >= MIN_DELTA_BYTES else None
        known = (entry.digest, entry.size) if isinstance(entry, File) else None
        try:
            return self.reader.read(folder, name, known)
        except OSError as error:
            if error.errno not in NO_MORE_DESCRIPTORS:
                raise
        self._make_room()
        return self.reader.read(folder, name, known)

    def _is_trusted(self, noted: Noted) -> bool:
        return not noted.fresh or self._setting.probe.stamps_differ

    # -- open databases

    def _is_sidecar(self, node: Node, folder: Folder, name: str, main: str, seen: os.stat_result) -> bool:
        if main not in node.databases and not self._setting.databases.is_database(folder, main):
            return False
        node.databases.setdefault(main, ())
        if name not in node.skipped:
            self._ledger.skip(node, name, Skipped(f"it belongs to the open database {main}", False, seen.st_size))
        return True

    def look_at_databases(self, node: Node, folder: Folder) -> None:
        """Take in the open databases of a folder, after everything else in it."""
        for main in list(node.databases):
            try:
                self._look_at_database(node, folder, main)
            except FileNotFoundError:
                node.databases.pop(main, None)
                self._ledger.unrest.paths.add(node.at(main))

    def _look_at_database(self, node: Node, folder: Folder, main: str) -> None:
        databases = self._setting.databases
        looks = databases.looks(folder, main)
        path = join(node.path, node.key(main))
        if len(looks) == 1 or main not in node.records:
            # Closed: an ordinary file again.
            del node.databases[main]
            databases.forget(path)
            seen = folder.stat(main)
            if main in node.records:
                self._read(node, folder, main, seen)
            return
        # What belongs to it is watched under its name too, so every look includes it.
        self._ledger.unrest.paths.add(node.at(main))
        entry = node.entry(main)
        if looks == node.databases[main] and isinstance(entry, File) and not self._wishes.rehash:
            return
        copied = databases.copy(folder, main, path)
        seen = folder.stat(main)
        if copied is None:
            self._ledger.doubtful(node, main, seen, Blocked(Why.UNSTABLE, seen.st_size))
            return
        digest, size = copied
        node.put(main, File(digest, size, self._setting.probe.has_exec and bool(seen.st_mode & 0o100)))
        # Written in this very tick: the next look copies it again.
        node.databases[main] = () if any(look[0] >= self._ledger.racy_from for look in looks) else looks

    def decide_budget(self, top: Node) -> None:
        """Decide which files that Git ignores travel, and read those whose turn it is now."""
        if not self._ledger.budget_changed:
            return
        nodes = {join(node.path, node.key(name)): (node, name) for node in top.below() for name in node.budgeted}
        candidates = (Candidate(path, *node.budgeted[name], git_ignored=True) for path, (node, name) in nodes.items())
        out = left_out(candidates, self._setting.budget)
        for path, (node, name) in nodes.items():
            if path in out:
                self._leave_out(node, name, out[path])
            elif (node, name) in self._pending or not isinstance(node.entry(name), File):
                self._read_later(node, name)

    def _leave_out(self, node: Node, name: str, why: Why) -> None:
        size = node.budgeted[name][0]
        node.put(name, Blocked(why, size))
        node.records[name] = self._pending.get((node, name), node.records[name])
        self._ledger.unrest.paths.discard(node.at(name))

    def _read_later(self, node: Node, name: str) -> None:
        try:
            with self._setting.root.folder(node.disk) as folder:
                self._read(node, folder, name, folder.stat(name))
        except (OSError, NotRegular):
            node.put(name, Blocked(Why.UNSTABLE, node.budgeted[name][0]))
            self._ledger.unrest.paths.add(node.at(name))
