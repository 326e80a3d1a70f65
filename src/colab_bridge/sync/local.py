"""This machine's side: one project folder, shared by all sessions of the project."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import anyio
import anyio.to_thread

from colab_bridge._util.atomic import write_atomic
from colab_bridge.agent.sync.budget import Budget
from colab_bridge.agent.sync.disk.marks import system_mark
from colab_bridge.agent.sync.disk.ops import ApplyOp, DisplacedFile, OpResult
from colab_bridge.agent.sync.disk.platform_system import free_names
from colab_bridge.agent.sync.disk.root import RootFault
from colab_bridge.agent.sync.disk.trash import TrashEntry, TrashFault
from colab_bridge.agent.sync.ignore import IgnoreRules
from colab_bridge.agent.sync.service_folder import RootGone, Settlement, SyncFolder
from colab_bridge.agent.sync.service_large import Foreseen
from colab_bridge.agent.sync.service_wire import changed_rows
from colab_bridge.agent.sync.tree import Directory, File, entry_at
from colab_bridge.errors import ColabBridgeError, ConflictError, TransientError, UserError
from colab_bridge.ports.clock import Clock
from colab_bridge.sync.base import CopyKind, SyncStore
from colab_bridge.sync.conflicts import CopyStore, displaced_pieces, open_pieces
from colab_bridge.sync.rules import holds_rules, read_rules, rule_folders
from colab_bridge.sync_core.links import block_leaving_links
from colab_bridge.sync_core.model import Side

__all__ = ["ROOT_FAULT", "LocalOptions", "LocalSide", "LocalView"]

T = TypeVar("T")
log = logging.getLogger(__name__)

ROOT_FAULT = "CB-USER-SYNC-ROOT"
_TRASH_BYTES = 2 << 30
_TRASH_AGE_S = 14 * 86_400.0
_DOUBTED_S = 600.0
"""After a stop without a farewell, files written so long before it are read anew."""
_AUDITED_SHARE = 0.01
_OWN_FOLDER = "Work in a folder of its own: mkdir PROJECT, cd PROJECT, colab-bridge new"
_PUT_BACK = "Put it back, then run: colab-bridge sync"
_ROOT_HINTS = {
    "home": _OWN_FOLDER,
    "slash": _OWN_FOLDER,
    "nested": "Work in the folder around it, or in one outside of it.",
    "owner": "Run it as the user to whom the folder belongs.",
    "link": "Work in the folder itself: cd there, then colab-bridge new",
    "missing": _PUT_BACK,
    "not_a_folder": _PUT_BACK,
    "other_device": "Put .colab-bridge on the disk of the folder: remove what is mounted there.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """What the settings say about this side.

    Attributes:
        strict: What Git ignores does not travel.
        budget: Limits of what travels.
        watch: Watch for changes; otherwise every look is a walk.
    """

    strict: bool = False
    budget: Budget = field(default_factory=Budget)
    watch: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalView:
    """What this machine has.

    Attributes:
        tree: Leaving links are blocked in it.
        settlement: What the look has found.
        rules: Rules under which it was made.
        rules_id: Their id.
        suspect: Files that seem to have lost their end when this machine stopped (N11).
    """

    tree: Directory
    settlement: Settlement
    rules: IgnoreRules
    rules_id: str
    suspect: frozenset[str] = frozenset()


class LocalSide:
    """See the module. All disk work runs in one thread, one piece at a time.

    Args:
        project: The folder.
        state: Folder outside of it for key, memory and kept versions; made 0700 when absent.
        clock: Time source.
        options: From the settings.

    Attributes:
        lock: Held during a transaction of any session.
        large_lock: Held while a large file comes down.
        key: Key of the digests.
        store: Memory of this side: kept versions.
        copies: Versions kept outside the tree.
        mark: Marks a file that came from a runtime, by its path, before it takes its place; None: no marks here.

    Raises:
        UserError: the folder cannot be synced.
        ConflictError: another process syncs this project.
    """

    def __init__(self, project: Path, state: Path, clock: Clock, options: LocalOptions) -> None:
        self.project = project
        self.state = state
        self.options = options
        self.lock = anyio.Lock()
        self.large_lock = anyio.Lock()
        self.mark = system_mark()
        self._clock = clock
        self._thread = anyio.CapacityLimiter(1)
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = _take_lock(state / "lock", project)
        self._root_lock: IO[bytes] | None = None
        try:
            self.key = _key(state / "key")
            alive_s = _last_sign(state)
            self.store = SyncStore(state / "local.db", clock.time())
            self.copies = CopyStore(state / "conflicts", self.store, self.key)
            self.folder = self._open_folder()
            self._torn_before_ns = self._begin(alive_s)
        except BaseException:
            self._let_go()
            raise
        self._rules_from: Directory | None = None
        self._lost = False
        self._shown: tuple[Directory, str, Directory] | None = None

    # -- life --------------------------------------------------------------------------------------------------------

    def _open_folder(self) -> SyncFolder:
        try:
            folder = SyncFolder(
                self.project,
                key=self.key,
                cache_file=self.state / "digests",
                on_displaced=self._keep_displaced,
                budget=self.options.budget,
                watch=self.options.watch,
            )
        except RootFault as error:
            raise _not_synced(error) from error
        try:
            # In the folder too: another home of ours has another state, and the same stage.
            self._root_lock = _take_lock(folder.root.state / "lock", self.project)
            folder.applier.recover()
        except BaseException:
            folder.close()
            raise
        return folder

    def _let_go(self) -> None:
        """Give back the locks."""
        for file in (self._root_lock, self._lock_file):
            if file is not None:
                file.close()

    def _begin(self, alive_s: float) -> int:
        """Take note of a stop without a farewell.

        Args:
            alive_s: When the last sign of life was given, seconds since 1970.

        Returns:
            When the machine was started since then, ns; files older than that may have lost their end. 0: it was not.
        """
        boot = self.folder.root.boot_id
        before, clean = self.store.meta("boot"), self.store.meta("clean") == "yes"
        self.store.set_meta("boot", boot)
        self.store.set_meta("clean", "")
        if clean or not before:
            return 0
        self.folder.doubt_since(alive_s - _DOUBTED_S)
        # The monotonic clock begins with the machine, or a little later where it rests with it.
        return int((self._clock.time() - self._clock.monotonic()) * 1e9) if boot != before else 0

    def _keep_displaced(self, displaced: DisplacedFile) -> None:
        """Keep a version that somebody saved in the middle of an operation, or that a crash left in the stage."""
        now = self._clock.time()
        for path, pieces in displaced_pieces(displaced):
            self.copies.keep(CopyKind.RESCUED, path, Side.LOCAL, pieces, txn=displaced.txn or "crash", now=now)

    async def do(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Run a blocking function in this side's thread; it is waited for even when the caller is cancelled.

        Raises:
            UserError: the folder cannot be read, or not any more.
        """
        try:
            return await anyio.to_thread.run_sync(partial(function, *args, **options), limiter=self._thread)
        except RootFault as error:
            raise _not_synced(error) from error

    async def aclose(self) -> None:
        """Write down what is remembered, and let go."""
        with anyio.CancelScope(shield=True):
            if not self._lost:
                await self.do(self.folder.close)
                await self.do(self.store.set_meta, "clean", "yes")
            await self.do(self.store.close)
            self._let_go()

    # -- looking -----------------------------------------------------------------------------------------------------

    async def look(
        self, *, walk: bool = False, known: Directory | None = None, foreseen: Foreseen | None = None
    ) -> LocalView:
        """Take in everything that was saved here before this call.

        Args:
            walk: Look at everything, whatever the watches say.
            known: The last agreement.
            foreseen: Told, in another thread, of a large file that has changed, before it is read.

        Raises:
            RootGone: the folder is missing or another one.
            UserError: it cannot be read.
        """
        return await self.do(self._look, walk, known, foreseen)

    def _look(self, walk: bool, known: Directory | None, foreseen: Foreseen | None) -> LocalView:
        try:
            if self._lost:
                self._reopen()
            self._keep_late_writes()
            settled = self._settle(walk, known, foreseen)
        except RootGone:
            # A folder that is back, or was replaced by hand, is opened anew; its identity tells what it is (S1).
            self._reopen()
            settled = self._settle(walk, known, foreseen)
        assert self.folder.rules is not None
        rules = self.folder.rules
        key = (settled.tree, self.folder.rules_id)
        if self._shown is None or (self._shown[0] is not key[0]) or self._shown[1] != key[1]:
            ready = block_leaving_links(settled.tree, lambda path: not rules.verdict(path, is_folder=False).travels)
            self._shown = (*key, ready)
        return LocalView(
            tree=self._shown[2],
            settlement=settled,
            rules=rules,
            rules_id=self.folder.rules_id,
            suspect=self._suspect(settled.tree, known),
        )

    def _suspect(self, tree: Directory, known: Directory | None) -> frozenset[str]:
        """Return the files that are shorter than they were agreed, and were not written since the machine stopped."""
        if not self._torn_before_ns or known is None:
            return frozenset()
        found: set[str] = set()
        for path, entry in changed_rows(known, tree):
            before = entry_at(known, path)
            if isinstance(entry, File) and isinstance(before, File) and entry.size < before.size:
                with suppress(OSError):
                    if self.folder.stat_of(path).st_mtime_ns < self._torn_before_ns:
                        found.add(path)
        return frozenset(found)

    def _keep_late_writes(self) -> None:
        """Keep what a program wrote into an old version that it still had open when a new one took its place."""
        for entry in self.folder.late_writes():
            try:
                self._keep_late_write(entry)
            except (TrashFault, ColabBridgeError, OSError) as error:
                # It stays in the trash, which never removes what nobody else has.
                log.warning("late write not kept", extra={"path": entry.path[:200], "reason": str(error)[:200]})

    def _keep_late_write(self, entry: TrashEntry) -> None:
        if entry.kind != "file":
            return
        fd = self.folder.trash.open(entry.id)
        try:
            now, txn = self._clock.time(), entry.id.partition("/")[0]
            self.copies.keep(CopyKind.RESCUED, entry.path, Side.LOCAL, open_pieces(fd), txn=txn, now=now)
        finally:
            os.close(fd)
        self.folder.trash.note_kept(entry.id)

    def _reopen(self) -> None:
        if not self._lost:
            self.folder.close()
        if self._root_lock is not None:
            self._root_lock.close()
        self._lost = True
        self._rules_from = None
        self.folder = self._open_folder()
        self._lost = False

    def _settle(self, walk: bool, known: Directory | None, foreseen: Foreseen | None) -> Settlement:
        if self.folder.rules is None:
            self._read_rules({""})
        for _ in range(3):
            settled = self.folder.settle(walk=walk, known=known, foreseen=foreseen)
            if not self._rules_changed(settled.tree):
                break
            self._rules_from = settled.tree
            if not self._read_rules(rule_folders(settled.tree)):
                break
        return settled

    def _rules_changed(self, tree: Directory) -> bool:
        before = self._rules_from
        if before is None:
            return True
        if before is tree:
            return False
        changed = any(holds_rules(path) for path, _ in changed_rows(before, tree))
        if not changed:
            self._rules_from = tree
        return changed

    def _read_rules(self, folders: frozenset[str] | set[str]) -> bool:
        """Read the rules; returns whether they are others now."""
        before = self.folder.rules_id
        folds = self.folder.probe.folds_case
        rules = read_rules(self.project, folders, strict=self.options.strict, fold=folds)
        self.folder.set_rules(rules)
        return before != self.folder.rules_id

    # -- changing ----------------------------------------------------------------------------------------------------

    def use(self, options: LocalOptions) -> None:
        """Use other settings from the next look on; blocking."""
        if options == self.options:
            return
        self.options = options
        self._rules_from = None
        self.folder.set_budget(options.budget)

    def expect(self, txn: str, operations: Sequence[ApplyOp]) -> None:
        """Tell operations before their content comes, so that it finds its place at once; blocking.

        Raises:
            OSError: the stage cannot be used.
        """
        if self.mark is None:
            # A mark is set on staged content, before it has a name that somebody might open.
            self.folder.stage.expect(txn, operations)

    def apply(self, txn: str, operations: Sequence[ApplyOp], known: Directory) -> list[OpResult]:
        """Carry out operations here whose content came from a runtime and is staged; blocking.

        Raises:
            RootGone: the folder is missing or another one.
            RootFault: it cannot be read any more; what was done is found at the next look.
        """
        if self.mark is not None:
            for digest in {operation.digest for operation in operations if operation.digest}:
                self.mark(self.folder.stage.folder.full(digest.hex()))
        return self.folder.apply(txn, operations, known=known)

    async def tend(self, known: Directory) -> None:
        """Do the housekeeping of a quiet minute: read some files again, and empty the trash of what is too old.

        Raises:
            RootGone: the folder is missing or another one.
            OSError: the disk fails.
        """
        async with self.lock:
            if not self._lost:
                await self.do(self.folder.audit, _AUDITED_SHARE, known=known)
                await self.do(self.folder.prune, max_bytes=_TRASH_BYTES, max_age_s=_TRASH_AGE_S)

    def disk(self) -> tuple[int, int]:
        """Return free and total bytes of the folder's disk."""
        usage = shutil.disk_usage(self.project)
        return usage.free, usage.total

    def free_names(self) -> int | None:
        """Return how many more files and folders that disk can have; None where it has no such limit."""
        return free_names(str(self.project))


