"""Large files: the same limits count on both sides, and one command takes a file along that they leave out."""

from __future__ import annotations

import pytest

from colab_bridge.agent.sync.budget import Budget
from colab_bridge.errors import UserError
from colab_bridge.sync.including import include_path
from colab_bridge.sync.local import LocalOptions
from sync_pair import tree_of
from sync_words import edit

pytestmark = pytest.mark.anyio

SMALL = LocalOptions(budget=Budget(file=1000, git_file=1000, git_total=2000))


@pytest.mark.rows("H01", "H02")
async def test_the_limits_of_the_settings_count_for_results_too(channels):
    async with channels(local_options=SMALL) as pair:
        edit(pair.here, "f=1 big=#5000b")
        await pair.sync.sync("sync")
        edit(pair.there, "g=1 result=#5000r")
        report = await pair.sync.sync("post")
        assert (set(tree_of(pair.here)), set(tree_of(pair.there))) == ({"f", "g", "big"}, {"f", "g", "result"})
        notices = {(n.path, n.kind, n.command) for n in report.notices}
        assert notices == {
            ("big", "blocked", "colab-bridge sync include big"),
            ("result", "stays-there", "colab-bridge sync include result"),
        }


async def test_limits_that_are_raised_count_on_both_sides_at_once(channels):
    async with channels(local_options=SMALL) as pair:
        edit(pair.here, "big=#5000b")
        edit(pair.there, "result=#5000r")
        await pair.sync.sync("sync")
        await pair.local.do(pair.local.use, LocalOptions())
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)
        assert set(tree_of(pair.here)) == {"big", "result"}
        edit(pair.there, "big=#6000c")
        await pair.sync.sync("post")
        assert tree_of(pair.here)["big"] == tree_of(pair.there)["big"]


async def test_what_git_ignores_and_the_settings_let_travel_goes_on_travelling(channels):
    """Once it was up, the runtime's own limits must not keep its changes there."""
    limits = LocalOptions(budget=Budget(git_file=200 << 20))
    async with channels(local_options=limits) as pair:
        (pair.here / ".gitignore").write_text("data/\n")
        (pair.here / "data").mkdir()
        with open(pair.here / "data" / "big", "wb") as file:
            file.truncate(101 << 20)
        await pair.sync.sync("sync", wait_all=True)
        with open(pair.there / "data" / "big", "r+b") as file:
            file.write(b"changed there")
        report = await pair.sync.sync("post", wait_all=True)
        assert report.notices == ()
        with open(pair.here / "data" / "big", "rb") as file:
            assert file.read(13) == b"changed there"


@pytest.mark.parametrize("side", ["here", "there"])
async def test_a_file_that_was_left_out_comes_along_and_what_lies_beside_it_stays_in_step(side, channels):
    async with channels(local_options=SMALL) as pair:
        edit(pair.here, "data/x=1")
        edit(getattr(pair, side), "data/big=#5000b")
        await pair.sync.sync("sync")
        lines = await include_path(pair.sync, "data/big")
        assert lines == ["!/data/big"]
        edit(pair.here, "data/x=2 data/y=1")
        await pair.sync.sync("sync", wait_all=True)
        assert tree_of(pair.here) == tree_of(pair.there)
        assert tree_of(pair.there).keys() == {".colabbridgeignore", "data/x", "data/y", "data/big"}
        assert await include_path(pair.sync, "data/big") == [], "nothing is written twice"


async def test_a_file_in_a_left_out_folder_of_the_runtime_comes_along_alone(channels):
    async with channels() as pair:
        edit(pair.here, "f=1")
        edit(pair.there, "build/out.bin=1 build/other=1")
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == {"f": "1"}
        await include_path(pair.sync, "build/out.bin")
        await pair.sync.sync("sync", wait_all=True)
        assert tree_of(pair.here).keys() == {".colabbridgeignore", "f", "build/out.bin"}


@pytest.mark.parametrize(("path", "words"), [("nothing", "there is no nothing"), (".git/config", "never travels")])
async def test_what_is_nowhere_or_never_travels_is_not_included(path, words, channels):
    async with channels() as pair:
        edit(pair.here, "f=1 .git/config=1")
        await pair.sync.sync("sync")
        with pytest.raises(UserError, match=words):
            await include_path(pair.sync, path)
        assert tree_of(pair.there) == {"f": "1"}
