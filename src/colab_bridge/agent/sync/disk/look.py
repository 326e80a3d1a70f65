"""One look at a tree: lists folders, compares signatures, reads what changed. Used by the scanner only.

A look changes the nodes; what changed is collected in their drafts, and trees are made of them afterwards.
"""

from __future__ import annotations

import errno
import os
import stat as modes
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from unicodedata import is_normalized

from ..budget import Budget, Candidate, left_out
from ..ignore import IgnoreRules, Standing, Verdict
from ..names import MAX_DEPTH, MAX_PATH_BYTES, check_name, check_target, fold_key, name_from_disk, pick_names
from ..tree import Blocked, Directory, File, Link, Unknown, Why, entry_at, join
from .content import Content, ContentReader, NotRegular, Unstable
from .platform_folder import Folder, FolderReplaced
from .platform_inotify import code_name
from .platform_paths import is_reparse_point
from .probe import FsProbe
from .root import STATE_FOLDER, Root
from .sqlite_files import LiveDatabases, main_name
from .statcache import NEVER, Node, Noted, Record, Skipped, StatCache, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAPPED_LIMIT_BYTES", "Look", "Setting", "Wishes"]

MAPPED_LIMIT_BYTES = 256 * 2**20
_PIECE_NAMES = 1024
_TURNS = 3
_RECENT_NS = 50_000_000
_PAUSE_S = 0.02
_LOOKS_AGAIN = 10
_MAX_ABSENT = 1_000
_NO_MORE_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


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
        sleep: Waits, seconds.
    """

    root: Root
    rules: IgnoreRules
    key: bytes
    cache: StatCache
    probe: FsProbe
    budget: Budget
    databases: LiveDatabases
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is special about one look.

    Attributes:
        rehash: Read all content, whatever the signatures say.
        known: The ancestor: tells which of two names with one key stays.
        mapped: Paths of files that a program has mapped into memory.
        gone: Paths that we removed ourselves, so nobody waits for them to come back.
    """

    rehash: bool = False
    known: Directory | None = None
    mapped: Collection[str] = ()
    gone: Collection[str] = ()


@dataclass(slots=True)
class Unrest:
    """Disk paths that every look must include.

    Attributes:
        paths: Just changed, unstable or unreadable: looked at again until that is over.
        linked: Files with several names; a change through another name is reported nowhere. The inode by path.
    """

    paths: set[str] = field(default_factory=set)
    linked: dict[str, int] = field(default_factory=dict)


