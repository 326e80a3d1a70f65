"""Two real folders, the real files service, and everything of the daemon between them, in one process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from colab_bridge.ports.clock import SystemClock
from colab_bridge.sync.base import SyncStore
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.inprocess import InProcessCaller
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.remote import RemoteFiles


class Pair:
    def __init__(self, tmp: Path, *, options: PairOptions | None = None, watch: bool = True) -> None:
        self.tmp = tmp
        self.here = tmp / "home" / "project"
        self.there = tmp / "runtime" / "workspace"
        self.here.mkdir(parents=True, exist_ok=True)
        self.there.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.local_options = LocalOptions(watch=watch)
        self.wrap = lambda caller: caller

    async def start(self) -> None:
        clock = SystemClock()
        self.local = LocalSide(self.here, self.tmp / "state", clock, self.local_options)
        self.store = SyncStore(self.tmp / "state" / "pair.db", clock.time())
        self.caller = InProcessCaller(self.tmp / "agent", self.tmp / "runtime")
        self.remote = RemoteFiles(self.wrap(self.caller), root=str(self.there), key=self.local.key)
        self.sync = SyncController("s", self.local, self.remote, self.store, clock, self.options)

    async def stop(self) -> None:
        await self.caller.aclose()
        await self.local.aclose()
        self.store.close()

    async def new_machine(self) -> None:
        """The runtime is replaced by an empty one."""
        await self.caller.aclose()
        self.there.rename(self.tmp / "runtime" / f"old-{os.urandom(3).hex()}")
        self.there.mkdir()
        self.caller = InProcessCaller(self.tmp / "agent2", self.tmp / "runtime")
        self.remote._caller = self.wrap(self.caller)
        self.sync.link_lost()

    def kept(self) -> dict[str, str]:
        copies = self.local.copies
        return {c.path: copies.path_of(c).read_bytes().decode() for c in self.local.store.copies()}


@contextlib.asynccontextmanager
async def open_pair(tmp: Path, **options):
    pair = Pair(tmp, **options)
    await pair.start()
    try:
        yield pair
    finally:
        await pair.stop()


def tree_of(root: Path) -> dict[str, str]:
    """Return path to content for files, `-> target` for links, `/` for empty folders; `!` marks executables."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(root):
        if ".colab-bridge" in folders:
            folders.remove(".colab-bridge")
        where = Path(folder)
        for name in [*folders]:
            if (where / name).is_symlink():
                folders.remove(name)
                files.append(name)
        if not folders and not files and where != root:
            found[where.relative_to(root).as_posix() + "/"] = ""
        for name in files:
            path = where / name
            key = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[key] = f"-> {os.readlink(path)}"
            else:
                mark = "!" if path.stat().st_mode & 0o100 else ""
                found[key + mark] = path.read_bytes().decode("utf-8", "replace")
    return found
