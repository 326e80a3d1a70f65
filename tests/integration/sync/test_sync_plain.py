"""A Jupyter server without an agent: whole files through its own file API."""

from __future__ import annotations

import shutil

import pytest

from colab_bridge.errors import UserError
from colab_bridge.kernels.rest import JupyterServer
from colab_bridge.ports.clock import SystemClock
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.contents import ContentsCaller, has_contents
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.failures import FailureKind, SyncFailure
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync.moves import FileMover
from colab_bridge.sync.remote import RemoteFiles
from colab_bridge.testing.jupyter import start_jupyter_server
from sync_pair import tree_of


class Plain:
    """A project here and a workspace on a real server that only its REST API reaches."""

    def __init__(self, tmp_path, server):
        self.here = tmp_path / "project"
        self.here.mkdir()
        self.there = server.root_dir / "colab-bridge" / "w-1"
        self.caller = ContentsCaller(JupyterServer(server.endpoint()), "colab-bridge/w-1", tmp_path / "plain")
        clock = SystemClock()
        self.local = LocalSide(self.here, tmp_path / "state", clock, LocalOptions())
        self.store = SyncStore(tmp_path / "state" / "pair.db", clock.time())
        remote = RemoteFiles(self.caller, root="", key=self.local.key)
        self.sync = SyncController("s", self.local, remote, self.store, clock)

    async def close(self):
        await self.caller.aclose()
        await self.local.aclose()
        self.store.close()


@pytest.fixture(scope="module")
async def server(anyio_backend, tmp_path_factory):
    async with start_jupyter_server(tmp_path_factory.mktemp("plain-server")) as child:
        yield child


@pytest.fixture
async def plain(server, tmp_path):
    shutil.rmtree(server.root_dir / "colab-bridge", ignore_errors=True)
    found = Plain(tmp_path, server)
    try:
        yield found
    finally:
        await found.close()


@pytest.mark.anyio
async def test_a_server_says_whether_it_has_files(server):
    rest = JupyterServer(server.endpoint())
    assert await has_contents(rest)
    await rest.aclose()


@pytest.mark.anyio
async def test_files_go_both_ways_as_a_whole_and_deletions_go_to_the_trash(plain):
    (plain.here / "data").mkdir()
    (plain.here / "data" / "in.csv").write_text("1,2\n")
    (plain.here / "big.bin").write_bytes(bytes(range(256)) * 40_000)
    await plain.sync.sync("sync")
    assert (plain.there / "data" / "in.csv").read_text() == "1,2\n"
    assert (plain.there / "big.bin").read_bytes() == (plain.here / "big.bin").read_bytes()
    (plain.there / "out").mkdir()
    (plain.there / "out" / "result.txt").write_text("42")
    (plain.there / "data" / "in.csv").write_text("3,4\n")
    (plain.there / "big.bin").unlink()
    report = await plain.sync.sync("post")
    assert sorted(report.down) == ["big.bin", "data/in.csv", "out/result.txt"]
    assert tree_of(plain.here) == {"data/in.csv": "3,4\n", "out/result.txt": "42"}
    assert sorted(entry.path for entry in plain.local.folder.trash.list()) == ["big.bin", "data/in.csv"]
    (plain.here / "out" / "result.txt").unlink()
    (plain.here / "data" / "in.csv").write_text("5,6\n")
    await plain.sync.sync("pre")
    assert tree_of(plain.here) == {"data/in.csv": "5,6\n", "out/": ""}
    # The server keeps its checkpoints where it likes.
    assert [path for path in tree_of(plain.there) if "checkpoints" not in path] == ["data/in.csv"]
    assert (await plain.sync.sync("pre")).line == (await plain.sync.sync("post")).line == ""


@pytest.mark.anyio
async def test_what_both_sides_changed_is_kept_in_both_versions(plain):
    (plain.here / "a.txt").write_text("base")
    await plain.sync.sync("sync")
    (plain.here / "a.txt").write_text("mine")
    (plain.there / "a.txt").write_text("theirs")
    await plain.sync.sync("post")
    assert (plain.here / "a.txt").read_text() == (plain.there / "a.txt").read_text() == "mine"
    (copy,) = plain.local.store.copies()
    assert plain.local.copies.path_of(copy).read_text() == "theirs"


@pytest.mark.anyio
async def test_a_server_that_lost_the_workspace_deletes_nothing_at_home(plain):
    (plain.here / "a.txt").write_text("a")
    (plain.here / "b.txt").write_text("b")
    await plain.sync.sync("sync")
    shutil.rmtree(plain.there)
    plain.sync.link_lost()
    await plain.sync.sync("sync")
    assert tree_of(plain.here) == tree_of(plain.there) == {"a.txt": "a", "b.txt": "b"}


@pytest.mark.anyio
async def test_a_server_that_refuses_a_file_fails_the_sync_and_the_next_one_brings_it_up(plain):
    (plain.here / "a.txt").write_text("a")
    await plain.sync.sync("sync")
    (plain.here / "a.txt").write_text("new")
    (plain.here / "dir").write_text("a file here")
    (plain.there / "dir").mkdir()
    shutil.rmtree(plain.there)
    plain.there.write_text("no folder any more")
    with pytest.raises(SyncFailure) as caught:
        await plain.sync.sync("pre")
    assert caught.value.kind in {FailureKind.DISK, FailureKind.HELD}
    plain.there.unlink()
    plain.sync.link_lost()
    await plain.sync.sync("sync")
    assert tree_of(plain.here) == tree_of(plain.there) == {"a.txt": "new", "dir": "a file here"}


@pytest.mark.anyio
async def test_the_status_says_what_is_missing_and_single_files_stay_in_the_workspace(plain, tmp_path):
    (plain.here / "a.txt").write_text("a")
    await plain.sync.sync("sync")
    assert "no agent here" in plain.sync.remote.info.degraded[-1]
    mover = FileMover(caller=plain.caller, base=plain.caller.mirror)
    source = tmp_path / "up.txt"
    source.write_text("up")
    await mover.upload(source, "sub/up.txt")
    assert (plain.there / "sub" / "up.txt").read_text() == "up"

    for path in ("/etc/hostname", "../x", ".colab-bridge/root-id"):
        with pytest.raises(UserError, match="only files of the workspace"):
            await mover.entries(path)
