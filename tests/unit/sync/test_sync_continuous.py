"""Continuous mode syncs when something has changed, and only then."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import anyio
import pytest

from colab_bridge.sync.continuous import keep_in_step
from colab_bridge.sync.failures import SyncFailure
from colab_bridge.sync.remote import RemoteFailure
from sync_pair import open_pair

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="changes are told by inotify"),
]

_WAIT_S = 30
_BARRIERS = 20


class _Away:
    """A runtime that cannot be reached."""

    async def call(self, method, params=None, payload=b"", **options):
        raise RemoteFailure("offline", "the runtime does not answer")


async def test_the_runtime_tells_of_changes_but_not_of_the_barriers_themselves(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "a.txt").write_text("a")
        await pair.sync.sync("sync")
        told: asyncio.Queue[str] = asyncio.Queue()
        pair.caller.on_notify = lambda method, params: told.put_nowait(method)
        await pair.sync.watch_remote()
        for _ in range(_BARRIERS):
            await pair.sync.sync("pre")
            await pair.sync.sync("post")
        (pair.there / "b.txt").write_text("b")
        with anyio.fail_after(_WAIT_S):
            assert await told.get() == "files.dirty"
        assert told.empty()


async def test_a_barrier_causes_no_sync_behind_it_and_a_saved_file_one(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "a.txt").write_text("a")
        (tmp_path / "b.txt").write_text("b")
        await pair.sync.sync("sync")
        reports = []
        arrived = asyncio.Event()
        keep_up = pair.sync.keep_up

        async def counted(*, quiet: bool = False):
            reports.append(await keep_up(quiet=quiet))
            arrived.set()
            return reports[-1]

        pair.sync.keep_up = counted
        keeping = asyncio.create_task(keep_in_step(pair.sync, asyncio.Event()))
        try:
            for _ in range(_BARRIERS):
                await pair.sync.sync("pre")
                await pair.sync.sync("post")
            os.replace(tmp_path / "b.txt", pair.here / "b.txt")
            with anyio.fail_after(_WAIT_S):
                await arrived.wait()
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        assert [report.up for report in reports] == [("b.txt",)]
        assert (pair.there / "b.txt").read_text() == "b"


async def test_what_a_failed_sync_has_taken_in_is_still_to_be_done(tmp_path):
    async with open_pair(tmp_path) as pair:
        (pair.here / "a.txt").write_text("a")
        await pair.sync.sync("sync")
        assert await pair.sync.knows_all_here()
        (pair.here / "a.txt").write_text("changed")
        assert not await pair.sync.knows_all_here()
        pair.remote._caller = _Away()
        with pytest.raises(SyncFailure):
            await pair.sync.sync("pre")
        assert not await pair.sync.knows_all_here()
