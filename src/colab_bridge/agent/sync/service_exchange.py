"""One folder that is kept in step, as the agent holds it, and what an exchange about it decides and takes along."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from .disk.ops import ApplyOp
from .service_folder import SyncFolder
from .service_wire import changed_rows
from .transfer.batches import pack_batch
from .transfer.compress import Codec
from .tree import Directory, Entry, File, entry_at

__all__ = ["INLINE_BYTES", "INLINE_FILE_BYTES", "Workspace", "digests_there", "inline_content", "split_overtaken"]

INLINE_BYTES = 1 << 20
"""Most content of all files that travels in one answer."""
INLINE_FILE_BYTES = 256 * 1024
_TRASH_BYTES = 512 << 20
_TRASH_AGE_S = 14 * 86_400.0
_PRUNE_S = 600.0
_AHEAD_S = 600.0


class Workspace:
    """One folder that is kept in step, and what belongs to one conversation about it."""

    def __init__(self, name: str, folder: SyncFolder) -> None:
        self.name = name
        self.folder = folder
        self.codecs: tuple[Codec, ...] = (Codec.ZLIB,)
        self.pages: tuple[int, list[bytes]] = (0, [])
        self.watched = False
        self.armed: int | None = None
        self.pruned_s = 0.0
        self.late: list[list[str]] = []
        self.told: tuple[str, list[ApplyOp]] = ("", [])
        self.gen_after_run = 0

    def tend(self) -> None:
        """See what programs wrote into old versions, and keep the trash small: the disk of a runtime is scratch."""
        for entry in self.folder.late_writes():
            self.late.append([entry.path, entry.id])
        with suppress(OSError):
            self.folder.large.end_ahead(older_than_s=_AHEAD_S)
        if time.monotonic() - self.pruned_s >= _PRUNE_S:
            self.pruned_s = time.monotonic()
            with suppress(OSError):
                self.folder.prune(max_bytes=_TRASH_BYTES, max_age_s=_TRASH_AGE_S)


def split_overtaken(
    operations: Sequence[ApplyOp], known: Directory | None, now: Directory
) -> tuple[list[ApplyOp], list[ApplyOp]]:
    """Part operations into those that nothing here has overtaken and the others.

    Rows of folders do not count: what an operation expects of them is looked at when it is carried out.
    """
    if known is None:
        return [], list(operations)
    changed = {path for path, entry in changed_rows(known, now) if not isinstance(entry, Directory)}
    if not changed:
        return list(operations), []
    above = {path[:cut] for path in changed for cut, letter in enumerate(path) if letter == "/"}
    free: list[ApplyOp] = []
    overtaken: list[ApplyOp] = []
    for op in operations:
        paths = [path for path in (op.path, op.old_path) if path]
        touched = any(_touched(path, changed, above) for path in paths)
        (overtaken if touched else free).append(op)
    return free, overtaken


def _touched(path: str, changed: set[str], above: set[str]) -> bool:
    if path in changed or path in above:
        return True
    return any(path[:cut] in changed for cut, letter in enumerate(path) if letter == "/")


def digests_there(known: Directory, now: Directory) -> set[bytes]:
    """Return content that the other side has at paths that changed here: a file that was moved is not sent."""
    before = (entry_at(known, path) for path, _ in changed_rows(known, now))
    return {entry.digest for entry in before if isinstance(entry, File)}


def inline_content(workspace: Workspace, rows: Sequence[tuple[str, Entry | None]], sent: set[bytes]) -> bytes:
    """Return the content of small new files, so that it needs no call of its own."""
    wanted = {
        entry.digest: path
        for path, entry in rows
        if isinstance(entry, File) and entry.size <= INLINE_FILE_BYTES and entry.digest not in sent
    }
    contents = workspace.folder.contents(wanted.items(), INLINE_BYTES)
    return pack_batch(contents, allowed=workspace.codecs) if contents else b""
