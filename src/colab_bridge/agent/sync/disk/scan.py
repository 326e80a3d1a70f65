"""The scanner: what is on one side, as a tree.

A walk looks at everything, a refresh only at what may have changed; both give the same tree. No link is followed,
nothing outside the root is opened, and what could not be looked at is said to be unknown, never absent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ..budget import Budget
from ..ignore import NEVER_TRAVELS, IgnoreRules, Verdict
from ..names import name_from_disk, shown
from ..transfer.trail import Trails
from ..tree import Blocked, Directory, Entry, File, Unknown, Why, join
from .ledger import Setting, Wishes
from .look import Look
from .platform_folder import Folder, FolderReplaced
from .platform_system import mount_points
from .probe import FsProbe
from .root import Root, RootFault
from .sqlite_files import LiveDatabases
from .statcache import NEVER, Node, Noted, Skipped, StatCache, directory_of

__all__ = ["LeftOut", "Problem", "ScanResult", "Scanner", "carry_executable"]

_MAX_LEFT_OUT = 10_000
_SIZES = frozenset({Why.TOO_BIG, Why.OVER_BUDGET})

# Paths to look at, as nested names; an empty mapping is a path itself.
_Wanted = dict[str, "_Wanted"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not travel although it should.

    Attributes:
        path: As it travels.
        why: Reason; None when a folder could not be looked at, so nothing is concluded below it (S6).
        sentence: For people.
    """

    path: str
    why: Why | None
    sentence: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is left out on purpose.

    Attributes:
        path: As it travels.
        sentence: The rule that decided, for people.
        size: Bytes of a file; 0 for folders, which nobody enters.
        is_folder: It is a folder.
        includable: It would travel if it were named.
    """

    path: str
    sentence: str
    size: int
    is_folder: bool
    includable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What a scan saw.

    Attributes:
        tree: The tree; shares with the one before what did not change.
        problems: What does not travel although it should, in tree order.
        left_out: What is left out on purpose, at most 10,000, in tree order.
        files: Files and links that travel.
        bytes: Their bytes.
        hashed_bytes: Bytes that were read.
        seconds: Time it took.
        walked: Everything was looked at.
    """

    tree: Directory
    problems: tuple[Problem, ...]
    left_out: tuple[LeftOut, ...]
    files: int
    bytes: int
    hashed_bytes: int
    seconds: float
    walked: bool


