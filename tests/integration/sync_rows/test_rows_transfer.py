"""Large files: what travels of them, and what happens when they change or the line is cut on the way."""

from __future__ import annotations

import random

import pytest

from colab_bridge.sync.failures import SyncFailure
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.remote import RemoteFailure
from sync_pair import tree_of
from sync_tools import Liar
from sync_words import edit

pytestmark = pytest.mark.anyio

MIB = 1 << 20
SIZE = 12 * MIB
AT_ONCE = PairOptions(barrier_bytes=1 << 40)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def lying(pair):
    liar = Liar(pair.caller)
    pair.remote._caller = liar
    return liar


WAYS = pytest.mark.parametrize("way", ["up", "down"])


def sides(pair, way):
    return (pair.here, pair.there) if way == "up" else (pair.there, pair.here)


CHANGES = {
    # id: old, new, most content that may travel, verbs that are not needed
    "L01": (noise(SIZE), lambda old: old[: 5 * MIB] + noise(MIB, 2) + old[6 * MIB :], 1.45 * MIB, set()),
    "L02": (noise(SIZE), lambda old: noise(MIB, 2) + old, 1.45 * MIB, set()),
    "L03": (noise(SIZE), lambda old: old + noise(MIB, 2), 1.01 * MIB, {"up": {"sign"}}),
    "L04": (noise(SIZE), lambda old: old[: 8 * MIB], 0.3 * MIB, set()),
    "L05": (noise(SIZE), lambda old: noise(SIZE, 3), 1.01 * SIZE + MIB, set()),
    "L06": (bytes(SIZE), lambda old: old[: SIZE // 2] + b"x" + old[SIZE // 2 + 1 :], 0.5 * MIB, set()),
    "L08": (noise(SIZE), lambda old: old[6 * MIB :] + old[: 6 * MIB], 0.5 * MIB, set()),
}


@WAYS
@pytest.mark.parametrize("row", [pytest.param(row, marks=pytest.mark.rows(row), id=row) for row in CHANGES])
async def test_of_a_changed_large_file_only_what_is_new_travels(row, way, pairs):
    old, change, most, unneeded = CHANGES[row]
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        (source / "large").write_bytes(old)
        await pair.sync.sync("sync")
        liar = lying(pair)
        new = change(old)
        (source / "large").write_bytes(new)
        await pair.sync.sync("sync")
        assert (target / "large").read_bytes() == new
        assert liar.sizes["up"] + liar.sizes["down"] <= most
        assert not set(liar.calls) & (unneeded or {}).get(way, set())


@WAYS
async def test_the_next_change_of_a_large_file_needs_no_signatures_from_the_other_side(way, pairs):
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        content = bytearray(noise(SIZE))
        liar = lying(pair)
        for number in range(3):
            content[MIB * number : MIB * number + 1000] = noise(1000, 10 + number)
            (source / "large").write_bytes(content)
            liar.calls.clear()
            await pair.sync.sync("sync")
        assert (target / "large").read_bytes() == content
        assert ("sign" in liar.calls) is (way == "down")


async def test_an_old_version_that_was_written_since_the_last_look_is_read_again_when_it_is_used(pairs):
    async with pairs(options=AT_ONCE) as pair:
        old, new = noise(SIZE), noise(SIZE) + noise(MIB, 2)
        (pair.here / "large").write_bytes(old)
        await pair.sync.sync("sync")
        liar = lying(pair)

        def write():
            liar.before.clear()
            with (pair.there / "large").open("r+b") as file:
                file.write(b"X" * 100)

        liar.before["patch"] = write
        (pair.here / "large").write_bytes(new)
        await pair.sync.sync("sync")
        await pair.sync.sync("post")
        assert (pair.here / "large").read_bytes() == (pair.there / "large").read_bytes() == new


@pytest.mark.rows("L09")
async def test_a_file_that_shrinks_while_it_is_sent_is_sent_again_as_it_is(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        (pair.here / "large").write_bytes(noise(6 * MIB))

        def shrink():
            liar.before.clear()
            (pair.here / "large").write_bytes(noise(2 * MIB, 5))

        liar.before["chunk"] = shrink
        await pair.sync.sync("pre")
        assert (pair.there / "large").read_bytes() == noise(2 * MIB, 5)


@pytest.mark.rows("L09")
@WAYS
async def test_a_file_that_changes_while_it_travels_is_never_torn(way, pairs):
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        (source / "large").write_bytes(noise(6 * MIB))
        written = [noise(6 * MIB)]

        def change():
            if len(written) < 6:
                written.append(noise(6 * MIB, 10 + len(written)))
                (source / "large").write_bytes(written[-1])

        liar.after["chunk" if way == "up" else "get"] = change
        for _ in range(4):
            try:
                await pair.sync.sync("sync")
            except SyncFailure:
                continue
            finally:
                assert not (target / "large").exists() or (target / "large").read_bytes() in written
        liar.after.clear()
        await pair.sync.sync("sync")
        assert (target / "large").read_bytes() == written[-1]


@pytest.mark.rows("L10")
async def test_a_file_that_is_replaced_between_its_signatures_and_its_content_is_refused(pairs):
    async with pairs(options=AT_ONCE) as pair:
        (pair.here / "large").write_bytes(noise(8 * MIB))
        await pair.sync.sync("sync")
        (pair.there / "large").write_bytes(noise(4 * MIB) + noise(4 * MIB, 2))
        liar = lying(pair)

        def replace():
            liar.after.clear()
            (pair.there / "large").unlink()
            (pair.there / "large").write_bytes(noise(8 * MIB, 3))

        liar.after["sign"] = replace
        await pair.sync.sync("post")
        await pair.sync.sync("post")
        assert (pair.here / "large").read_bytes() == noise(8 * MIB, 3)


@pytest.mark.rows("L13", "X06")
@WAYS
async def test_after_a_cut_only_the_pieces_under_way_travel_again(way, pairs):
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        (source / "large").write_bytes(noise(10 * MIB))
        verb = "chunk" if way == "up" else "get"
        cuts = 0

        def cut():
            nonlocal cuts
            if liar.calls.count(verb) % 8 == 7:
                cuts += 1
                raise RemoteFailure("offline", "the line is cut")

        liar.before[verb] = cut
        for _ in range(20):
            try:
                await pair.sync.sync("sync")
            except SyncFailure:
                continue
            break
        assert (target / "large").read_bytes() == noise(10 * MIB)
        assert cuts >= 1
        sent = liar.sizes["up"] if way == "up" else liar.sizes["down"]
        # Four pieces are under way at once; what was cut off before its answer is sent again.
        assert sent < 10 * MIB + cuts * 4 * MIB


@pytest.mark.rows("L14")
@WAYS
async def test_damage_to_what_had_come_before_a_cut_is_found_and_fetched_again(way, pairs):
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        (source / "large").write_bytes(noise(10 * MIB))
        verb = "chunk" if way == "up" else "get"

        def cut():
            if liar.calls.count(verb) > 7:
                raise RemoteFailure("offline", "the line is cut")

        liar.before[verb] = cut
        with pytest.raises(SyncFailure):
            await pair.sync.sync("sync")
        # Pieces that were under way are written by now: each side does one thing after the other.
        await pair.caller.call("files.stat", {"path": str(pair.there)})
        await pair.local.do(lambda: None)
        (part,) = (target / ".colab-bridge" / "stage").glob("*.part")
        with open(part, "r+b") as file:
            file.seek(MIB + 5)
            file.write(b"damage")
        liar.before.clear()
        liar.sizes.update(up=0, down=0)
        await pair.sync.sync("sync")
        assert (target / "large").read_bytes() == noise(10 * MIB)
        assert max(liar.sizes.values()) < 10 * MIB


@pytest.mark.rows("L15")
@WAYS
async def test_one_content_at_five_paths_travels_once(way, pairs):
    async with pairs(options=AT_ONCE) as pair:
        source, target = sides(pair, way)
        liar = lying(pair)
        for number in range(5):
            (source / f"copy{number}").write_bytes(noise(3 * MIB))
        await pair.sync.sync("sync")
        assert tree_of(target) == tree_of(source)
        assert liar.sizes["up" if way == "up" else "down"] < 3.5 * MIB
        edit(source, "copy0~d/moved copy1~e/moved")
        liar.sizes.update(up=0, down=0)
        await pair.sync.sync("sync")
        assert tree_of(target) == tree_of(source)
        assert max(liar.sizes.values()) < MIB


@pytest.mark.rows("L11")
async def test_small_files_of_noise_cost_no_more_than_they_are(pairs):
    async with pairs() as pair:
        edit(pair.here, "f=1")
        await pair.sync.sync("sync")
        liar = lying(pair)
        for number in range(30):
            (pair.here / f"n{number}").write_bytes(noise(10_000, number))
        await pair.sync.sync("pre")
        assert tree_of(pair.there) == tree_of(pair.here)
        assert liar.sizes["up"] < 1.05 * 300_000


@pytest.mark.rows("D02", "D11")
async def test_a_renamed_folder_of_many_files_sends_names_only(pairs):
    async with pairs() as pair:
        edit(pair.here, " ".join(f"d/s{n % 10}/f{n}=content{n}" for n in range(1000)))
        await pair.sync.sync("sync")
        liar = lying(pair)
        edit(pair.here, "d~e")
        report = await pair.sync.sync("sync")
        assert (report.sent, report.received) == (0, 0)
        assert tree_of(pair.there) == tree_of(pair.here)
        assert liar.sizes["up"] < 1_000_000


@pytest.mark.rows("A10")
async def test_very_many_files_go_up_in_one_agreement(pairs):
    async with pairs() as pair:
        edit(pair.here, " ".join(f"d{n % 50}/f{n}=content{n}" for n in range(2_000)))
        report = await pair.sync.sync("sync")
        assert len(report.up) == 2_000
        assert tree_of(pair.there) == tree_of(pair.here)
        assert len(pair.store.history(10)) == 1
