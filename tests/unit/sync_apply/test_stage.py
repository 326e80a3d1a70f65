"""The stage: by digest, verified, and large files that go on where they were cut (L13, L14)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apply_world import KEY, World, digest
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Expected, Kind
from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.disk.stage import LARGE_BYTES
from colab_bridge.agent.sync.transfer.patch import Copy, copies_in_new
from colab_bridge.agent.sync.transfer.search import find_blocks
from colab_bridge.agent.sync.transfer.signatures import read_signatures, sign
from colab_bridge.agent.sync.transfer.trail import Hashing, Mark
from faulty_calls import FaultyCalls, Killed, kill

CHUNK = 2**17
DATA = random.Random(1).randbytes(10 * CHUNK + 17)


def send(world: World, name: bytes, ranges: list[tuple[int, int]], data: bytes = DATA) -> int:
    sent = 0
    for offset, length in ranges:
        for start in range(offset, offset + length, CHUNK):
            piece = data[start : min(start + CHUNK, offset + length)]
            world.stage.put_chunk(name, start, piece)
            sent += len(piece)
    return sent


def read_staged(world: World, name: bytes) -> bytes:
    fd = world.stage.open(name)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_chunks_in_any_order_become_the_file(world: World) -> None:
    name = digest(DATA)
    ranges = [(start, min(CHUNK, len(DATA) - start)) for start in range(0, len(DATA), CHUNK)]
    random.Random(2).shuffle(ranges)
    assert world.stage.begin_large(name, len(DATA)) == [(0, len(DATA))]
    send(world, name, ranges)
    assert world.stage.missing(name) == []
    assert world.stage.finish(name)
    assert read_staged(world, name) == DATA
    assert world.staged() == [name.hex()]
    assert world.stage.begin_large(name, len(DATA)) == []


def test_a_file_that_is_not_complete_is_not_finished(world: World) -> None:
    name = digest(DATA)
    world.stage.begin_large(name, len(DATA))
    world.stage.put_chunk(name, CHUNK, DATA[CHUNK : 2 * CHUNK])
    assert not world.stage.finish(name)
    assert world.stage.missing(name) == [(0, CHUNK), (2 * CHUNK, len(DATA) - 2 * CHUNK)]
    assert world.stage.have([name]) == set()


def test_after_a_restart_only_what_is_missing_is_sent_again(world: World) -> None:
    name = digest(DATA)
    world.stage.begin_large(name, len(DATA))
    send(world, name, [(0, 7 * CHUNK)])
    world.close()
    again = World.open(world.path)
    try:
        again.applier.recover()
        ranges = again.stage.begin_large(name, len(DATA))
        assert send(again, name, ranges) == len(DATA) - 7 * CHUNK
        assert again.stage.finish(name)
        assert read_staged(again, name) == DATA
    finally:
        again.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 200))
def test_a_process_that_ends_at_any_call_loses_at_most_one_chunk(
    tmp_path_factory: pytest.TempPathFactory, at: int
) -> None:
    base = tmp_path_factory.mktemp("cut") / "root"
    calls: list[FaultyCalls] = []
    world = World.open(base, lambda real: calls.append(FaultyCalls(real)) or calls[0])
    name = digest(DATA)
    calls[0].count, calls[0].at, calls[0].after = 0, at, kill(calls[0])
    sent = 0
    try:
        world.stage.begin_large(name, len(DATA))
        for start in range(0, len(DATA), CHUNK):
            world.stage.put_chunk(name, start, DATA[start : start + CHUNK])
            sent = min(start + CHUNK, len(DATA))
        world.stage.finish(name)
    except Killed:
        pass
    calls[0].dead = False
    calls[0].at = None
    world.close()
    again = World.open(base)
    try:
        again.applier.recover()
        more = send(again, name, again.stage.begin_large(name, len(DATA)))
        assert more <= len(DATA) - sent + CHUNK
        assert again.stage.finish(name)
        assert read_staged(again, name) == DATA
        assert again.kept == []
    finally:
        again.close()


@pytest.mark.parametrize("damage", ["flipped", "zeroed", "cut off"])
def test_damaged_chunks_are_found_and_only_they_are_sent_again(damage: str, world: World) -> None:
    name = digest(DATA)
    world.stage.begin_large(name, len(DATA))
    send(world, name, [(0, len(DATA))])
    world.close()
    part = world.path / ".colab-bridge/stage" / f"{name.hex()}.part"
    raw = bytearray(part.read_bytes())
    if damage == "flipped":
        raw[3 * CHUNK + 5] ^= 1
    elif damage == "zeroed":
        raw[3 * CHUNK : 4 * CHUNK] = bytes(CHUNK)
    else:
        del raw[9 * CHUNK + 1 :]
    part.write_bytes(raw)
    again = World.open(world.path)
    try:
        again.stage.begin_large(name, len(DATA))
        assert not again.stage.finish(name)
        assert send(again, name, again.stage.missing(name)) <= 2 * CHUNK
        assert again.stage.finish(name)
        assert read_staged(again, name) == DATA
    finally:
        again.close()


def test_chunks_that_are_all_as_written_and_yet_wrong_are_sent_again_as_a_whole(world: World) -> None:
    name = digest(DATA)
    world.stage.begin_large(name, len(DATA))
    send(world, name, [(0, len(DATA))], bytes(len(DATA)))
    assert not world.stage.finish(name)
    assert world.stage.missing(name) == [(0, len(DATA))]
    send(world, name, [(0, len(DATA))])
    assert world.stage.finish(name)


def test_a_delta_is_copies_and_chunks_and_a_wrong_copy_is_sent_as_bytes(world: World, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(DATA)
    new = DATA[: 5 * CHUNK] + b"inserted" + DATA[5 * CHUNK :]
    name = digest(new)
    world.stage.begin_large(name, len(new))
    with old.open("rb") as file:
        copies = [Copy(0, 0, 5 * CHUNK), Copy(5 * CHUNK + 1, 5 * CHUNK + 8, CHUNK), Copy(0, len(new) - 1, 50)]
        world.stage.fill(name, copies, file.fileno())
    send(world, name, world.stage.missing(name), new)
    assert not world.stage.finish(name), "the second copy is off by one"
    send(world, name, world.stage.missing(name), new)
    assert world.stage.finish(name)
    assert read_staged(world, name) == new


def marks_of(data: bytes) -> tuple[Mark, ...]:
    hashing = Hashing(KEY)
    hashing.update(data)
    return hashing.marks()


def test_the_front_of_a_proven_file_is_copied_and_not_hashed_again(world: World, tmp_path: Path) -> None:
    old, new = tmp_path / "old", DATA + b"more"
    old.write_bytes(b"?" * len(DATA))  # what is copied; so only the marks can lead to the digest
    world.stage.begin_large(digest(new), len(new))
    world.stage.put_chunk(digest(new), len(DATA), b"more")
    with old.open("rb") as file:
        world.stage.fill(digest(new), [Copy(0, 0, len(DATA))], file.fileno(), marks_of(DATA))
    assert world.stage.finish(digest(new))


@pytest.mark.parametrize("doubt", ["the proof was taken back", "a chunk came later", "the copy lies elsewhere"])
def test_what_is_not_proven_any_more_is_hashed_as_a_whole(doubt: str, world: World, tmp_path: Path) -> None:
    old, shift = tmp_path / "old", 4 if doubt == "the copy lies elsewhere" else 0
    new = b"more" * bool(shift) + DATA + b"more" * (not shift)
    old.write_bytes(b"?" * len(DATA))
    world.stage.begin_large(digest(new), len(new))
    with old.open("rb") as file:
        world.stage.fill(digest(new), [Copy(0, shift, len(DATA))], file.fileno(), marks_of(DATA))
    if doubt == "the proof was taken back":
        world.stage.hash_anew(digest(new))
    elif doubt == "a chunk came later":
        world.stage.put_chunk(digest(new), 5, new[5:6])
    send(world, digest(new), world.stage.missing(digest(new)), new)
    assert not world.stage.finish(digest(new))


@pytest.mark.parametrize(
    ("offset", "data"), [(-1, b"x"), (len(DATA), b"x"), (0, b""), (len(DATA) - 1, b"xy"), (2**70, b"x")]
)
def test_a_chunk_outside_the_file_is_refused(offset: int, data: bytes, world: World) -> None:
    name = digest(DATA)
    world.stage.begin_large(name, len(DATA))
    with pytest.raises(ValueError, match="inside"):
        world.stage.put_chunk(name, offset, data)


def test_content_that_nobody_asked_for_has_no_place(world: World) -> None:
    with pytest.raises(KeyError):
        world.stage.put_chunk(digest(b"x"), 0, b"x")


def test_a_local_copy_is_verified(world: World) -> None:
    (world.path / "a").write_bytes(b"one")
    assert world.stage.take_local_copy(digest(b"one"), "a")
    assert not world.stage.take_local_copy(digest(b"two"), "a")
    assert world.stage.have([digest(b"one"), digest(b"two")]) == {digest(b"one")}


def test_after_a_start_large_sound_contents_are_kept_and_small_and_damaged_ones_gone(world: World) -> None:
    sound, damaged = b"s" * LARGE_BYTES, b"d" * LARGE_BYTES
    names = [world.put(data) for data in (sound, damaged, b"small")]
    (world.path / ".colab-bridge/stage" / names[1].hex()).write_bytes(damaged[:-1] + b"x")
    world.applier.recover()
    assert world.staged() == [names[0].hex()]
    assert world.kept == []


@pytest.mark.parametrize("standing", [None, b"before"])
def test_a_large_file_that_was_about_to_take_its_place_need_not_travel_again(
    standing: bytes | None, tmp_path: Path
) -> None:
    data = b"l" * LARGE_BYTES
    calls: list[FaultyCalls] = []
    world = World.open(tmp_path / "dying", lambda real: calls.append(FaultyCalls(real)) or calls[0])
    if standing is not None:
        (world.path / "f").write_bytes(standing)
    name = world.put(data)
    expected = None if standing is None else Expected(Kind.FILE, digest(standing))
    operation = ApplyOp(Action.WRITE, "f", expected, name, len(data))

    with pytest.raises(Killed):
        world.applier.apply("t", [operation], on_staged=kill(calls[0]))
    calls[0].dead = False
    world.close()
    again = World.open(world.path)
    try:
        again.applier.recover()
        assert again.staged() == [name.hex()]
        assert again.kept == []
        assert again.applier.apply("t2", [operation])[0].ok
        assert (again.path / "f").read_bytes() == data
    finally:
        again.close()


def test_what_is_not_ours_in_the_stage_goes_to_the_conflict_store(world: World) -> None:
    stage = world.path / ".colab-bridge/stage"
    (stage / f"{digest(b'ours').hex()}~t9~4").write_bytes(b"of the user")
    (stage / f"{digest(b'other').hex()}~t9~5").write_bytes(b"other")
    (stage / "something").write_bytes(b"unknown")
    (stage / "folder~t9~6").mkdir()
    (stage / "folder~t9~7").mkdir()
    (stage / "folder~t9~7" / "inside").write_bytes(b"in a folder")
    world.applier.recover()
    assert world.staged() == []
    assert sorted(world.kept) == [b"of the user", b"unknown"]
    assert len(world.trash.list()) == 3


def test_large_files_are_dropped_when_nobody_goes_on_with_them(world: World) -> None:
    name, whole = digest(DATA), world.put(b"w" * LARGE_BYTES)
    world.stage.begin_large(name, len(DATA))
    world.close()
    again = World.open(world.path)
    try:
        again.stage.drop_old(older_than_s=3600)
        assert len(again.staged()) == 3
        again.stage.drop_old([name, whole], older_than_s=-10)
        assert len(again.staged()) == 3
        again.stage.drop_old(older_than_s=-10)
        assert again.staged() == []
    finally:
        again.close()


def test_a_full_disk_leaves_no_half_content(world: World) -> None:
    class Full(Calls):
        def write(self, fd: int, data: bytes | memoryview) -> None:
            super().write(fd, memoryview(data)[:2])
            raise OSError(28, "No space left on device")

    world.stage.calls = Full(world.stage.calls.exchange)
    with pytest.raises(OSError, match="space"):
        world.put(b"content")
    assert world.staged() == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranges_from_an_old_file_and_chunks_in_any_order_become_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Copies are right or wrong, overlap, come twice, before or after chunks: what is finished is the file."""
    world = World.open(tmp_path_factory.mktemp("fill") / "root")
    try:
        old = world.path / "old"
        old.write_bytes(DATA)
        name = digest(DATA)
        world.stage.begin_large(name, len(DATA))
        for _ in range(data.draw(st.integers(1, 6))):
            start = data.draw(st.integers(0, len(DATA) - 1))
            length = data.draw(st.integers(1, len(DATA) - start))
            shift = data.draw(st.sampled_from([0, 0, 0, 1]))
            if data.draw(st.booleans()):
                with old.open("rb") as file:
                    world.stage.fill(name, [Copy(max(0, start - shift), start, length)], file.fileno())
            else:
                world.stage.put_chunk(name, start, DATA[start : start + length])
        for _ in range(3):
            if world.stage.finish(name):
                break
            send(world, name, world.stage.missing(name))
        assert world.stage.finish(name)
        assert read_staged(world, name) == DATA
    finally:
        world.close()


def test_a_block_that_only_looks_the_same_is_found_out_and_sent(world: World, tmp_path: Path) -> None:
    """Behind a block that matched the weak hash is enough, so a made-up edit can mislead the search; never the file."""
    block = 16 * 1024
    old_data = random.Random(4).randbytes(4 * block)
    edited = bytearray(old_data)
    at = 2 * block + 100
    edited[at : at + 3] = bytes([10, 10, 10])
    old_data = bytes(edited)
    edited[at : at + 3] = bytes([11, 8, 11])
    new_data, name = bytes(edited), digest(bytes(edited))
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(old_data)
    new.write_bytes(new_data)
    with old.open("rb") as there, new.open("rb") as here:
        signatures = read_signatures(sign(there.fileno(), block))
        copies = copies_in_new(find_blocks(here.fileno(), signatures), signatures)
        assert copies == [Copy(0, 0, 4 * block)], "misled"
        world.stage.begin_large(name, len(new_data))
        world.stage.fill(name, copies, there.fileno())
    assert not world.stage.finish(name)
    send(world, name, world.stage.missing(name), new_data)
    assert world.stage.finish(name)
    assert read_staged(world, name) == new_data
