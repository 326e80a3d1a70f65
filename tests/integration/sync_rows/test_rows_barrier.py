"""What a barrier costs, what it proves, and what happens while it is under way."""

from __future__ import annotations

import asyncio

import pytest

from colab_bridge.sync.failures import SyncFailure
from colab_bridge.sync.options import PairOptions
from sync_pair import tree_of
from sync_tools import Liar
from sync_words import edit

pytestmark = pytest.mark.anyio


def lying(pair):
    liar = Liar(pair.caller)
    pair.remote._caller = liar
    return liar


def cost(report):
    return report.round_trips, report.sent, report.received


@pytest.mark.rows("J01")
@pytest.mark.parametrize("reason", ["pre", "post", "watch", "sync"])
async def test_nothing_changed_is_one_round_trip_and_no_content(reason, pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=2")
        await pair.sync.sync("sync")
        await pair.sync.sync("post")
        assert cost(await pair.sync.sync(reason)) == (1, 0, 0)


@pytest.mark.rows("J02")
async def test_a_small_change_here_is_there_after_one_round_trip(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=2")
        await pair.sync.sync("sync")
        edit(pair.here, "f=#4096 new/h=3 -d/g")
        assert cost(await pair.sync.sync("pre")) == (1, 4097, 0)
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("J03")
@pytest.mark.parametrize("reason", ["pre", "post"])
async def test_a_small_change_there_is_here_after_one_round_trip(reason, pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 d/g=2")
        await pair.sync.sync("sync")
        edit(pair.there, "f=#4096 new/h=3")
        assert cost(await pair.sync.sync(reason)) == (1, 0, 4097)
        assert tree_of(pair.here) == tree_of(pair.there)


@pytest.mark.rows("J04")
async def test_changes_of_both_sides_at_one_path_are_settled_in_the_same_barrier(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2")
        edit(pair.there, "f=3 g=3")
        report = await pair.sync.sync("pre")
        assert report.round_trips <= 3
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "2", "g": "3"}
        assert pair.kept() == {"f": "3"}


@pytest.mark.rows("J05")
async def test_a_large_change_here_is_complete_there_before_the_run(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "large=#20000000a large2=#1500000b")
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == tree_of(pair.here)


@pytest.mark.rows("J09")
async def test_a_file_that_is_open_for_writing_there_is_named(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        with open(pair.there / "log", "w", encoding="utf-8") as log:
            log.write("half")
            log.flush()
            report = await pair.sync.sync("post")
            assert report.unstable == ("log",)
            assert tree_of(pair.here)["log"] == "half"
            log.write(" whole")
        report = await pair.sync.sync("post")
        assert report.unstable == ()
        assert tree_of(pair.here)["log"] == "half whole"


@pytest.mark.rows("J09")
async def test_a_file_that_is_still_open_is_named_also_if_what_is_in_it_came_before_the_run_ended(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        await pair.sync.sync("post")
        with open(pair.there / "log", "w", encoding="utf-8") as log:
            log.write("half")
            log.flush()
            await pair.sync.keep_up()
            report = await pair.sync.sync("post")
            assert (report.down, report.unstable) == ((), ("log",))
            assert (await pair.sync.sync("post")).unstable == (), "nobody has changed anything in between"


@pytest.mark.rows("J15", "J12")
@pytest.mark.parametrize("verb", ["pre", "post"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_save_while_the_question_is_under_way_is_in_this_barrier_or_in_the_next(verb, when, pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        edit(pair.here, "f=2")

        def save():
            getattr(liar, when).clear()
            (pair.here / "f").write_text("saved meanwhile")
            (pair.there / "g").write_text("written meanwhile")

        getattr(liar, when)[verb] = save
        await pair.sync.sync(verb)
        await pair.sync.sync("post")
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "saved meanwhile", "g": "written meanwhile"}
        assert pair.kept() == {}


@pytest.mark.rows("J16")
async def test_files_that_never_rest_end_the_barrier_with_their_names(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1 g=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        count = 0

        def save():
            nonlocal count
            count += 1
            (pair.there / "f").write_text(f"version {count}")

        liar.before["pre"] = liar.before["get"] = save
        edit(pair.here, "g=2")
        with pytest.raises(SyncFailure) as caught:
            for number in range(20):
                edit(pair.here, f"f=mine{number}")
                await pair.sync.sync("pre")
        assert caught.value.paths == ("f",)
        liar.before.clear()
        await pair.sync.sync("sync")
        assert tree_of(pair.here) == tree_of(pair.there)
        assert tree_of(pair.there)["g"] == "2"


@pytest.mark.rows("J17")
async def test_several_barriers_at_once_follow_one_another(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.here, "f=2 up=1")
        edit(pair.there, "down=1")
        liar = lying(pair)
        await asyncio.gather(*(pair.sync.sync(reason) for reason in ("pre", "post", "watch", "sync", "pre", "post")))
        assert tree_of(pair.here) == tree_of(pair.there) == {"f": "2", "up": "1", "down": "1"}
        assert len(liar.calls) <= 8


@pytest.mark.rows("J18", "J19")
async def test_a_barrier_does_not_wait_for_a_large_result_that_comes_down(channels):
    async with channels(options=PairOptions(barrier_bytes=1 << 20)) as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        edit(pair.there, "model=#12000000m small=1")
        report = await pair.sync.sync("post")
        assert [item.path for item in report.deferred] == ["model"]
        assert tree_of(pair.here) == {"f": "1", "small": "1"}
        told: list[int] = []
        under_way = asyncio.Event()

        def tell(path, done, size):
            told.append(done)
            under_way.set()

        pair.sync.progress = pair.sync._doing._progress = tell
        fetching = asyncio.create_task(pair.sync.fetch_deferred())
        await asyncio.wait_for(under_way.wait(), 20)
        edit(pair.there, "second=2")
        await pair.sync.sync("post")
        assert tree_of(pair.here)["second"] == "2"
        assert not fetching.done()
        await fetching
        assert tree_of(pair.here) == tree_of(pair.there)
