"""Content on its way: whatever a plan needs is staged, verified, on the side that needs it, before anything moves.

Small files travel in batches, large ones in chunks that a cut does not lose, and of a large file of which the other
side has an older version only what is new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import anyio

from colab_bridge.agent.sync.disk.stage import WrongContent
from colab_bridge.agent.sync.pages import WireError
from colab_bridge.agent.sync.transfer.batches import SMALL_FILE_BYTES, group, pack_batch
from colab_bridge.agent.sync.transfer.patch import Copy as Range
from colab_bridge.agent.sync.transfer.patch import copies_in_new, copies_in_old, gaps, growth, pack_copies
from colab_bridge.agent.sync.transfer.search import find_blocks
from colab_bridge.agent.sync.transfer.signatures import MIN_DELTA_BYTES, block_size_for, read_signatures
from colab_bridge.agent.sync.tree import File, entry_at
from colab_bridge.sync.ahead import HeadStart
from colab_bridge.sync.local import LocalSide
from colab_bridge.sync.remote import RemoteFailure, RemoteFiles
from colab_bridge.sync_core.model import Side
from colab_bridge.sync_core.plan import Transfer

__all__ = ["INLINE_BYTES", "Carrier", "Older", "Progress", "is_bulk"]

INLINE_BYTES = 1 << 20
"""Most bytes of content that travel inside a barrier exchange."""
_CHUNK_BYTES = 1 << 20
_CHUNKS_AT_ONCE = 4
_ASK_FROM_BYTES = 256 * 1024
_TRIES = 3
_LOOKS = 2
_MOVED = frozenset({"moved", "missing", "mismatch"})

Progress = Callable[[str, int, int], None]
"""Told (path, bytes done, bytes in all) while a large file travels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """An older version of a file on the side that gets the new one.

    Attributes:
        path: Where it stands there.
        file: What it is.
    """

    path: str
    file: File


