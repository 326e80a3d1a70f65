"""What the file system under a root can do; tried out, never assumed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import normalize

from .exchange import LinkExchange, pick_exchange
from .platform_folder import Folder
from .platform_inotify import CREATE, Inotify, WatcherUnavailable
from .platform_system import by_descriptor
from .root import STATE_FOLDER, Root

__all__ = ["FsProbe", "probe"]

# FAT stamps changes to two seconds; what does not move within the trial is taken for as coarse as that.
_COARSEST_NS = 2_000_000_000
_TRIAL_NS = 40_000_000
_REWRITES = 200
_COOKIE_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FsProbe:
    """Abilities of a file system.

    Attributes:
        folds_case: ``A`` and ``a`` are one name.
        normalises: Two Unicode forms of a name are one name, or come back in another form.
        has_exec: The executable bit is kept.
        granularity_ns: Distance of two different stamps, nanoseconds.
        stamps_differ: No two writes with a look between them had one stamp.
        exchange: Two names can change places in one step.
        no_replace: A name can be taken only if it is free.
        inotify: Changes are reported; a cookie really arrived.
        proc_maps: ``/proc`` tells what is mapped into memory.
        free_bytes: Room for us.
        free_inodes: Number of files that can still be made; None where nobody tells.
    """

    folds_case: bool = False
    normalises: bool = False
    has_exec: bool = True
    granularity_ns: int = _COARSEST_NS
    stamps_differ: bool = False
    exchange: bool = True
    no_replace: bool = True
    inotify: bool = True
    proc_maps: bool = True
    free_bytes: int = 0
    free_inodes: int | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """Sentences about what is missing, for status."""
        told = (
            (self.exchange, "the file system cannot exchange two files in one step"),
            (self.inotify, "changes are not reported here, so each look walks the whole folder"),
            (self.proc_maps, "files that programs map into memory are only noticed by the audit"),
            (by_descriptor(), "folders cannot be held open here, so they are checked at each use"),
        )
        return tuple(sentence for able, sentence in told if not able)


def probe(root: Root) -> FsProbe:
    """Try out the file system in our own folder of a root; takes up to 0.1 s and leaves nothing behind.

    Raises:
        OSError: Our folder cannot be written to.
    """
    with root.folder(STATE_FOLDER) as state, state.child("ck") as scratch:
        exchange = pick_exchange(scratch)
        granularity_ns, differ = _stamps(scratch)
        return FsProbe(
            folds_case=_finds(scratch, "probe-case", "PROBE-CASE"),
            normalises=_finds(scratch, normalize("NFC", "probe-\u00e9"), normalize("NFD", "probe-\u00e9")),
            has_exec=_has_exec(scratch),
            granularity_ns=granularity_ns,
            stamps_differ=differ,
            exchange=not exchange.degraded,
            no_replace=not isinstance(exchange, LinkExchange),
            inotify=_reports(scratch),
            proc_maps=os.path.exists("/proc/self/maps"),
            free_bytes=shutil.disk_usage(root.path).free,
            free_inodes=_free_inodes(root),
        )


def _with_file(folder: Folder, name: str, work: Callable[[int], bool]) -> bool:
    with suppress(FileNotFoundError):
        folder.remove_file(name)
    fd = folder.create_file(name)
    try:
        return work(fd)
    finally:
        os.close(fd)
        folder.remove_file(name)


def _finds(folder: Folder, made: str, asked: str) -> bool:
    def look(fd: int) -> bool:
        try:
            folder.stat(asked)
        except (FileNotFoundError, UnicodeError):
            return made not in folder.names()
        return True

    try:
        return _with_file(folder, made, look)
    except (OSError, UnicodeError):
        # A name that cannot be made folds with no other one.
        return False


def _has_exec(folder: Folder) -> bool:
    def flip(fd: int) -> bool:
        path = folder.full("probe-exec") if folder.fd is None else f"/proc/self/fd/{fd}"
        target: int | str = fd if os.chmod in os.supports_fd else path
        os.chmod(target, 0o700)
        able = bool(folder.stat("probe-exec").st_mode & 0o100)
        os.chmod(target, 0o600)
        return able and not folder.stat("probe-exec").st_mode & 0o100

    try:
        return _with_file(folder, "probe-exec", flip)
    except PermissionError:
        return False


def _stamps(folder: Folder) -> tuple[int, bool]:
    """Rewrite a file and look at it in turn; return the distance of stamps and whether all of them differed."""
    seen: list[int] = []

    def rewrite(fd: int) -> bool:
        end = time.monotonic_ns() + _TRIAL_NS
        while len(seen) < _REWRITES or (time.monotonic_ns() < end and len(set(seen)) < 4):
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, b"x")
            seen.append(os.fstat(fd).st_mtime_ns)
        return True

    _with_file(folder, "probe-clock", rewrite)
    gaps = [later - before for before, later in pairwise(seen) if later != before]
    if len(gaps) == len(seen) - 1:
        return max(1, min(map(abs, gaps))), True
    return (max(map(abs, gaps)) if len(gaps) > 1 else _COARSEST_NS), False


def _reports(folder: Folder) -> bool:
    try:
        queue = Inotify()
    except WatcherUnavailable:
        return False
    try:
        queue.add(folder.path, mask=CREATE)
        _with_file(folder, "probe-watch", lambda fd: True)
        return queue.wait(time.monotonic() + _COOKIE_WAIT_S)
    except OSError:
        return False
    finally:
        queue.close()


def _free_inodes(root: Root) -> int | None:
    if not hasattr(os, "statvfs"):
        return None
    told = os.statvfs(root.path)
    return told.f_favail if told.f_files else None
