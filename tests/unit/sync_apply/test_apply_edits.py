"""Somebody saves at every moment of a transaction: the save is at its path or in the conflict store (X10, X11)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from apply_world import World, digest, file_with, folder_like
from colab_bridge.agent.sync.disk.exchange import LinkExchange, system_exchange
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp, Code
from colab_bridge.agent.sync.disk.place import Calls
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.stage import WrongContent
from faulty_calls import FaultyCalls
from test_apply_faults import plant, shape, transaction

USER = b"what the user has just saved"


def save(root: Path, name: str) -> None:
    """Save as most editors do: a new file takes the name."""
    path = root / name
    if path.is_dir() and not path.is_symlink():
        return
    temporary = root / ".saving"
    temporary.write_bytes(USER)
    try:
        os.replace(temporary, path)
    except OSError:
        # The folder is a file by now: the editor would tell its user, nothing was saved.
        temporary.unlink()


def save_in_place(root: Path, name: str) -> None:
    path = root / name
    if path.is_file() and not path.is_symlink():
        path.write_bytes(USER)


def saved_somewhere(world: World, name: str) -> bool:
    path = world.path / name
    return USER in world.kept or (path.is_file() and path.read_bytes() == USER)


def world_with(base: Path, wrap: Callable[[Calls], Calls]) -> World:
    base.mkdir()
    (base / "root").mkdir()
    plant(base / "root")
    return World.open(base / "root", wrap)


@pytest.mark.parametrize("how", [save, save_in_place])
@pytest.mark.parametrize("name", ["change", "fresh", "typed", "gone", "tree/x", "run.sh", "link", "made", "Name"])
def test_a_save_at_any_moment_is_kept(how: Callable[[Path, str], None], name: str, quick_path: Path) -> None:
    at, total = 0, 1
    while at < total:
        calls: list[FaultyCalls] = []
        world = world_with(quick_path / str(at), lambda real, calls=calls: calls.append(FaultyCalls(real)) or calls[0])
        try:
            ops = transaction(world)
            done: list[bool] = []

            def edit(world: World = world, done: list[bool] = done) -> None:
                how(world.path, name)
                done.append((world.path / name).is_file() and (world.path / name).read_bytes() == USER)

            calls[0].count, calls[0].at, calls[0].before = 0, at, edit
            results = world.applier.apply("txn", ops)
            total = calls[0].count
            where = [name, name.lower()]
            late = [Path(world.path, ".colab-bridge/trash", e.id) for e in world.trash.changed_since("txn")]
            kept = any(saved_somewhere(world, one) for one in where) or USER in [p.read_bytes() for p in late]
            assert kept or done != [True], f"{name} at call {at} ({calls[0].log[at]}) {[r.code for r in results]}"
            assert [left for left in world.staged() if "~" in left] == []
        finally:
            world.close()
        at += 1
    assert total > 60


def test_a_file_deleted_at_any_moment_of_its_change_does_not_come_back_torn(quick_path: Path) -> None:
    at, total = 0, 1
    while at < total:
        calls: list[FaultyCalls] = []
        world = world_with(quick_path / str(at), lambda real, calls=calls: calls.append(FaultyCalls(real)) or calls[0])
        try:
            op = world.write("change", b"change 2", file_with(b"change 1"))
            calls[0].count, calls[0].at = 0, at
            calls[0].before = lambda world=world: (world.path / "change").unlink(missing_ok=True)
            (result,) = world.applier.apply("txn", [op])
            total = calls[0].count
            path = world.path / "change"
            assert not path.exists() or path.read_bytes() == b"change 2"
            assert result.code in {Code.APPLIED, Code.MISSING, Code.FAILED, Code.MOVED}, at
        finally:
            world.close()
        at += 1


class Saver:
    """Saves by exchanging, so it knows which contents it has replaced itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.replaced: list[bytes] = []
        self.saved: list[bytes] = []
        self.holder = Root.open(root)
        self.exchange = system_exchange()

    def save(self, name: str, data: bytes) -> None:
        temporary = self.root / ".saving"
        temporary.write_bytes(data)
        self.saved.append(data)
        try:
            self.exchange.swap(self.holder.top, ".saving", self.holder.top, name)
        except FileNotFoundError:
            os.rename(temporary, self.root / name)
        else:
            self.replaced.append(temporary.read_bytes())
            temporary.unlink()