class Scanner:
    """Scans one root again and again; not for several threads at once.

    Args:
        root: The root.
        rules: What is left out; other rules need another scanner, which may share the cache.
        key: Key of the pairing, 16 to 64 bytes.
        cache: What is remembered between scans.
        probe: What the file system can do.
        budget: Limits for large files.
        trails: What reading large files has left behind; other users of the root may share it.
        sleep: Waits, seconds; another one in tests.
    """

    def __init__(
        self,
        root: Root,
        rules: IgnoreRules,
        key: bytes,
        cache: StatCache,
        probe: FsProbe,
        *,
        budget: Budget | None = None,
        trails: Trails | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.databases = LiveDatabases(root, key)
        self._setting = Setting(
            root=root,
            rules=rules,
            key=key,
            cache=cache,
            probe=probe,
            budget=budget or Budget(),
            databases=self.databases,
            trails=trails or Trails(),
            sleep=sleep,
        )
        self._root = root
        self._cache = cache
        if cache.top is not None:
            # Made under other rules, perhaps: only signatures and digests are kept.
            cache.noted.update({path: Noted(record, digest, fresh=False) for path, record, digest in cache.known()})
            cache.top = None
        self._restless: set[str] = set()
        self._linked: dict[str, int] = {}
        self._last: ScanResult | None = None
        self._audit: Iterator[str] = iter(())

    def walk(
        self,
        *,
        rehash: bool = False,
        known: Directory | None = None,
        again: Iterable[str] = (),
        mapped: Iterable[str] = (),
        gone: Iterable[str] = (),
        on_content: Callable[[str, File, bytes], None] | None = None,
    ) -> ScanResult:
        """Look at everything.

        Args:
            rehash: Read all content, whatever the signatures say.
            known: The ancestor: decides which of two names that meet stays, and gives the executable bits where the
                disk has none.
            again: Paths whose content is read whatever their signature says.
            mapped: Likewise, for files that a program has mapped into memory; large ones are blocked.
            gone: Paths that we removed ourselves; for others that vanished a moment ago the scan waits a little.
            on_content: Given path, entry and content of every file below 1 MiB that is read, so that whoever needs it
                need not read it again. What it was a moment later, the result tells.

        Raises:
            RootFault: The root itself cannot be listed.
        """
        begun = time.perf_counter()
        wishes = Wishes(rehash=rehash, known=known, mapped=_wire(mapped), gone=_wire(gone), on_content=on_content)
        top = self._cache.top
        if top is None:
            rules = self._setting.rules.root()
            top = self._cache.top = Node("", None, "", rules, (self._root.dev, self._root.ino))
        for path in {*again, *wishes.mapped}:
            self._doubt(path)
        look = self._begin(wishes)
        try:
            look.folder(top, self._root.top)
            look.finish(top)
        except OSError as error:
            raise _fault(self._root, error) from error
        finally:
            self._restless |= look.ledger.unrest.paths
        self._restless = look.ledger.unrest.paths
        self._cache.noted.clear()
        return self._result(look, wishes, begun, walked=True)

    def refresh(
        self,
        previous: Directory,
        dirty: Iterable[str],
        *,
        known: Directory | None = None,
        again: Iterable[str] = (),
        mapped: Iterable[str] = (),
        gone: Iterable[str] = (),
    ) -> ScanResult:
        """Look at what may have changed, and at what did not rest at the last look.

        Args:
            previous: The tree of the last scan; with any other one everything is looked at.
            dirty: Files and folders, spelled as they travel or as the disk has them; folders with all in them.
            known: See :meth:`walk`, like the others.
            again: See there.
            mapped: See there.
            gone: See there.

        Raises:
            RootFault: The root itself cannot be listed.
        """
        begun = time.perf_counter()
        wishes = Wishes(known=known, mapped=_wire(mapped), gone=_wire(gone))
        doubted = {*again, *wishes.mapped}
        paths = {*dirty, *self._restless, *self._linked, *doubted}
        top, last = self._cache.top, self._last
        if top is None or last is None or previous is not last.tree or "" in paths:
            return self.walk(
                known=known, again=doubted.difference(wishes.mapped), mapped=wishes.mapped, gone=wishes.gone
            )
        if not paths:
            return replace(last, hashed_bytes=0, seconds=time.perf_counter() - begun, walked=False)
        for path in doubted:
            self._doubt(path)
        look = self._begin(wishes)
        try:
            self._look_at(look, top, paths)
            if look.ledger.new_links:
                self._look_at(look, top, self._same_inodes(top, look.ledger.new_links))
            look.finish(top)
        except OSError as error:
            raise _fault(self._root, error) from error
        finally:
            self._restless |= look.ledger.unrest.paths
        self._restless = look.ledger.unrest.paths
        return self._result(look, wishes, begun, walked=False)

    def sample(self, share: float) -> list[str]:
        """Return the next paths of a round through all files, for an audit that reads them again (``again``).

        Args:
            share: Of all files, 0 to 1.
        """
        if self._last is None:
            return []
        count = max(1, round(self._last.files * share)) if self._last.files else 0
        chosen = list(islice(self._audit, count))
        if len(chosen) < count and self._cache.top is not None:
            # One round is over; the next one begins with the files of today.
            paths = [path for path, _, _ in self._cache.known()]
            self._audit = iter(paths)
            chosen += islice(self._audit, count - len(chosen))
        return chosen

    # -- inside

    def _begin(self, wishes: Wishes) -> Look:
        return Look(self._setting, wishes, mount_points(self._root.top), self._linked)

    def _look_at(self, look: Look, top: Node, paths: Iterable[str]) -> None:
        wanted: _Wanted = {}
        for path in paths:
            _want(wanted, path.split("/"))
        self._descend(look, top, self._root.top, wanted)

    def _descend(self, look: Look, node: Node, folder: Folder, wanted: _Wanted) -> None:
        """Enter known folders on the way to what is wanted; look at names where the way ends."""
        here: set[str] = set()
        inside: list[tuple[Node, _Wanted]] = []
        for name, below in wanted.items():
            disk = _on_disk(node, name)
            known = node.folders.get(disk)
            if below and known is not None:
                inside.append((known, below))
            else:
                here.add(disk)
        for known, below in inside:
            try:
                child = look.open(folder, known.name, (known.device, known.inode))
                try:
                    self._descend(look, known, child, below)
                finally:
                    look.close()
            except (FileNotFoundError, NotADirectoryError, FolderReplaced):
                here.add(known.name)
            except OSError as error:
                look.set_unknown(known, error)
        look.names(node, folder, here)

    def _doubt(self, path: str) -> None:
        """Let a file be read at the next look at it."""
        node = self._cache.top
        *parents, name = path.split("/")
        for parent in parents:
            node = None if node is None else node.folders.get(_on_disk(node, parent))
        if node is not None:
            disk = _on_disk(node, name)
            record = node.records.get(disk)
            if record is not None:
                node.records[disk] = (NEVER, *record[1:])
            if disk in node.databases:
                node.databases[disk] = ()

    def _same_inodes(self, top: Node, inodes: set[int]) -> list[str]:
        """Return files that are the same as others by another name, and were not known to be."""
        return [node.at(name) for node in top.below() for name, record in node.records.items() if record[2] in inodes]

    def _result(self, look: Look, wishes: Wishes, begun: float, *, walked: bool) -> ScanResult:
        top = self._cache.top
        assert top is not None
        old = top.directory
        own = directory_of(top)
        last = self._last
        if last is None or own is not old or look.ledger.left_out_changed or not self._setting.probe.has_exec:
            tree = own if self._setting.probe.has_exec else carry_executable(own, wishes.known)
            last = _listed(top, tree)
        self._last = replace(
            last, hashed_bytes=look.files.reader.hashed_bytes, seconds=time.perf_counter() - begun, walked=walked
        )
        return self._last


def _want(wanted: _Wanted, names: list[str]) -> None:
    for name in names[:-1]:
        below = wanted.get(name)
        if below is not None and not below:
            # The folder itself is wanted, so everything in it is.
            return
        if below is None:
            below = wanted[name] = {}
            # Filled by the next turn at once: an empty mapping means the path itself.
        wanted = below
    wanted[names[-1]] = {}


def _wire(paths: Iterable[str]) -> frozenset[str]:
    """Return paths as they travel, whatever their spelling."""
    return frozenset(
        path if path.isascii() else "/".join(name_from_disk(os.fsencode(name))[0] for name in path.split("/"))
        for path in paths
    )


def _on_disk(node: Node, name: str) -> str:
    """Return the name on the disk for a name in either spelling."""
    if node.keys and not node.knows(name):
        return next((disk for disk, key in node.keys.items() if key == name), name)
    return name


def _fault(root: Root, error: OSError) -> RootFault:
    if isinstance(error, FileNotFoundError):
        return RootFault("missing", f"the folder {root.path} does not exist any more")
    return RootFault("unreadable", f"the folder {root.path} cannot be read: {error.strerror or error}")


def _listed(top: Node, tree: Directory) -> ScanResult:
    problems = tuple(_problems(tree, ""))
    out = tuple(islice(_left_out(top), _MAX_LEFT_OUT))
    facts = tree.kept
    return ScanResult(
        tree=tree,
        problems=problems,
        left_out=out,
        files=facts.files,
        bytes=facts.size,
        hashed_bytes=0,
        seconds=0.0,
        walked=False,
    )


def _problems(directory: Directory, path: str) -> Iterator[Problem]:
    if directory.kept.clean:
        return
    for name in sorted(directory.children):
        entry = directory.children[name]
        here = join(path, name)
        if isinstance(entry, Directory):
            yield from _problems(entry, here)
        elif isinstance(entry, Blocked) and entry.why not in _SIZES:
            yield Problem(here, entry.why, entry.why.sentence)
        elif isinstance(entry, Unknown):
            yield Problem(here, None, f"it could not be looked at ({entry.detail})")


def _left_out(node: Node) -> Iterator[LeftOut]:
    if node.directory.kept.plain:
        return
    names = sorted({*node.folders, *node.skipped, *(name for name in node.records if _too_large(node, name))})
    for name in names:
        path = join(node.path, node.key(name))
        skipped = node.skipped.get(name)
        if skipped is not None:
            if skipped.verdict is not NEVER_TRAVELS:
                is_rule = isinstance(skipped.verdict, Verdict)
                yield LeftOut(path, _sentence(skipped), skipped.size, skipped.is_folder, includable=is_rule)
        elif name in node.folders:
            yield from _left_out(node.folders[name])
        else:
            entry = node.entry(name)
            assert isinstance(entry, Blocked)
            yield LeftOut(path, entry.why.sentence, entry.size, False)


def _too_large(node: Node, name: str) -> bool:
    entry = node.entry(name)
    return isinstance(entry, Blocked) and entry.why in _SIZES


def _sentence(skipped: Skipped) -> str:
    verdict = skipped.verdict
    if not isinstance(verdict, Verdict):
        return verdict
    return f"{verdict.cause.sentence} ({shown(verdict.rule)})" if verdict.rule else verdict.cause.sentence


def carry_executable(tree: Directory, known: Directory | None) -> Directory:
    """Return the tree with the executable bits of the ancestor, for disks that have none; shares what is equal."""
    if known is None:
        return tree
    changed: dict[str, Entry] = {}
    for name, entry in tree.children.items():
        before = known.children.get(name)
        if isinstance(entry, Directory) and isinstance(before, Directory):
            carried = carry_executable(entry, before)
            if carried is not entry:
                changed[name] = carried
        elif isinstance(entry, File) and isinstance(before, File) and entry.executable != before.executable:
            changed[name] = File(entry.digest, entry.size, before.executable)
    if not changed:
        return tree
    return Directory({**tree.children, **changed}, has_ignored=tree.has_ignored)