def _last_sign(state: Path) -> float:
    """Return when the memory of this side was last written, seconds since 1970; 0 before the first time."""
    times = [0.0]
    for path in state.iterdir():
        with suppress(OSError):
            times.append(path.stat().st_mtime if path.name != "lock" else 0.0)
    return max(times)


def _not_synced(error: RootFault) -> UserError:
    hint = _ROOT_HINTS.get(error.code, "Make it readable and writable for you, then run: colab-bridge sync")
    return UserError(f"this folder is not synced: {error.sentence}", hint=hint, code=ROOT_FAULT)


def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != 32:
        # A lost key makes every digest unknown: both sides are read again, nothing else.
        key = secrets.token_bytes(32)
        write_atomic(path, key, mode=0o600)
    return key


def _take_lock(path: Path, project: Path) -> IO[bytes]:
    """Take a lock of a project; it is given back when the file is closed, also by a crash (S10).

    Some network file systems have no locks; there it is only a file.
    """
    try:
        file = open(path, "a+b")  # noqa: SIM115  # held as long as the project is synced
    except OSError as error:
        raise TransientError(f"{path} cannot be written: {error.strerror or error}", hint="Check that disk.") from error
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.close()
        raise ConflictError(
            f"another process syncs {project} already",
            hint="stop the other daemon (as its user, with its COLAB_BRIDGE_HOME): colab-bridge daemon stop",
        ) from error
    except OSError as error:
        log.info("no lock", extra={"path": str(path), "reason": str(error)[:200]})
    if os.name == "posix":
        os.chmod(path, 0o600)
    return file