def two_saves(base: Path, moments: tuple[int, ...], action: Action) -> int:
    """Carry out one operation while somebody saves at these calls; returns the number of calls."""
    calls: list[FaultyCalls] = []
    base.mkdir()
    (base / "root").mkdir()
    (base / "root" / "f").write_bytes(b"old")
    world = World.open(base / "root", lambda real: calls.append(FaultyCalls(real)) or calls[0])
    saver = Saver(world.path)
    try:
        expected = file_with(b"old")
        op = ApplyOp(action, "f", expected) if action is Action.DELETE else world.write("f", b"new", expected)
        calls[0].count, calls[0].moments = 0, moments
        calls[0].before = lambda: saver.save("f", b"user %d" % len(saver.saved))
        (result,) = world.applier.apply("t", [op])
        total, calls[0].moments = calls[0].count, ()
        path = world.path / "f"
        now = path.read_bytes() if path.exists() else b""
        trashed = {entry.path: entry.why for entry in world.trash.list()}
        for data in saver.saved:
            assert data in saver.replaced or data == now or data in world.kept, (data, moments, result.code, trashed)
        if 0 < len(moments) <= 2 and saver.saved:
            assert now == saver.saved[-1], "the newest save stands at the path"
        everything = [now, *saver.replaced, *world.kept, *world.trashed().values()]
        assert b"old" in everything
        assert [left for left in world.staged() if "~" in left] == []
    finally:
        saver.holder.close()
        world.close()
    return total


@pytest.mark.parametrize("action", [Action.WRITE, Action.DELETE])
def test_two_saves_at_any_two_moments_are_both_accounted_for(action: Action, quick_path: Path) -> None:
    total = two_saves(quick_path / "dry", (), action)
    for one in range(total):
        for two in range(one + 1, total + 8):
            two_saves(quick_path / f"{one}-{two}", (one, two), action)


def test_a_save_at_every_moment_is_accounted_for(quick_path: Path) -> None:
    for action in (Action.WRITE, Action.DELETE):
        two_saves(quick_path / action.value, tuple(range(500)), action)


def test_an_editor_that_still_holds_the_old_file_is_noticed_at_the_next_barrier(world: World) -> None:
    (world.path / "a").write_bytes(b"one")
    with (world.path / "a").open("r+b", buffering=0) as editor:
        world.applier.apply("t", [world.write("a", b"two", file_with(b"one"))])
        assert world.trash.changed_since("t") == []
        editor.write(b"ONE")
    (entry,) = world.trash.changed_since("t")
    assert (entry.path, world.trashed()) == ("a", {"a": b"ONE"})
    assert world.text("a") == b"two"
    assert world.trash.changed_since("t") == [], "told once"


def test_a_late_write_into_a_replaced_folder_is_noticed(world: World) -> None:
    (world.path / "d").mkdir()
    (world.path / "d" / "f").write_bytes(b"one")
    with (world.path / "d" / "f").open("r+b", buffering=0) as editor:
        world.applier.apply("t", [world.write("d", b"file", folder_like(world.path / "d"))])
        assert world.trash.changed_since("t") == []
        editor.write(b"ONE")
    assert [entry.path for entry in world.trash.changed_since("t")] == ["d"]


def test_a_touch_in_the_trash_is_no_late_write(world: World) -> None:
    (world.path / "a").write_bytes(b"one")
    world.applier.apply("t", [world.write("a", b"two", file_with(b"one"))])
    (entry,) = world.trash.list()
    os.utime(world.path / ".colab-bridge/trash" / entry.id)
    assert world.trash.changed_since("t") == []


class ActingCalls(Calls):
    """Lets somebody act after the first file was placed."""

    act: Callable[[], None] | None = None

    def place(self, *args: object) -> None:
        super().place(*args)  # type: ignore[arg-type]
        act, self.act = self.act, None
        if act is not None:
            act()