@dataclass(slots=True)
class Tally:
    """Bytes of content that crossed the line."""

    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class Carrier:
    """Brings content from one side's tree into the other side's stage.

    Attributes:
        local: This machine's side.
        remote: The runtime's side.
        progress: Told how large files get on.
        tally: Counts bytes.
        ahead: What the runtime has begun to copy during the look.
    """

    local: LocalSide
    remote: RemoteFiles
    progress: Progress | None = None
    tally: Tally = field(default_factory=Tally)
    ahead: HeadStart | None = None

    # -- down --------------------------------------------------------------------------------------------------------

    async def down(
        self,
        transfers: Sequence[Transfer],
        at_hand: Mapping[bytes, memoryview],
        older: Mapping[bytes, Older],
        *,
        bulk: bool = False,
    ) -> frozenset[bytes]:
        """Stage here what this side needs.

        Args:
            transfers: What is needed.
            at_hand: Content that came along already, not yet verified.
            older: Older versions here, by the digest of the new content.
            bulk: Let everything else go first.

        Returns:
            Digests that are not to be had now, because the files changed meanwhile.

        Raises:
            RemoteFailure: the link failed.
            WireError: the runtime sends other content than it promised, twice.
        """
        mine = [t for t in transfers if t.to is Side.LOCAL]
        copies = [(t.digest, t.source) for t in mine if t.source_side is Side.LOCAL]
        await self.local.do(self.local.folder.take_copies, copies)
        wanted = {t.digest: t for t in mine}
        here = await self.local.do(self._keep, {d: data for d, data in at_hand.items() if d in wanted}, list(wanted))
        self.tally.received += sum(len(data) for digest, data in at_hand.items() if digest in wanted)
        missing = [t for digest, t in wanted.items() if digest not in here and t.source_side is Side.REMOTE]
        small = [t for t in missing if t.size < SMALL_FILE_BYTES]
        failed = {d for d, t in wanted.items() if d not in here and t.source_side is Side.LOCAL}
        for attempt in range(_TRIES):
            small = await self._down_small(small, bulk=bulk)
            if not small or attempt == 0:
                continue
            break
        failed |= {t.digest for t in small}
        for transfer in sorted((t for t in missing if t.size >= SMALL_FILE_BYTES), key=lambda t: t.size):
            if not await self.down_large(transfer, older.get(transfer.digest)):
                failed.add(transfer.digest)
        return frozenset(failed)

    def _keep(self, contents: Mapping[bytes, memoryview], wanted: Iterable[bytes]) -> set[bytes]:
        """Stage verified content; returns what is staged now."""
        stage = self.local.folder.stage
        for digest, data in contents.items():
            with suppress(WrongContent):
                stage.put(digest, data)
        return stage.have(wanted)

    async def _down_small(self, transfers: Sequence[Transfer], *, bulk: bool) -> list[Transfer]:
        """Fetch batches; returns what did not come."""
        left: list[Transfer] = []
        by_digest = {t.digest: t for t in transfers}
        for batch in group((t.digest, t.size) for t in transfers):
            found = await self.remote.get_small([(d, by_digest[d].source) for d in batch], bulk=bulk)
            self.tally.received += sum(len(data) for data in found.values())
            staged = await self.local.do(self._keep, found, batch)
            left += [by_digest[digest] for digest in batch if digest not in staged]
        return left

    async def down_large(self, transfer: Transfer, older: Older | None, *, may_look: bool = True) -> bool:
        """Stage one large file here, going on where an earlier try ended; False when it changed meanwhile.

        Args:
            transfer: What is needed.
            older: The version that this side has.
            may_look: No other exchange is under way, so the runtime may be asked whether it has other content by now.

        Raises:
            RemoteFailure: the link failed.
            WireError: the runtime sends other content than it says that it has.
        """
        # What comes down in the background may be wanted by a barrier at the same moment.
        async with self.local.large_lock:
            try:
                for _ in range(_LOOKS):
                    if await self._down_large(transfer, older):
                        return True
                    if not may_look or not await self._still_has(transfer):
                        return False
            except RemoteFailure as error:
                if error.code in _MOVED:
                    return False
                raise
        raise WireError("the runtime sends other content than it promised")

    async def _still_has(self, transfer: Transfer) -> bool:
        """Ask for the tree anew: a file that is written all the time is no broken rule."""
        found = await self.remote.exchange("post")
        tree = found.tree if found.tree is not None else await self.remote.snapshot(walk=False)
        entry = entry_at(tree, transfer.source)
        return isinstance(entry, File) and entry.digest == transfer.digest

    async def _down_large(self, transfer: Transfer, older: Older | None) -> bool:
        stage, digest, size = self.local.folder.stage, transfer.digest, transfer.size
        missing = await self.local.do(stage.begin_large, digest, size)
        if not missing:
            return True
        if older is not None and _worth(older.file.size, sum(length for _, length in missing)):
            await self._fill_from_old(transfer, older)
        for _ in range(_TRIES):
            await self._fetch_ranges(transfer, await self.local.do(stage.missing, digest))
            if await self.local.do(stage.finish, digest):
                return True
        return False

    async def _fill_from_old(self, transfer: Transfer, older: Older) -> None:
        """Take from the old version here what the new one still has (roles as in zsync)."""
        packed = await self.remote.sign_unless_grown(
            transfer.source, transfer.digest, block_size_for(transfer.size), older.file.digest
        )
        if packed is None:
            copies = [Range(0, 0, older.file.size)] if older.file.size <= transfer.size else []
        else:
            self.tally.received += len(packed)
            copies = await self.local.do(self._search_old, transfer, older, packed)
        if copies:
            # What is new comes first: then the file is hashed while the rest is copied.
            missing = await self.local.do(self.local.folder.stage.missing, transfer.digest)
            await self._fetch_ranges(transfer, _common(gaps(copies, transfer.size), missing))
            with suppress(OSError):  # the old version is gone or changes: everything is fetched
                large = self.local.folder.large
                await self.local.do(large.fill, transfer.digest, copies, older.path, older.file.digest)

    def _search_old(self, transfer: Transfer, older: Older, packed: bytes) -> list[Range]:
        signatures = read_signatures(packed)
        if signatures.file_size == transfer.size:
            with suppress(OSError), self.local.folder.open_file(older.path) as fd:
                return copies_in_old(find_blocks(fd, signatures), signatures)
        # It is another file by now; so will its content be, and then it is looked at again.
        return []

    async def _fetch_ranges(self, transfer: Transfer, ranges: Sequence[tuple[int, int]]) -> None:
        pieces = list(_chunks(ranges))
        left = sum(length for _, length in pieces)
        stage = self.local.folder.stage

        async def fetch(offset: int, length: int) -> None:
            nonlocal left
            data = await self.remote.get_range(transfer.source, transfer.digest, offset, length)
            await self.local.do(stage.put_chunk, transfer.digest, offset, data)
            self.tally.received += length
            left -= length
            self._tell(transfer.source, transfer.size - left, transfer.size)

        await _several([partial(fetch, offset, length) for offset, length in pieces])

    # -- up ----------------------------------------------------------------------------------------------------------

    async def up(
        self, transfers: Sequence[Transfer], older: Mapping[bytes, Older], *, inline: bool = True
    ) -> tuple[bytes, list[tuple[bytes, str]], frozenset[bytes]]:
        """Stage on the runtime what it needs, except for a little that travels with the operations.

        Args:
            transfers: What is needed.
            older: Older versions there, by the digest of the new content.
            inline: A little may travel with the operations; otherwise all of it is staged ahead.

        Returns:
            A batch to go with the operations, copies that the runtime makes from what it has, and the digests that are
            not to be had because the files changed meanwhile.
        """
        theirs = [t for t in transfers if t.to is Side.REMOTE]
        copies = [(t.digest, t.source) for t in theirs if t.source_side is Side.REMOTE]
        sent = [t for t in theirs if t.source_side is Side.LOCAL]
        small = [t for t in sent if t.size < SMALL_FILE_BYTES]
        if inline and not is_bulk(transfers, Side.REMOTE):
            packed, sizes = await self._packed(small)
            self.tally.sent += sum(sizes.values())
            return packed, copies, frozenset({t.digest for t in small} - set(sizes))
        failed = await self._up_small(small)
        for transfer in sorted((t for t in sent if t.size >= SMALL_FILE_BYTES), key=lambda t: t.size):
            if not await self.up_large(transfer, older.get(transfer.digest)):
                failed.add(transfer.digest)
        return b"", copies, frozenset(failed)

    async def _packed(self, transfers: Sequence[Transfer]) -> tuple[bytes, dict[bytes, int]]:
        """Return small files as one batch, with the size of each by its digest; those that changed are left out."""
        if not transfers:
            return b"", {}
        wanted = [(t.digest, t.source) for t in transfers]
        contents = await self.local.do(self.local.folder.contents, wanted, INLINE_BYTES + SMALL_FILE_BYTES)
        if not contents:
            return b"", {}
        # Not in the thread of this side, which reads the next files meanwhile.
        packed = await anyio.to_thread.run_sync(partial(pack_batch, contents, allowed=self.remote.codecs))
        return packed, {digest: len(data) for digest, data in contents}

    async def _up_small(self, transfers: Sequence[Transfer]) -> set[bytes]:
        if not transfers:
            return set()
        there: frozenset[bytes] = frozenset()
        if sum(t.size for t in transfers) >= _ASK_FROM_BYTES:
            there = await self.remote.have([t.digest for t in transfers])
        by_digest = {t.digest: t for t in transfers if t.digest not in there}
        failed: set[bytes] = set()

        async def send(batch: list[bytes]) -> None:
            packed, sizes = await self._packed([by_digest[digest] for digest in batch])
            failed.update(set(batch) - set(sizes))
            if sizes:
                await self.remote.put(packed)
                self.tally.sent += sum(sizes.values())

        batches = list(group((t.digest, t.size) for t in by_digest.values()))
        await _several([partial(send, batch) for batch in batches])
        return failed

    async def up_large(self, transfer: Transfer, older: Older | None) -> bool:
        """Stage one large file there, going on where an earlier try ended; False when it changed meanwhile."""
        is_ahead = older is not None and self.ahead is not None and await self.ahead.take(older.file.digest)
        ahead_of = older.file.digest if older is not None and is_ahead else b""
        missing = await self.remote.missing(transfer.digest, transfer.size, ahead_of)
        if not missing:
            return True
        if older is not None and _worth(older.file.size, sum(length for _, length in missing)):
            copies = await self._copies_there(transfer, older)
            if copies:
                # What is new goes first: then the file is hashed there while the rest is copied.
                if not await self._send_ranges(transfer, _common(gaps(copies, transfer.size), missing)):
                    return False
                missing = await self._patch_up(transfer, older, copies)
        for _ in range(2):
            if not await self._send_ranges(transfer, missing):
                return False
            try:
                await self.remote.finish(transfer.digest)
            except RemoteFailure as error:
                if error.code != "mismatch":
                    raise
                missing = await self.remote.missing(transfer.digest, transfer.size)
            else:
                return True
        return False

    async def _copies_there(self, transfer: Transfer, older: Older) -> list[Range]:
        """Return which ranges of the runtime's old version the new one still has."""
        old, large = older.file, self.local.folder.large
        with suppress(OSError):
            known = await self.local.do(large.copies_from, transfer.source, transfer.digest, old.digest)
            if known is not None:
                return known
        origin = await self.local.do(large.origin, transfer.digest)
        compared = origin is not None and origin.digest == old.digest
        if not compared and await self.local.do(self._has_grown, transfer, old):
            return [Range(0, 0, old.size)]
        try:
            packed = await self.remote.sign(older.path, old.digest, block_size_for(old.size))
        except RemoteFailure as error:
            if error.code in _MOVED:
                return []
            raise
        self.tally.received += len(packed)
        return await self.local.do(self._search, transfer, packed)

    async def _patch_up(self, transfer: Transfer, older: Older, copies: list[Range]) -> list[tuple[int, int]]:
        """Have the runtime take from its old version what the new one still has; returns what it lacks then."""
        with suppress(RemoteFailure):  # the old version changed there: everything is sent
            packed_copies = pack_copies(copies)
            await self.remote.patch(older.path, older.file.digest, transfer.digest, transfer.size, packed_copies)
            self.tally.sent += len(packed_copies)
        return await self.remote.missing(transfer.digest, transfer.size)

    def _has_grown(self, transfer: Transfer, old: File) -> bool:
        """Return whether a file only grew (logs, tables), which needs no signatures."""
        if old.size < transfer.size:
            with suppress(OSError), self.local.folder.open_file(transfer.source) as fd:
                found = growth(fd, old.size, old.digest, self.local.key)
                return found.grew and found.digest == transfer.digest
        return False

    def _search(self, transfer: Transfer, packed: bytes) -> list[Range]:
        signatures = read_signatures(packed)
        with suppress(OSError), self.local.folder.open_file(transfer.source) as fd:
            return copies_in_new(find_blocks(fd, signatures), signatures)
        return []

    async def _send_ranges(self, transfer: Transfer, ranges: Sequence[tuple[int, int]]) -> bool:
        pieces = list(_chunks(ranges))
        left = sum(length for _, length in pieces)
        whole = True

        async def send(offset: int, length: int) -> None:
            nonlocal left, whole
            data = await self.local.do(self._range, transfer.source, offset, length)
            if len(data) != length:
                whole = False
                return
            await self.remote.chunk(transfer.digest, offset, data)
            self.tally.sent += length
            left -= length
            self._tell(transfer.source, transfer.size - left, transfer.size)

        await _several([partial(send, offset, length) for offset, length in pieces])
        return whole

    def _range(self, path: str, offset: int, length: int) -> bytes:
        with suppress(OSError):
            return self.local.folder.read_range(path, offset, length)
        return b""

    def _tell(self, path: str, done: int, size: int) -> None:
        if self.progress is not None:
            self.progress(path, done, size)


def is_bulk(transfers: Iterable[Transfer], to: Side) -> bool:
    """Return whether a side needs more content than travels inside an exchange."""
    return sum(t.sent for t in transfers if t.to is to) > INLINE_BYTES


def _worth(old: int, new: int) -> bool:
    return min(old, new) >= MIN_DELTA_BYTES


def _common(ranges: Sequence[tuple[int, int]], missing: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of ranges (offset, length) that are missing."""
    out: list[tuple[int, int]] = []
    for start, length in missing:
        for offset, count in ranges:
            first, end = max(start, offset), min(start + length, offset + count)
            if first < end:
                out.append((first, end - first))
    return out


def _chunks(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    for start, length in ranges:
        for offset in range(start, start + length, _CHUNK_BYTES):
            yield offset, min(_CHUNK_BYTES, start + length - offset)


async def _several(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run calls in their order, a few at a time; the first failure ends all."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call()

    # Not asyncio's own group: before Python 3.13 its waiting task counts as cancelled for ever when a member fails.
    failure: list[BaseException] = []
    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(min(_CHUNKS_AT_ONCE, len(calls))):
                tasks.start_soon(work)
    except BaseExceptionGroup as failures:
        failure.append(failures.exceptions[0])
    if failure:
        raise failure[0]
