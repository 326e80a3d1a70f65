"""The trash: what was taken out can be listed, brought back and pruned (N09, N10)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apply_world import World, digest, file_with, folder_like
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp
from colab_bridge.agent.sync.disk.trash import TrashFault


def delete(world: World, txn: str, path: str, data: bytes) -> str:
    (world.path / path).parent.mkdir(parents=True, exist_ok=True)
    (world.path / path).write_bytes(data)
    (result,) = world.applier.apply(txn, [ApplyOp(Action.DELETE, path, file_with(data))])
    assert result.ok
    return next(entry.id for entry in world.trash.list() if entry.id.startswith(f"{txn}/"))


def test_an_entry_tells_where_it_stood_and_why_it_went(world: World) -> None:
    delete(world, "t1", "d/a", b"one")
    (entry,) = world.trash.list()
    assert (entry.path, entry.why, entry.kind, entry.size, entry.digest) == ("d/a", "delete", "file", 3, digest(b"one"))


def test_what_was_deleted_is_restored_with_its_folders(world: World) -> None:
    entry = delete(world, "t1", "d/e/a", b"one")
    (world.path / "d/e").rmdir()
    (world.path / "d").rmdir()
    assert world.trash.restore(entry) == "d/e/a"
    assert world.text("d/e/a") == b"one"
    assert world.trash.list() == []


def test_nothing_is_overwritten_by_a_restore(world: World) -> None:
    entry = delete(world, "t1", "a", b"one")
    (world.path / "a").write_bytes(b"new")
    with pytest.raises(TrashFault) as fault:
        world.trash.restore(entry)
    assert fault.value.code == "exists"
    assert world.trash.restore(entry, "a.old") == "a.old"
    assert (world.text("a"), world.text("a.old")) == (b"new", b"one")


@pytest.mark.parametrize("bad", ["t1/7", "nothing/0", "../../etc/0", "t1/manifest", "t1", "", "t1/../t1/0"])
def test_an_id_that_is_none_is_a_fault(bad: str, world: World) -> None:
    delete(world, "t1", "a", b"one")
    with pytest.raises(TrashFault) as fault:
        world.trash.restore(bad)
    assert fault.value.code == "missing"


@pytest.mark.parametrize("to", ["../out", "/tmp/out", ".colab-bridge/x", "a/../../out", "link/x"])
def test_a_restore_never_leaves_the_root(to: str, world: World, tmp_path: Path) -> None:
    entry = delete(world, "t1", "a", b"one")
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", world.path / "link")
    with pytest.raises(TrashFault):
        world.trash.restore(entry, to)
    assert os.listdir(tmp_path / "outside") == []
    assert [found.id for found in world.trash.list()] == [entry]


def test_a_whole_folder_comes_back(world: World) -> None:
    (world.path / "d" / "e").mkdir(parents=True)
    (world.path / "d" / "e" / "f").write_bytes(b"deep")
    world.applier.apply("t", [world.write("d", b"file", folder_like(world.path / "d"))])
    world.trash.restore(world.trash.list()[0].id, "back")
    assert world.text("back/e/f") == b"deep"


def test_the_oldest_goes_first_and_what_must_stay_stays(world: World) -> None:
    for number in range(4):
        delete(world, f"t{number}", f"f{number}", bytes(100))
        manifest = world.path / f".colab-bridge/trash/t{number}/manifest"
        manifest.write_text(manifest.read_text().replace('"t": ', f'"t": {1000 + number} , "was": '))
    freed = world.trash.prune(max_bytes=250, max_age_s=10_000, keep=["t0"], now_s=2000)
    assert freed == 200
    assert sorted(entry.id for entry in world.trash.list()) == ["t0/0", "t3/0"]
    assert world.trash.prune(max_bytes=10_000, max_age_s=10, keep=["t0"], now_s=2000) == 100
    assert world.trash.transactions() == ["t0"]


def test_pruning_follows_no_link(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"1")
    (world.path / "d").mkdir()
    os.symlink(outside, world.path / "d" / "l")
    world.applier.apply("t", [world.write("d", b"file", folder_like(world.path / "d"))])
    world.trash.prune(max_bytes=0, max_age_s=0, now_s=10**12)
    assert world.trash.list() == []
    assert (outside / "precious").read_bytes() == b"1"


def test_a_damaged_manifest_hides_no_object(world: World) -> None:
    delete(world, "t1", "a", b"one")
    (world.path / ".colab-bridge/trash/t1/manifest").write_bytes(b'{"n": 0, "pa\n\xff\xfe\n[1]\n"x"\n{"n": "z"}')
    (entry,) = world.trash.list()
    assert entry.path == ""
    assert world.trash.restore(entry.id, "back") == "back"
    assert world.text("back") == b"one"


def test_contents_of_the_trash_can_be_used_again(world: World) -> None:
    entry = delete(world, "t1", "a", b"one")
    assert world.trash.contents() == {digest(b"one"): entry}
    fd = world.trash.open(entry)
    assert world.stage.take_copy(digest(b"one"), fd)
    os.close(fd)


@pytest.mark.parametrize("txn", ["", ".", "..", "a/b", "-x", "x" * 81, "a\0"])
def test_a_transaction_with_a_bad_name_is_refused(txn: str, world: World) -> None:
    with pytest.raises(ValueError, match="name"):
        world.applier.apply(txn, [])


def test_a_transaction_that_only_creates_leaves_no_part_in_the_trash(world: World) -> None:
    world.applier.apply("t", [world.write("a", b"1")])
    assert world.trash.transactions() == []