@pytest.mark.parametrize("swap_to", ["link", "folder"])
def test_a_folder_that_becomes_a_link_or_another_folder_is_noticed(swap_to: str, tmp_path: Path) -> None:
    """Between two operations in one folder it is moved out of the root, and something else takes its name."""
    outside = tmp_path / "outside"
    (tmp_path / "root" / "d").mkdir(parents=True)
    calls: list[ActingCalls] = []
    world = World.open(tmp_path / "root", lambda real: calls.append(ActingCalls(real.exchange)) or calls[0])
    try:

        def replace() -> None:
            os.rename(world.path / "d", outside)
            if swap_to == "link":
                os.symlink(outside, world.path / "d")
            else:
                (world.path / "d").mkdir()

        ops = [world.write("d/one", b"1"), world.write("d/two", b"2")]
        calls[0].act = replace
        results = world.applier.apply("t", ops)
        assert os.listdir(outside) == ["one"], "what came later is not written outside"
        if swap_to == "link":
            assert results[1].code is Code.IN_THE_WAY
        else:
            assert world.text("d/two") == b"2"
    finally:
        world.close()


@pytest.mark.parametrize("plan", ["write", "mkdir", "link", "delete"])
def test_a_planted_link_is_never_followed(plan: str, world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"victim")
    os.symlink(outside, world.path / "a")
    os.symlink(outside / "victim", world.path / "leaf")
    before = shape(outside)
    ops = {
        "write": [world.write("a/victim", b"evil", file_with(b"victim")), world.write("a/new", b"evil")],
        "mkdir": [ApplyOp(Action.MKDIR, "a/d"), ApplyOp(Action.RMDIR, "a")],
        "link": [ApplyOp(Action.LINK, "a/l", target="x")],
        "delete": [ApplyOp(Action.DELETE, "a/victim", file_with(b"victim"))],
    }[plan]
    leaf = [
        world.write("leaf", b"evil", file_with(b"victim")),
        ApplyOp(Action.EXEC, "leaf", file_with(b"victim"), executable=True),
        ApplyOp(Action.DELETE, "leaf", file_with(b"victim")),
    ]
    results = world.applier.apply("t", [*ops, *leaf])
    assert not any(result.ok for result in results)
    assert shape(outside) == before
    assert (outside / "victim").stat().st_mode & 0o111 == 0
    assert os.path.islink(world.path / "leaf")


def test_contents_are_found_by_digest_only_and_wrong_bytes_are_never_staged(world: World) -> None:
    with pytest.raises(WrongContent):
        world.stage.put(digest(b"right"), b"wrong")
    assert world.staged() == []


def test_the_fallback_without_an_exchange_does_the_same_operations(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    plant(tmp_path / "root")

    def degrade(real: Calls) -> Calls:
        return Calls(LinkExchange())

    world = World.open(tmp_path / "root", degrade)
    try:
        results = world.applier.apply("t", transaction(world))
        assert [result.code for result in results] == [Code.APPLIED] * len(results)
        assert world.text("change") == b"change 2"
        assert world.trashed()["change"] == b"change 1"
        assert world.staged() == []
    finally:
        world.close()


FEW_DESCRIPTORS = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from apply_world import World, file_with
from colab_bridge.agent.sync.disk.ops import Action, ApplyOp
world = World.open(Path(sys.argv[1]))
deep = [str(n) for n in range(60)]
folders = [ApplyOp(Action.MKDIR, "/".join(deep[:n])) for n in range(1, 61)]
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
path = "/".join(deep)
one = world.applier.apply("one", [*folders, world.write(path + "/f", b"1"), world.write(path + "/g", b"2")])
two = world.applier.apply("two", [world.write(path + "/f", b"3", file_with(b"1"))])
assert all(result.ok for result in (*one, *two)), [r.code for r in (*one, *two)]
world.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_few_descriptors_make_it_slower_and_not_wrong(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path / "root"), here], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "root" / "/".join(map(str, range(60))) / "f").read_bytes() == b"3"