class Look:
    """One look; see the module."""

    def __init__(self, setting: Setting, wishes: Wishes, mounts: frozenset[str], linked: dict[str, int]) -> None:
        self.setting = setting
        self.wishes = wishes
        self.reader = ContentReader(setting.key, setting.sleep)
        self.unrest = Unrest(linked=linked)
        self.new_links: set[int] = set()
        self._mounts = mounts
        self._device = setting.root.dev
        self._folds = setting.probe.folds_case or setting.probe.normalises
        window = 2 * setting.probe.granularity_ns
        start = setting.root.now_ns()
        self._racy_from = start - window
        self._future = start + window
        self._chain: list[Folder] = []
        self._pending: dict[tuple[Node, str], Record] = {}
        self._absent: dict[tuple[Node, str], None] = {}
        self._budget_changed = False
        self._by_inode: dict[tuple[int, int], Node] | None = None

    # -- folders

    def folder(self, node: Node, folder: Folder, deep: Collection[str] | None = None) -> None:
        """List a folder and look at everything in it.

        Args:
            node: What is known about it.
            folder: Open.
            deep: Names of the folders to enter that are known already; None enters all.

        Raises:
            OSError: It could not be listed completely; FileNotFoundError: it is gone.
        """
        names: list[str] = []
        lost: set[str] = set()
        for _ in range(2):
            names = folder.names()
            if node.parent is None:
                names = [name for name in names if name != STATE_FOLDER]
            lost = self._pass(node, folder, names, deep)
            if not lost:
                break
        self._missing(node, folder, {*names} - lost if lost else names)
        if node.databases:
            self._look_at_databases(node, folder)

    def _pass(self, node: Node, folder: Folder, names: list[str], deep: Collection[str] | None) -> set[str]:
        """Look at all names once; return those that are gone by now."""
        losers = self._twins(node, names)
        for name in losers:
            if name in node.records or name in node.folders:
                self._drop(node, name)
        lost: set[str] = set()
        slow: list[tuple[str, os.stat_result]] = []
        records: Mapping[str, Record] = {} if self.wishes.rehash else node.records
        device = node.device
        for start in range(0, len(names), _PIECE_NAMES):
            piece = names[start : start + _PIECE_NAMES]
            for name, seen in self._stats(node, folder, piece, lost):
                record = records.get(name)
                if (
                    record is None
                    or record[0] != seen.st_ctime_ns
                    or record[1] != seen.st_mtime_ns
                    or record[2] != seen.st_ino
                    or record[4] != seen.st_size
                    or record[3] != seen.st_mode
                    or seen.st_dev != device
                ):
                    slow.append((name, seen))
        for name, seen in slow:
            if self._entry(node, folder, name, seen, losers, deep):
                lost.add(name)
                if not node.knows(name):
                    self._drop(node, name)
        return lost

    def _stats(
        self, node: Node, folder: Folder, names: list[str], lost: set[str]
    ) -> Iterable[tuple[str, os.stat_result]]:
        try:
            return folder.stats(names)
        except OSError:
            return self._stats_one_by_one(node, folder, names, lost)

    def _stats_one_by_one(
        self, node: Node, folder: Folder, names: list[str], lost: set[str]
    ) -> Iterator[tuple[str, os.stat_result]]:
        for name in names:
            try:
                yield name, folder.stat(name)
            except FileNotFoundError:
                lost.add(name)
            except PermissionError:
                # Readable but not searchable: nothing in the folder can be looked at.
                raise
            except OSError as error:
                self._set_other(node, name, Unknown(code_name(error)), self._key(node, name, frozenset())[0])

    def _missing(self, node: Node, folder: Folder, names: Collection[str]) -> None:
        if len(names) == node.count() and (isinstance(names, list) or node.known() == names):
            # All looked at by now, so each is known: the same number means the same names.
            return
        gone = node.known().difference(names)
        if not gone:
            return
        recent = self._is_recent(folder)
        for name in gone:
            self._lose(node, name, recent=recent)

    def _lose(self, node: Node, name: str, *, recent: bool) -> None:
        """Take a name for deleted, or wait for it: an editor that saves lets a file vanish for a moment."""
        tracked = name in node.records or name in node.folders
        ours = bool(self.wishes.gone) and join(node.path, node.key(name)) in self.wishes.gone
        if recent and tracked and not ours and len(self._absent) < _MAX_ABSENT:
            self._absent[node, name] = None
        else:
            self._drop(node, name)

    def _drop(self, node: Node, name: str) -> None:
        self._budget_changed = self._budget_changed or name in node.budgeted or name in node.folders
        if name in node.databases:
            self.unrest.paths.update(_disk_path(node, other) for other in node.skipped if main_name(other) == name)
        node.drop(name)
        self.unrest.linked.pop(_disk_path(node, name), None)

    def _is_recent(self, folder: Folder) -> bool:
        seen = os.fstat(folder.fd) if folder.fd is not None else os.stat(folder.path, follow_symlinks=False)
        return seen.st_mtime_ns >= self.setting.root.now_ns() - _RECENT_NS

    def names(self, node: Node, folder: Folder, names: Collection[str]) -> None:
        """Look at some names in a folder; at the whole folder where names may meet.

        Raises:
            OSError: The folder cannot be searched; FileNotFoundError: it is gone.
        """
        if not names:
            return
        if self._folds or node.mixed or len(names) > node.count() // 2 + 8 or not "".join(names).isascii():
            self.folder(node, folder, names)
            return
        for name in names:
            self._name(node, folder, name)
        if node.databases:
            self._look_at_databases(node, folder)

    def _name(self, node: Node, folder: Folder, name: str) -> None:
        for _ in range(2):
            try:
                seen = folder.stat(name)
            except FileNotFoundError:
                break
            except PermissionError:
                raise
            except OSError as error:
                self._set_other(node, name, Unknown(code_name(error)), name)
                return
            if not self._entry(node, folder, name, seen, frozenset(), None):
                return
        if node.knows(name):
            self._lose(node, name, recent=self._is_recent(folder))
        else:
            self._drop(node, name)

    # -- names

    def _twins(self, node: Node, names: list[str]) -> frozenset[str]:
        """Return the names that another name in the folder keeps from travelling."""
        # A name that is gone but waited for counts as well, so once mixed is mixed until nothing is left of it.
        node.mixed = self._folds or bool(node.keys) or not "".join(names).isascii()
        if not self._folds:
            if not node.mixed:
                return frozenset()
            if all(is_normalized("NFC", name) for name in names):
                return frozenset()
        groups: dict[str, list[str]] = {}
        for name in names:
            wire = name if name.isascii() else name_from_disk(os.fsencode(name))[0]
            groups.setdefault(fold_key(wire) if self._folds else wire, []).append(name)
        if len(groups) == len(names):
            return frozenset()
        losers: list[str] = []
        for group in groups.values():
            if len(group) > 1:
                losers += pick_names(group, (self._known_name(node, group), self._exact(group)))[1]
        return frozenset(losers)

    def _known_name(self, node: Node, group: list[str]) -> str | None:
        known = entry_at(self.wishes.known, node.path) if self.wishes.known is not None else None
        if not isinstance(known, Directory):
            return None
        return next((name for name in sorted(group) if name in known.children), None)

    @staticmethod
    def _exact(group: list[str]) -> str | None:
        return next((name for name in sorted(group) if is_normalized("NFC", name)), None)

    @staticmethod
    def _key(node: Node, name: str, losers: frozenset[str]) -> tuple[str, Why | None]:
        """Return the name in the tree, and why it cannot travel."""
        if name.isascii() and not losers:
            wire, fault = name, check_name(name)
        else:
            raw = os.fsencode(name)
            wire, fault = name_from_disk(raw)
            if name in losers:
                # The bytes make it unique, the backslash keeps it apart from every name that may travel.
                return f"{wire}\\{raw.hex()}", Why.COLLISION
        if fault is not None and fault.grade != "unportable":
            return wire, Why.BAD_NAME
        if node.parent is None and wire.startswith("~"):
            return wire, Why.BAD_NAME
        depth = node.path.count("/") + 2 if node.path else 1
        too_long = len(node.path.encode()) + 1 + len(wire.encode()) > MAX_PATH_BYTES and node.path
        return wire, Why.TOO_DEEP if depth > MAX_DEPTH or too_long else None

    # -- entries

    def _entry(
        self,
        node: Node,
        folder: Folder,
        name: str,
        seen: os.stat_result,
        losers: frozenset[str],
        deep: Collection[str] | None,
    ) -> bool:
        """Look at one entry; return whether it is gone by now."""
        for _ in range(_TURNS):
            try:
                self._one(node, folder, name, seen, losers, deep)
            except (NotRegular, NotADirectoryError, FolderReplaced):
                # Something else took its place since it was seen.
                try:
                    seen = folder.stat(name)
                except FileNotFoundError:
                    return True
                continue
            except FileNotFoundError:
                return True
            return False
        self._set_other(node, name, Unknown("ESTALE"), self._key(node, name, losers)[0])
        return False

    def _one(
        self,
        node: Node,
        folder: Folder,
        name: str,
        seen: os.stat_result,
        losers: frozenset[str],
        deep: Collection[str] | None,
    ) -> None:
        mode = seen.st_mode
        is_folder = modes.S_ISDIR(mode)
        known = node.folders.get(name)
        if known is not None and is_folder and not losers and (known.device, known.inode) == (seen.st_dev, seen.st_ino):
            if deep is None or name in deep:
                self._enter(node, folder, name, known)
            return
        old = node.skipped.get(name)
        if old is not None and old.is_folder == is_folder and isinstance(old.verdict, Verdict):
            if not is_folder and old.size != seen.st_size:
                node.skipped[name] = old._replace(size=seen.st_size)
            return
        key, why = self._key(node, name, losers)
        if node.knows(name) and node.key(name) != key:
            self._drop(node, name)
        if known is not None and losers and is_folder and why is None and known.inode == seen.st_ino:
            if deep is None or name in deep:
                self._enter(node, folder, name, known)
            return
        verdict = node.rules.verdict(key if why is not Why.COLLISION else name, is_folder=is_folder)
        if not verdict.travels:
            self._skip(node, name, Skipped(verdict, is_folder, 0 if is_folder else seen.st_size))
            return
        if why is None and self._is_foreign(node, name, seen):
            why = Why.OTHER_DEVICE
        if why is not None or is_reparse_point(seen):
            self._set_other(node, name, Blocked(why or Why.LINK_OUTSIDE), key)
        elif is_folder:
            self._new_folder(node, folder, name, seen, key, verdict)
        elif modes.S_ISREG(mode):
            self._file(node, folder, name, seen, key, verdict)
        elif modes.S_ISLNK(mode):
            self._link(node, folder, name, seen, key)
        else:
            self._set_other(node, name, Blocked(Why.SPECIAL), key)

    def _is_foreign(self, node: Node, name: str, seen: os.stat_result) -> bool:
        return seen.st_dev != self._device or (bool(self._mounts) and _disk_path(node, name) in self._mounts)

    def _role(self, node: Node, name: str, key: str, *, record: bool) -> None:
        """Make a name an entry of one kind; what it was before is forgotten."""
        if node.folders.pop(name, None) is not None:
            self._budget_changed = True
        node.others.discard(name)
        if node.skipped.pop(name, None) is not None:
            node.touch()
        if not record:
            node.records.pop(name, None)
            node.databases.pop(name, None)
            self._budget_changed = node.budgeted.pop(name, None) is not None or self._budget_changed
        if key != name:
            node.keys[name] = key

    def _set_other(self, node: Node, name: str, entry: Blocked | Unknown, key: str) -> None:
        self._role(node, name, key, record=False)
        node.others.add(name)
        node.put(name, entry)
        if isinstance(entry, Unknown):
            self.unrest.paths.add(_disk_path(node, name))

    def _skip(self, node: Node, name: str, skipped: Skipped) -> None:
        self._drop(node, name)
        node.skipped[name] = skipped
        node.touch()

    # -- kinds

    def _new_folder(
        self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str, verdict: Verdict
    ) -> None:
        self._role(node, name, key, record=False)
        rules = self.setting.rules.inside(node.rules, key, verdict)
        below = Node(name, node, join(node.path, key), rules, (seen.st_dev, seen.st_ino))
        self._remember_moved(below)
        node.touch()
        node.folders[name] = below
        try:
            self._enter(node, folder, name, below)
        except OSError:
            self._drop(node, name)
            raise

    def _enter(self, node: Node, folder: Folder, name: str, below: Node) -> None:
        if self._mounts and below.disk in self._mounts:
            self._set_other(node, name, Blocked(Why.OTHER_DEVICE), node.key(name))
            return
        try:
            child = self.open(folder, name, (below.device, below.inode))
            try:
                self.folder(below, child)
            finally:
                self.close()
        except (FileNotFoundError, NotADirectoryError, FolderReplaced):
            raise
        except OSError as error:
            self.set_unknown(below, error)

    def set_unknown(self, below: Node, error: OSError) -> None:
        """Say that a folder could not be listed: nothing is concluded about what is in it (S6)."""
        if below.parent is not None:
            self._set_other(below.parent, below.name, Unknown(code_name(error)), below.parent.key(below.name))

    def open(self, folder: Folder, name: str, identity: tuple[int, int]) -> Folder:
        """Open a folder that was seen; :meth:`close` closes the one that was opened last.

        Where no descriptor is left, those of the folders around it are given back first.

        Raises:
            FolderReplaced: Another folder stands there now.
        """
        try:
            child = folder.child(name, identity)
        except OSError as error:
            if error.errno not in _NO_MORE_DESCRIPTORS:
                raise
            for held in self._chain:
                held.release()
            child = folder.child(name, identity)
        self._chain.append(child)
        return child

    def close(self) -> None:
        """Close the folder that was opened last."""
        self._chain.pop().close()

    def _remember_moved(self, below: Node) -> None:
        """Let a folder that was moved keep what is known about its content."""
        top = self.setting.cache.top
        if self._by_inode is None:
            self._by_inode = {} if top is None else {(old.device, old.inode): old for old in top.below()}
        moved = self._by_inode.pop((below.device, below.inode), None)
        if moved is None:
            return
        noted = self.setting.cache.noted
        for node in moved.below():
            base = below.path + node.path[len(moved.path) :]
            for name, record in node.records.items():
                entry = node.entry(name)
                if record[0] != NEVER and isinstance(entry, File):
                    noted[join(base, node.key(name))] = Noted(record, entry.digest, fresh=False)

    def _link(self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str) -> None:
        try:
            target = folder.read_link(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NotRegular from error
        self._role(node, name, key, record=True)
        self._forget_budget(node, name)
        if os.sep != "/":
            target = target.replace(os.sep, "/")
        node.put(name, Link(target) if check_target(target) is None else Blocked(Why.LINK_OUTSIDE))
        self._record(node, name, seen)

    def _file(self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str, verdict: Verdict) -> None:
        if (main := main_name(name)) is not None and self._is_sidecar(node, folder, name, main, seen):
            return
        self._role(node, name, key, record=True)
        if name in node.databases:
            # Looked at together with what belongs to it, after everything else in the folder.
            node.records[name] = (NEVER, *record_of(seen)[1:])
            return
        if verdict.standing is Standing.BUDGET:
            node.budgeted[name] = (seen.st_size, seen.st_mtime_ns)
            node.records[name] = (NEVER, *record_of(seen)[1:])
            self.unrest.paths.add(_disk_path(node, name))
            self._budget_changed = True
            self._pending[node, name] = record_of(seen)
            return
        self._forget_budget(node, name)
        if verdict.standing is Standing.TRAVELS and seen.st_size > self.setting.budget.file:
            node.put(name, Blocked(Why.TOO_BIG, seen.st_size))
            node.records[name] = record_of(seen)
            return
        self._read(node, folder, name, seen)

    def _forget_budget(self, node: Node, name: str) -> None:
        if node.budgeted.pop(name, None) is not None:
            self._budget_changed = True

    def _read(self, node: Node, folder: Folder, name: str, seen: os.stat_result) -> None:
        path = join(node.path, node.key(name))
        if self.wishes.mapped and path in self.wishes.mapped and seen.st_size > MAPPED_LIMIT_BYTES:
            self._doubtful(node, name, seen, Blocked(Why.MAPPED, seen.st_size))
            return
        if self.setting.cache.noted and not self.wishes.rehash:
            noted = self.setting.cache.noted.pop(path, None)
            if noted is not None and noted.record == record_of(seen) and self._is_trusted(noted):
                self._put_file(node, name, seen, noted.digest)
                return
        try:
            content = self._content(folder, name)
        except Unstable:
            self._doubtful(node, name, seen, Blocked(Why.UNSTABLE, seen.st_size))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotRegular from error
            self._doubtful(node, name, seen, Blocked(Why.UNREADABLE, seen.st_size))
        else:
            self._put_file(node, name, content.seen, content.digest)

    def _content(self, folder: Folder, name: str) -> Content:
        try:
            return self.reader.read(folder, name)
        except OSError as error:
            if error.errno not in _NO_MORE_DESCRIPTORS:
                raise
        for held in self._chain[:-1]:
            held.release()
        return self.reader.read(folder, name)

    def _is_trusted(self, noted: Noted) -> bool:
        return not noted.fresh or self.setting.probe.stamps_differ

    def _doubtful(self, node: Node, name: str, seen: os.stat_result, entry: Blocked) -> None:
        node.put(name, entry)
        node.records[name] = (NEVER, *record_of(seen)[1:])
        self.unrest.paths.add(_disk_path(node, name))

    def _put_file(self, node: Node, name: str, seen: os.stat_result, digest: bytes) -> None:
        executable = self.setting.probe.has_exec and bool(seen.st_mode & 0o100)
        node.put(name, File(digest, seen.st_size, executable))
        self._record(node, name, seen)

    def _record(self, node: Node, name: str, seen: os.stat_result) -> None:
        """Keep the signature, unless a write in the same tick would look the same."""
        path = _disk_path(node, name)
        if seen.st_nlink > 1 and modes.S_ISREG(seen.st_mode):
            if self.unrest.linked.get(path) != seen.st_ino:
                self.unrest.linked[path] = seen.st_ino
                self.new_links.add(seen.st_ino)
        elif self.unrest.linked:
            self.unrest.linked.pop(path, None)
        mapped = bool(self.wishes.mapped) and join(node.path, node.key(name)) in self.wishes.mapped
        # A change time ahead of the clock was set by hand, no write of this moment can repeat it.
        racy = seen.st_ctime_ns >= self._racy_from or self._racy_from <= seen.st_mtime_ns <= self._future
        if racy or mapped:
            node.records[name] = (NEVER, *record_of(seen)[1:])
            self.unrest.paths.add(path)
        else:
            node.records[name] = record_of(seen)
            self.unrest.paths.discard(path)

    # -- open databases

    def _is_sidecar(self, node: Node, folder: Folder, name: str, main: str, seen: os.stat_result) -> bool:
        if main not in node.databases and not self.setting.databases.is_database(folder, main):
            return False
        node.databases.setdefault(main, ())
        if name not in node.skipped:
            self._skip(node, name, Skipped(f"it belongs to the open database {main}", False, seen.st_size))
        return True

    def _look_at_databases(self, node: Node, folder: Folder) -> None:
        for main in list(node.databases):
            try:
                self._look_at_database(node, folder, main)
            except FileNotFoundError:
                node.databases.pop(main, None)
                self.unrest.paths.add(_disk_path(node, main))

    def _look_at_database(self, node: Node, folder: Folder, main: str) -> None:
        databases = self.setting.databases
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
        self.unrest.paths.add(_disk_path(node, main))
        entry = node.entry(main)
        if looks == node.databases[main] and isinstance(entry, File) and not self.wishes.rehash:
            return
        copied = databases.copy(folder, main, path)
        seen = folder.stat(main)
        if copied is None:
            self._doubtful(node, main, seen, Blocked(Why.UNSTABLE, seen.st_size))
            return
        digest, size = copied
        node.put(main, File(digest, size, self.setting.probe.has_exec and bool(seen.st_mode & 0o100)))
        # Written in this very tick: the next look copies it again.
        node.databases[main] = () if any(look[0] >= self._racy_from for look in looks) else looks

    # -- the end of a look

    def finish(self, top: Node) -> None:
        """Wait for what vanished a moment ago, then decide which large files travel and read those."""
        self._await_absent()
        if self._budget_changed:
            self._decide_budget(top)
        self._pending.clear()

    def _await_absent(self) -> None:
        for _ in range(_LOOKS_AGAIN):
            if not self._absent:
                return
            # No event tells that an editor has finished; the rule is to look again every 20 ms, ten times at most.
            self.setting.sleep(_PAUSE_S)
            waiting, self._absent = self._absent, {}
            for node, name in waiting:
                self._look_for(node, name)
        for node, name in self._absent:
            self._drop(node, name)
        self._absent.clear()

    def _look_for(self, node: Node, name: str) -> None:
        try:
            with self.setting.root.folder(node.disk) as folder:
                self.names(node, folder, {name})
        except OSError:
            # The folder itself went away or was closed meanwhile; the next look tells.
            self._drop(node, name)
            self.unrest.paths.add(_disk_path(node, name))

    def _decide_budget(self, top: Node) -> None:
        nodes = {join(node.path, node.key(name)): (node, name) for node in top.below() for name in node.budgeted}
        candidates = (Candidate(path, *node.budgeted[name], git_ignored=True) for path, (node, name) in nodes.items())
        out = left_out(candidates, self.setting.budget)
        for path, (node, name) in nodes.items():
            if path in out:
                self._leave_out(node, name, out[path])
            elif (node, name) in self._pending or not isinstance(node.entry(name), File):
                self._read_later(node, name)

    def _leave_out(self, node: Node, name: str, why: Why) -> None:
        size = node.budgeted[name][0]
        node.put(name, Blocked(why, size))
        node.records[name] = self._pending.get((node, name), node.records[name])
        self.unrest.paths.discard(_disk_path(node, name))

    def _read_later(self, node: Node, name: str) -> None:
        try:
            with self.setting.root.folder(node.disk) as folder:
                self._read(node, folder, name, folder.stat(name))
        except (OSError, NotRegular):
            node.put(name, Blocked(Why.UNSTABLE, node.budgeted[name][0]))
            self.unrest.paths.add(_disk_path(node, name))


def _disk_path(node: Node, name: str) -> str:
    return f"{node.disk}/{name}" if node.disk else name
