"""One look at a tree: lists folders, compares signatures, reads what changed. Used by the scanner only.

A look changes the nodes; what changed is collected in their drafts, and trees are made of them afterwards.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..ignore import Verdict
from ..tree import Blocked, File, Unknown, Why, join
from .content import NotRegular
from .files import NO_MORE_DESCRIPTORS, Files
from .ledger import Ledger, Setting, Wishes
from .naming import meeting_names, tree_name
from .platform_folder import Folder, FolderReplaced
from .platform_inotify import code_name
from .platform_paths import is_reparse_point
from .root import STATE_FOLDER
from .statcache import NEVER, Node, Noted, Record, Skipped, record_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Look"]

_TURNS = 3
_RECENT_NS = 50_000_000
_PAUSE_S = 0.02
_LOOKS_AGAIN = 10
_MAX_ABSENT = 1_000


class Look:
    """One look; see the module."""

    def __init__(self, setting: Setting, wishes: Wishes, mounts: frozenset[str] | None, linked: dict[str, int]) -> None:
        self.ledger = Ledger(setting, wishes, linked)
        self.files = Files(self.ledger, self._make_room)
        self._setting = setting
        self._wishes = wishes
        self._mounts = mounts
        self._folds = setting.probe.folds_case or setting.probe.normalises
        self._chain: list[Folder] = []
        self._absent: dict[tuple[Node, str], None] = {}
        self._by_inode: dict[tuple[int, int], Node] | None = None

    def _make_room(self) -> None:
        for held in self._chain[:-1]:
            held.release()

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
        listing = folder.listing()
        if self._wishes.rehash or node.listed != (listing, node.count()) or not self._as_listed(node, folder, deep):
            self._list(node, folder, deep, listing)
        if node.databases:
            self.files.look_at_databases(node, folder)

    def _as_listed(self, node: Node, folder: Folder, deep: Collection[str] | None) -> bool:
        """Look at what is known in a folder that lists what it listed before.

        As many names are listed as are known. So where all that are known are there, none is new.

        Returns:
            False where something is gone by now or is not what it was: then all names have to be looked at.
        """
        folders = [(name, known) for name, known in node.folders.items() if deep is None or name in deep]
        try:
            changed = folder.differing(node.records)
            changed += [(name, folder.stat(name)) for name in (*node.skipped, *node.others)]
        except OSError:
            return False
        try:
            if any(self._entry(node, folder, name, seen, frozenset(), deep) for name, seen in changed):
                return False
            for name, known in folders:
                self._enter(node, folder, name, known)
        except (FileNotFoundError, NotADirectoryError, FolderReplaced):
            return False
        return True

    def _list(self, node: Node, folder: Folder, deep: Collection[str] | None, listing: int) -> None:
        """List a folder and look at each name; see :meth:`folder`."""
        names: list[str] = []
        lost: set[str] = set()
        losers: frozenset[str] = frozenset()
        node.listed = None
        for _ in range(2):
            names = folder.names()
            if node.parent is None:
                names = [name for name in names if name != STATE_FOLDER]
            losers = meeting_names(node, names, self._wishes.known, folds=self._folds)
            lost = self._pass(node, folder, names, losers, deep)
            if not lost:
                break
        self._missing(node, folder, {*names} - lost if lost else names)
        if not lost and not losers and folder.listing() == listing:
            # The names are those of the number: the same before and after they were told.
            node.listed = (listing, len(names))

    def _pass(
        self, node: Node, folder: Folder, names: list[str], losers: frozenset[str], deep: Collection[str] | None
    ) -> set[str]:
        """Look at all names once; return those that are gone by now."""
        for name in losers:
            if name in node.records or name in node.folders:
                self.ledger.drop(node, name)
        lost: set[str] = set()
        records: Mapping[str, Record] = {} if self._wishes.rehash else node.records
        known = {name: records.get(name) for name in names}
        try:
            changed = folder.differing(known)
        except OSError:
            changed = [*self._differing_one_by_one(node, folder, known, lost)]
        for name, seen in changed:
            if self._entry(node, folder, name, seen, losers, deep):
                lost.add(name)
                if not node.knows(name):
                    self.ledger.drop(node, name)
        return lost

    def _differing_one_by_one(
        self, node: Node, folder: Folder, known: Mapping[str, Record | None], lost: set[str]
    ) -> Iterator[tuple[str, os.stat_result]]:
        for name, record in known.items():
            try:
                seen = folder.stat(name)
                if record_of(seen) != record:
                    yield name, seen
            except FileNotFoundError:
                lost.add(name)
            except PermissionError:
                # Readable but not searchable: nothing in the folder can be looked at.
                raise
            except OSError as error:
                self.ledger.set_other(node, name, Unknown(code_name(error)), tree_name(node, name, frozenset())[0])

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
        ours = bool(self._wishes.gone) and join(node.path, node.key(name)) in self._wishes.gone
        if recent and tracked and not ours and len(self._absent) < _MAX_ABSENT:
            self._absent[node, name] = None
        else:
            self.ledger.drop(node, name)

    def _is_recent(self, folder: Folder) -> bool:
        seen = os.fstat(folder.fd) if folder.fd is not None else os.stat(folder.path, follow_symlinks=False)
        return seen.st_mtime_ns >= self._setting.root.now_ns() - _RECENT_NS

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
            self.files.look_at_databases(node, folder)

    def _name(self, node: Node, folder: Folder, name: str) -> None:
        for _ in range(2):
            try:
                seen = folder.stat(name)
            except FileNotFoundError:
                # Asked twice, like a folder that is listed twice: a deletion is not concluded from one error.
                continue
            except PermissionError:
                raise
            except OSError as error:
                self.ledger.set_other(node, name, Unknown(code_name(error)), name)
                return
            if not self._entry(node, folder, name, seen, frozenset(), None):
                return
        if node.knows(name):
            self._lose(node, name, recent=self._is_recent(folder))
        else:
            self.ledger.drop(node, name)

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
        self.ledger.set_other(node, name, Unknown("ESTALE"), tree_name(node, name, losers)[0])
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
                self.ledger.left_out_changed = True
            return
        key, why = tree_name(node, name, losers)
        if node.knows(name) and node.key(name) != key:
            self.ledger.drop(node, name)
        if known is not None and losers and is_folder and why is None and known.inode == seen.st_ino:
            if deep is None or name in deep:
                self._enter(node, folder, name, known)
            return
        verdict = node.rules.verdict(key if why is not Why.COLLISION else name, is_folder=is_folder)
        if not verdict.travels:
            self.ledger.skip(node, name, Skipped(verdict, is_folder, 0 if is_folder else seen.st_size))
            return
        if why is None and self._is_foreign(node, name, seen):
            why = Why.OTHER_DEVICE
        if why is not None or is_reparse_point(seen):
            self.ledger.set_other(node, name, Blocked(why or Why.LINK_OUTSIDE), key)
        elif is_folder:
            self._new_folder(node, folder, name, seen, key, verdict)
        elif modes.S_ISREG(mode):
            self.files.file(node, folder, name, seen, key, verdict)
        elif modes.S_ISLNK(mode):
            self.files.link(node, folder, name, seen, key)
        else:
            self.ledger.set_other(node, name, Blocked(Why.SPECIAL), key)

    def _is_foreign(self, node: Node, name: str, seen: os.stat_result) -> bool:
        # On some file systems, such as overlays, files have another device number than their folder: where mount points
        # are told, the number counts for folders only.
        by_number = self._mounts is None or modes.S_ISDIR(seen.st_mode)
        if by_number and seen.st_dev != self._setting.root.dev:
            return True
        return self._mounts is not None and node.at(name) in self._mounts

    # -- kinds

    def _new_folder(
        self, node: Node, folder: Folder, name: str, seen: os.stat_result, key: str, verdict: Verdict
    ) -> None:
        self.ledger.role(node, name, key, record=False)
        rules = self._setting.rules.inside(node.rules, key, verdict)
        below = Node(name, node, join(node.path, key), rules, (seen.st_dev, seen.st_ino))
        self._remember_moved(below)
        node.touch()
        node.folders[name] = below
        try:
            self._enter(node, folder, name, below)
        except OSError:
            self.ledger.drop(node, name)
            raise

    def _enter(self, node: Node, folder: Folder, name: str, below: Node) -> None:
        if self._mounts and below.disk in self._mounts:
            self.ledger.set_other(node, name, Blocked(Why.OTHER_DEVICE), node.key(name))
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
            self.ledger.set_other(below.parent, below.name, Unknown(code_name(error)), below.parent.key(below.name))

    def open(self, folder: Folder, name: str, identity: tuple[int, int]) -> Folder:
        """Open a folder that was seen; :meth:`close` closes the one that was opened last.

        Where no descriptor is left, those of the folders around it are given back first.

        Raises:
            FolderReplaced: Another folder stands there now.
        """
        try:
            child = folder.child(name, identity)
        except OSError as error:
            if error.errno not in NO_MORE_DESCRIPTORS:
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
        top = self._setting.cache.top
        if self._by_inode is None:
            self._by_inode = {} if top is None else {(old.device, old.inode): old for old in top.below()}
        moved = self._by_inode.pop((below.device, below.inode), None)
        if moved is None:
            return
        noted = self._setting.cache.noted
        for node in moved.below():
            base = below.path + node.path[len(moved.path) :]
            for name, record in node.records.items():
                entry = node.entry(name)
                if record[0] != NEVER and isinstance(entry, File):
                    noted[join(base, node.key(name))] = Noted(record, entry.digest, fresh=False)

    # -- the end of a look

    def finish(self, top: Node) -> None:
        """Wait for what vanished a moment ago, then decide which large files travel and read those."""
        self._await_absent()
        self.files.decide_budget(top)

    def _await_absent(self) -> None:
        for _ in range(_LOOKS_AGAIN):
            if not self._absent:
                return
            # No event tells that an editor has finished; the rule is to look again every 20 ms, ten times at most.
            self._setting.sleep(_PAUSE_S)
            waiting, self._absent = self._absent, {}
            for node, name in waiting:
                self._look_for(node, name)
        for node, name in self._absent:
            self.ledger.drop(node, name)
        self._absent.clear()

    def _look_for(self, node: Node, name: str) -> None:
        try:
            with self._setting.root.folder(node.disk) as folder:
                self.names(node, folder, {name})
        except OSError:
            # The folder itself went away or was closed meanwhile; the next look tells.
            self.ledger.drop(node, name)
            self.ledger.unrest.paths.add(node.at(name))
