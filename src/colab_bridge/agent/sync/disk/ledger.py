"""What a look changes in the nodes, and what it must remember for the next look."""

from __future__ import annotations

import os
import stat as modes
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ..budget import Budget
from ..ignore import IgnoreRules
from ..transfer.trail import Trails
from ..tree import Blocked, Directory, File, Unknown, join
from .probe import FsProbe
from .root import Root
from .sqlite_files import LiveDatabases, main_name
from .statcache import NEVER, Node, Skipped, StatCache, record_of

__all__ = ["Ledger", "Setting", "Unrest", "Wishes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stays the same from look to look.

    Attributes:
        root: The folder.
        rules: What is left out.
        key: Key of the pairing.
        cache: What was seen before.
        probe: What the file system can do.
        budget: Limits for large files.
        databases: Copies of open databases.
        trails: What reading large files has left behind.
        sleep: Waits, seconds.
    """

    root: Root
    rules: IgnoreRules
    key: bytes
    cache: StatCache
    probe: FsProbe
    budget: Budget
    databases: LiveDatabases
    trails: Trails
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is special about one look.

    Attributes:
        rehash: Read all content, whatever the signatures say.
        known: The ancestor: tells which of two names with one key stays.
        mapped: Paths of files that a program has mapped into memory.
        gone: Paths that we removed ourselves, so nobody waits for them to come back.
        on_content: Given path, entry and content of every file below 1 MiB that was read.
    """

    rehash: bool = False
    known: Directory | None = None
    mapped: Collection[str] = ()
    gone: Collection[str] = ()
    on_content: Callable[[str, File, bytes], None] | None = None


@dataclass(slots=True)
class Unrest:
    """Disk paths that every look must include.

    Attributes:
        paths: Just changed, unstable or unreadable: looked at again until that is over.
        linked: Files with several names; a change through another name is reported nowhere. The inode by path.
    """

    paths: set[str] = field(default_factory=set)
    linked: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Keeps the books of one look.

    Args:
        setting: What stays the same.
        wishes: What is special.
        linked: Files with several names, by path; changed in place.

    Attributes:
        unrest: What the next look must include.
        new_links: Inodes of files that were found to have several names.
        budget_changed: Which large files travel must be decided anew.
        left_out_changed: Something that is left out has another size.
        racy_from: Stamps from here on may be repeated by a later write, nanoseconds since 1970.
    """

    def __init__(self, setting: Setting, wishes: Wishes, linked: dict[str, int]) -> None:
        self.setting = setting
        self.wishes = wishes
        self.unrest = Unrest(linked=linked)
        self.new_links: set[int] = set()
        self.budget_changed = False
        self.left_out_changed = False
        window = 2 * setting.probe.granularity_ns
        start = setting.root.now_ns()
        self.racy_from = start - window
        self._future = start + window

    def role(self, node: Node, name: str, key: str, *, record: bool) -> None:
        """Make a name an entry of one kind; what it was before is forgotten."""
        if node.folders.pop(name, None) is not None:
            self.budget_changed = True
        node.others.discard(name)
        if node.skipped.pop(name, None) is not None:
            node.touch()
        if not record:
            node.records.pop(name, None)
            node.databases.pop(name, None)
            self.budget_changed = node.budgeted.pop(name, None) is not None or self.budget_changed
        if key != name:
            node.keys[name] = key

    def set_other(self, node: Node, name: str, entry: Blocked | Unknown, key: str) -> None:
        """Set something that has no signature, so each look meets it again."""
        self.role(node, name, key, record=False)
        node.others.add(name)
        node.put(name, entry)
        if isinstance(entry, Unknown):
            self.unrest.paths.add(node.at(name))

    def skip(self, node: Node, name: str, skipped: Skipped) -> None:
        """Leave a name out."""
        self.drop(node, name)
        node.skipped[name] = skipped
        node.touch()

    def drop(self, node: Node, name: str) -> None:
        """Forget a name and everything below it."""
        self.budget_changed = self.budget_changed or name in node.budgeted or name in node.folders
        if name in node.databases:
            # What lies beside an open database is an ordinary file without it.
            self.unrest.paths.update(node.at(other) for other in node.skipped if main_name(other) == name)
        node.drop(name)
        self.unrest.linked.pop(node.at(name), None)

    def doubtful(self, node: Node, name: str, seen: os.stat_result, entry: Blocked) -> None:
        """Block a file for now; the next look tries again."""
        node.put(name, entry)
        node.records[name] = (NEVER, *record_of(seen)[1:])
        self.unrest.paths.add(node.at(name))

    def put_file(self, node: Node, name: str, seen: os.stat_result, digest: bytes) -> File:
        """Set a file whose content is known, and return what it is in the tree."""
        entry = File(digest, seen.st_size, self.setting.probe.has_exec and bool(seen.st_mode & 0o100))
        node.put(name, entry)
        self.record(node, name, seen)
        return entry

    def record(self, node: Node, name: str, seen: os.stat_result) -> None:
        """Keep the signature, unless a write in the same tick would look the same."""
        path = node.at(name)
        if seen.st_nlink > 1 and modes.S_ISREG(seen.st_mode):
            if self.unrest.linked.get(path) != seen.st_ino:
                self.unrest.linked[path] = seen.st_ino
                self.new_links.add(seen.st_ino)
        elif self.unrest.linked:
            self.unrest.linked.pop(path, None)
        mapped = bool(self.wishes.mapped) and join(node.path, node.key(name)) in self.wishes.mapped
        record = record_of(seen)
        # A change time ahead of the clock was set by hand, no write of this moment can repeat it.
        racy = record[0] >= self.racy_from or self.racy_from <= record[1] <= self._future
        if racy or mapped:
            node.records[name] = (NEVER, *record[1:])
            self.unrest.paths.add(path)
        else:
            node.records[name] = record
            self.unrest.paths.discard(path)
