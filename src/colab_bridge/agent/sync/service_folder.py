"""One side's folder with everything that touches it: scan, watch, stage, apply, read. The same code on both sides.

All of it blocks and is called by one thread at a time. Trees have generations: a difference is told between a
generation that the other side knows and the present one.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

from .budget import Budget
from .disk.apply import Applier
from .disk.failures import code_of
from .disk.mapped import MappedUnavailable, MappedWatch, fsync_mapped, open_for_writing
from .disk.ops import Action, ApplyOp, Code, DisplacedFile, OpResult
from .disk.place import make_calls
from .disk.platform_folder import Folder
from .disk.probe import FsProbe, probe
from .disk.root import Root, RootState
from .disk.scan import LeftOut, Problem, Scanner, ScanResult
from .disk.stage import Stage
from .disk.statcache import StatCache
from .disk.trash import Trash, TrashEntry
from .disk.watch import Watcher, WatcherUnavailable
from .ignore import IgnoreRules
from .service_large import Foreseen, LargeFiles
from .service_wire import changed_rows
from .transfer.signatures import read_at
from .transfer.trail import Trails
from .tree import Directory, File, entry_at

__all__ = ["RootGone", "Settlement", "SyncFolder"]

_TREES_KEPT = 8
_SETTLE_S = 1.0
# A program that still has an old version open may write into it for a while; it is looked at twice.
_YOUNG_S = 60.0
_YOUNG_MOST = 50
_AUDITED_BYTES = 64 << 20


class RootGone(Exception):
    """The root is not there any more, or is another folder (S5).

    Attributes:
        state: What was found in its place.
    """

    def __init__(self, state: RootState) -> None:
        super().__init__(f"the folder is {state.value.replace('_', ' ')}")
        self.state = state


@dataclass(frozen=True)
class Settlement:
    """What a side has after everything queued before the question was taken in.

    Attributes:
        tree: The tree.
        gen: Its generation.
        problems: Paths that cannot travel.
        left_out: Paths that stay, with the reason.
        walked: The answer rests on a walk.
    """

    tree: Directory
    gen: int
    problems: tuple[Problem, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    walked: bool = True


class SyncFolder:
    """A root and all that is kept about it.

    Args:
        path: The folder.
        key: Key of the digests, 16 to 64 bytes.
        cache_file: Where digests are remembered over restarts; None for nowhere.
        on_displaced: Takes what was found at a path instead of what was expected, and leftovers of a crash.
        budget: What stays at home because it is large; None for no limits.
        watch: Whether to watch for changes; without it every look is a walk.

    Raises:
        RootFault: the folder cannot be a root.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        key: bytes,
        cache_file: Path | None = None,
        on_displaced: Callable[[DisplacedFile], None],
        budget: Budget | None = None,
        watch: bool = True,
    ) -> None:
        self.key = key
        self.root = Root.open(path)
        try:
            self.probe: FsProbe = probe(self.root)
            calls = make_calls(self.root)
            self._trails = Trails()
            self.stage = Stage(self.root, key, calls, self._trails)
            self.trash = Trash(self.root, key, calls)
        except BaseException:
            self.root.close()
            raise
        self._cache_file = cache_file
        self._cache = StatCache() if cache_file is None else StatCache.load(cache_file, key, self.root)
        self._budget = budget
        self._watch_wanted = watch
        self._watcher: Watcher | None = None
        self._mapped = MappedWatch(self.root)
        self._watch_fault = ""
        self._scanner: Scanner | None = None
        self._last: ScanResult | None = None
        # Parts of the trash that are looked at again, with the time of their transaction and how often they were.
        self._young: dict[str, tuple[float, int]] = dict.fromkeys(self.trash.transactions()[-_YOUNG_MOST:], (0.0, 0))
        self._trees: OrderedDict[int, Directory] = OrderedDict()
        self.applier = Applier(
            self.root,
            self.stage,
            self.trash,
            on_displaced=on_displaced,
            known=self._known_stamps,
            placed=self._cache.note,
        )
        self.large = LargeFiles(self.root, self.stage, self._trails, self.open_file, self._known_stamps)
        self.rules: IgnoreRules | None = None
        self.rules_id = ""
        self.gen = 0

    # -- life ----------------------------------------------------------------------------------------------------

    def set_rules(self, rules: IgnoreRules) -> None:
        """Use these rules from now on; everything is looked at anew."""
        rules_id = rules.rules_id
        if rules_id == self.rules_id:
            return
        self.rules, self.rules_id = rules, rules_id
        self._scanner = Scanner(
            self.root, rules, self.key, self._cache, self.probe, budget=self._budget, trails=self._trails
        )
        self._last = None
        self._stop_watching()
        self._watch_fault = "" if self._watch_wanted else "changes are not watched"

    def set_budget(self, budget: Budget) -> None:
        """Use other limits from the next look on."""
        if budget != self._budget:
            self._budget = budget
            rules, self.rules_id = self.rules, ""
            if rules is not None:
                self.set_rules(rules)

    def doubt_since(self, since_s: float) -> None:
        """Read files anew that were written after a time (seconds since 1970): what was remembered may be too old."""
        self._cache.forget_since(int(since_s * 1e9))

    def close(self) -> None:
        """Write down what is remembered, and let go of the folder."""
        self.save_cache()
        self._stop_watching()
        self.stage.close()
        self.trash.close()
        self.root.close()

    def save_cache(self) -> None:
        """Write the remembered digests; a failure only costs time later."""
        if self._cache_file is not None:
            with suppress(OSError):
                self._cache.save(self._cache_file, self.key, self.root)

    @property
    def identity(self) -> str:
        """Marker, device and inode of the root."""
        return f"{self.root.marker}-{self.root.dev:x}-{self.root.ino:x}"

    @property
    def tree(self) -> Directory | None:
        """The tree at the last look; None before it."""
        return self._trees.get(self.gen)

    @property
    def watch_number(self) -> int | None:
        """File number that becomes readable when something changes; None where nothing is watched."""
        return None if self._watcher is None else self._watcher.fileno()

    @property
    def has_news(self) -> bool:
        """Whether the watches have something that nobody has asked for yet."""
        return self._watcher is not None and self._watcher.has_news

    @property
    def degraded(self) -> list[str]:
        """Sentences about what is missing on this side."""
        return [*self.probe.degraded, *([self._watch_fault] if self._watch_fault else [])]

    def _stop_watching(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def _start_watching(self) -> None:
        if self._watcher is not None or self._watch_fault or self.rules is None:
            return
        watcher = Watcher(self.root, self.rules)
        try:
            watcher.start()
        except WatcherUnavailable as error:
            watcher.close()
            self._watch_fault = str(error)
            return
        self._watcher = watcher

    # -- looking -------------------------------------------------------------------------------------------------

    def known(self, gen: int) -> Directory | None:
        """Return the tree of a generation, None when it is not kept any more."""
        return self._trees.get(gen)

    def settle(
        self,
        *,
        walk: bool = False,
        after_run: bool = False,
        known: Directory | None = None,
        rehash: bool = False,
        foreseen: Foreseen | None = None,
    ) -> Settlement:
        """Take in everything that happened before this call.

        Args:
            walk: Look at everything, whatever the watches say.
            after_run: Programs have run here: walk, and see what they have mapped.
            known: The last agreement.
            rehash: Read every file.
            foreseen: Told of a large file that has changed, before it is read.

        Raises:
            RootGone: the root is missing or another one.
        """
        scanner = self._ready_scanner()
        again: list[str] = []
        if after_run:
            with suppress(MappedUnavailable):
                again = self._mapped.look()
                fsync_mapped(self.root, again)
        dirty = self._dirty()
        self.large.foresee(dirty, self.tree, foreseen)
        if walk or after_run or rehash or dirty is None or self._last is None:
            result = scanner.walk(rehash=rehash, known=known, again=again)
            result = self._look_again(scanner, result, known)
        else:
            # Without an event too: what did not rest, and files with other names, are looked at each time.
            result = scanner.refresh(self._last.tree, dirty, known=known, again=again)
        return self._take(result)

    def audit(self, share: float, *, known: Directory | None = None) -> None:
        """Read some files again whatever their stamps say, in turn: what no stamp has told is found one day (I02).

        Args:
            share: Of all files, 0 to 1; at most 64 MiB at once.
            known: The last agreement.

        Raises:
            RootGone: the root is missing or another one.
        """
        scanner = self._ready_scanner()
        if self._last is None:
            return
        again: list[str] = []
        left = _AUDITED_BYTES
        for path in scanner.sample(share):
            entry = entry_at(self._last.tree, path)
            if isinstance(entry, File) and (entry.size <= left or not again):
                again.append(path)
                left -= entry.size
        self._take(scanner.refresh(self._last.tree, self._dirty() or (), known=known, again=again))

    def late_writes(self) -> list[TrashEntry]:
        """Return old versions in the trash into which a program has written after they were replaced; each once."""
        now, found = time.time(), list[TrashEntry]()
        for txn, (since, looks) in list(self._young.items()):
            if looks and now - since < _YOUNG_S:
                continue
            self._young[txn] = (since, looks + 1)
            if now - since >= _YOUNG_S:
                del self._young[txn]
            with suppress(OSError):
                found += self.trash.changed_since(txn)
        return found

    def prune(self, *, max_bytes: int, max_age_s: float) -> int:
        """Remove old content from the trash, and large files of which nobody has sent more; returns the bytes.

        Raises:
            OSError: something could not be removed.
        """
        self.stage.drop_old(older_than_s=max_age_s)
        return self.trash.prune(max_bytes=max_bytes, max_age_s=max_age_s, keep=frozenset(self._young))

    def open_files(self) -> tuple[str, ...]:
        """Return the files that some process has open for writing now."""
        with suppress(MappedUnavailable):
            return tuple(open_for_writing(self.root))
        return ()

    def _ready_scanner(self) -> Scanner:
        state = self.root.check()
        if state is not RootState.SAME:
            raise RootGone(state)
        if self._scanner is None:
            self.set_rules(IgnoreRules())
        assert self._scanner is not None
        # Watches before the first walk, so that nothing falls between the two.
        self._start_watching()
        return self._scanner

    def _dirty(self) -> frozenset[str] | None:
        """Return what the watches have seen; None when only a walk can tell."""
        if self._watcher is None:
            return None
        settled = self._watcher.settle(_SETTLE_S)
        # Otherwise it has begun anew by itself, where that is possible.
        return settled.dirty if settled.healthy else None

    def _look_again(self, scanner: Scanner, result: ScanResult, known: Directory | None) -> ScanResult:
        """Look once more at what changed while the walk was under way."""
        for _ in range(3):
            dirty = self._dirty() if self._watcher is not None else frozenset()
            if not dirty:
                break
            result = scanner.refresh(result.tree, dirty, known=known)
        return result

    def _take(self, result: ScanResult) -> Settlement:
        before = self.tree
        self._last = result
        same = before is not None and before.has_ignored == result.tree.has_ignored
        if before is None or not same or next(changed_rows(before, result.tree), None) is not None:
            self.gen += 1
            self._trees[self.gen] = result.tree
            while len(self._trees) > _TREES_KEPT:
                self._trees.popitem(last=False)
        tree = self._trees[self.gen]
        return Settlement(tree, self.gen, result.problems, result.left_out, result.walked)

    # -- changing ------------------------------------------------------------------------------------------------

    def apply(
        self,
        txn: str,
        operations: Sequence[ApplyOp],
        *,
        known: Directory | None = None,
        on_staged: Callable[[], None] | None = None,
    ) -> list[OpResult]:
        """Carry out operations in their order, and take the result in.

        Raises:
            RootGone: the root is missing or another one.
            OSError: the disk fails as a whole.
        """
        scanner = self._ready_scanner()
        results = self.applier.apply(txn, operations, on_staged=on_staged)
        self._young[txn] = (time.time(), 0)
        touched = {path for op in operations for path in (op.path, op.old_path) if path}
        gone = {op.path for op in operations if op.action in {Action.DELETE, Action.RMDIR}}
        gone |= {op.old_path for op in operations if op.old_path}
        # Our own moves wake the watches too; taken in here, they are no news later.
        seen = self._dirty() or frozenset()
        if self._last is not None:
            self._take(scanner.refresh(self._last.tree, touched | seen, known=known, gone=gone))
        return results

    def take_copies(self, copies: Iterable[tuple[bytes, str]]) -> None:
        """Stage content that lies here under other paths already; what changed meanwhile is left out.

        Raises:
            OSError: there is no room for it.
        """
        for digest, path in copies:
            try:
                self.stage.take_local_copy(digest, path)
            except OSError as error:
                if code_of(error) in {Code.NO_SPACE, Code.QUOTA}:
                    raise
            except ValueError:
                continue

    # -- reading -------------------------------------------------------------------------------------------------

    @contextmanager
    def open_file(self, path: str) -> Iterator[int]:
        """Open a tracked file for reading, following no link; a live database as its backup copy.

        Raises:
            OSError: it is not there or cannot be read.
        """
        with self.root.folder(path.rpartition("/")[0]) as folder:
            fd = self._open_in(folder, path)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open_in(self, folder: Folder, path: str) -> int:
        source = None if self._scanner is None else self._scanner.databases.source(path)
        if source is not None:
            return os.open(source, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        return folder.open_file(folder.disk_name(path.rpartition("/")[2]))

    def has(self, path: str, digest: bytes) -> bool:
        """Return whether the file had this content at the last look."""
        entry = entry_at(self.tree, path) if self.tree is not None else None
        return isinstance(entry, File) and entry.digest == digest

    def contents(self, wanted: Iterable[tuple[bytes, str]], most_bytes: int) -> list[tuple[bytes, bytes]]:
        """Return the content of small files that still have their digest, each once, up to a sum of bytes."""
        out: list[tuple[bytes, bytes]] = []
        left = most_bytes
        for parent, group in groupby(dict(wanted).items(), key=lambda item: item[1].rpartition("/")[0]):
            with suppress(OSError), self.root.folder(parent) as folder:
                for digest, path in group:
                    data = self._content_in(folder, path, left)
                    if data is not None and blake2b(data, key=self.key, digest_size=32).digest() == digest:
                        out.append((digest, data))
                        left -= len(data)
        return out

    def _content_in(self, folder: Folder, path: str, most_bytes: int) -> bytes | None:
        """Return the content of a file; None where it cannot be read or is larger."""
        with suppress(OSError):
            fd = self._open_in(folder, path)
            try:
                size = os.fstat(fd).st_size
                return read_at(fd, size + 1, 0) if size <= most_bytes else None
            finally:
                os.close(fd)
        return None

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Return a range of a file; shorter at its end.

        Raises:
            OSError: it is not there or cannot be read.
        """
        with self.open_file(path) as fd:
            return read_at(fd, length, offset)

    def _known_stamps(self, path: str) -> tuple[tuple[int, int, int, int, int, int], bytes] | None:
        """Return stamps and digest of a file as the last look trusted them: a large one need not be read again."""
        node, name = self._cache.find(path)
        record = None if node is None else node.records.get(name)
        entry = None if node is None else node.entry(name)
        if record is None or not isinstance(entry, File):
            return None
        ctime, mtime, inode, mode, size = record
        return (mtime, ctime, size, inode, self.root.dev, mode), entry.digest

    def mtime_of(self, path: str) -> int | None:
        """Return the time of change of a file at the last look, ns; None when it was not met."""
        node, name = self._cache.find(path)
        record = None if node is None else node.records.get(name)
        if record is not None:
            return record[1]
        with suppress(OSError, ValueError):
            # Names that the disk spells otherwise.
            return self.stat_of(path).st_mtime_ns
        return None

    def stat_of(self, path: str) -> os.stat_result:
        """Return what stands at a path; links are not followed."""
        parent, _, name = path.rpartition("/")
        with self.root.folder(parent) as folder:
            return folder.stat(folder.disk_name(name))

    def facts(self) -> dict[str, Any]:
        """Return what the other side is told about this one."""
        return {
            "marker": self.identity,
            "boot": self.root.boot_id,
            "root": str(self.root.path),
            "folds": bool(self.probe.folds_case or self.probe.normalises),
            "exec": self.probe.has_exec,
            "free": int(self.probe.free_bytes),
            "degraded": self.degraded,
            "watching": self._watch_wanted and not self._watch_fault,
        }
