"""What the runtime copies while a large file is still read here: used, never needed, and never left behind."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest

from colab_bridge.agent.sync.disk.ahead import AHEAD_NAME
from colab_bridge.sync.remote import RemoteFailure
from sync_pair import Pair, open_pair

pytestmark = pytest.mark.anyio

MIB = 1 << 20
FIRST = random.Random(1).randbytes(40 * MIB)
PIECE = random.Random(2).randbytes(100_000)


class Noting:
    """A caller that notes what is copied ahead, and refuses it if wanted."""

    def __init__(self, caller: Any, *, refuse: bool = False) -> None:
        self._caller = caller
        self.refuse = refuse
        self.begun: list[tuple[int, int]] = []
        self.ended = 0

    async def call(self, method: str, params: Mapping[str, Any] | None = None, *args: Any, **options: Any) -> Any:
        if method == "files.ahead" and params is not None:
            if self.refuse:
                raise RemoteFailure("unknown", "no such verb")
            if params.get("end"):
                self.ended += 1
            else:
                self.begun.append((params["source"], params["target"]))
        return await self._caller.call(method, params, *args, **options)


async def begin(pair: Pair) -> Noting:
    """Bring a large file into step twice, so that its blocks are known."""
    (pair.here / "large.bin").write_bytes(b"0" + FIRST[1:])
    await pair.sync.sync("sync")
    (pair.here / "large.bin").write_bytes(FIRST)
    await pair.sync.sync("pre")
    noting = pair.remote._caller = Noting(pair.caller)
    return noting


def is_clean(pair: Pair) -> bool:
    return not (pair.there / ".colab-bridge" / "stage" / AHEAD_NAME).exists()


@pytest.mark.parametrize(
    ("new", "begun"),
    [
        (FIRST + PIECE, [(0, 0)]),
        (FIRST[: 20 * MIB] + PIECE + FIRST[20 * MIB + len(PIECE) :], [(0, 0)]),
        (PIECE + FIRST, [(0, len(PIECE))]),
        (random.Random(3).randbytes(40 * MIB), []),
    ],
    ids=["appended", "written over", "put in front", "another file"],
)
@pytest.mark.parametrize("reason", ["pre", "sync"])
async def test_what_a_changed_file_still_has_is_copied_there_while_it_is_read_here(reason, new, begun, tmp_path):
    async with open_pair(tmp_path) as pair:
        noting = await begin(pair)
        (pair.here / "large.bin").write_bytes(new)
        report = await pair.sync.sync(reason)
        assert noting.begun == begun
        assert (pair.there / "large.bin").read_bytes() == new
        assert not begun or report.sent + report.received < 300_000
        assert is_clean(pair)
        assert noting.ended == 0


async def test_a_runtime_that_cannot_copy_ahead_copies_when_it_is_asked_to(tmp_path):
    async with open_pair(tmp_path) as pair:
        noting = await begin(pair)
        noting.refuse = True
        (pair.here / "large.bin").write_bytes(FIRST + PIECE)
        report = await pair.sync.sync("pre")
        assert (pair.there / "large.bin").read_bytes() == FIRST + PIECE
        assert report.sent + report.received < 300_000


async def test_what_was_copied_ahead_for_a_file_that_does_not_travel_now_is_removed(tmp_path):
    async with open_pair(tmp_path) as pair:
        noting = await begin(pair)
        pair.sync.resting.add("large.bin")
        (pair.here / "large.bin").write_bytes(FIRST + PIECE)
        await pair.sync.sync("pre")
        assert (noting.begun, noting.ended) == ([(0, 0)], 1)
        assert is_clean(pair)
        assert (pair.there / "large.bin").read_bytes() == FIRST


async def test_what_somebody_there_has_changed_meanwhile_is_kept_and_nothing_is_built_on_it(tmp_path):
    async with open_pair(tmp_path) as pair:
        await begin(pair)
        (pair.here / "large.bin").write_bytes(FIRST + PIECE)
        theirs = b"theirs" + FIRST[6:]
        (pair.there / "large.bin").write_bytes(theirs)
        await pair.sync.sync("sync")
        assert (pair.there / "large.bin").read_bytes() == FIRST + PIECE
        (kept,) = [pair.local.copies.path_of(copy).read_bytes() for copy in pair.local.store.copies()]
        assert kept == theirs
        assert is_clean(pair)
