"""Two real folders, the real files service, and everything of the daemon between them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from colab_bridge.agent.sync.disk.place import make_calls
from colab_bridge.agent.sync.disk.root import Root
from colab_bridge.agent.sync.disk.trash import Trash
from colab_bridge.agent.sync.service import FilesService
from colab_bridge.ports.clock import Clock, SystemClock
from colab_bridge.sync.base import CopyKind, SyncStore
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.local import LocalOptions, LocalSide
from colab_bridge.sync.options import PairOptions
from colab_bridge.sync.remote import RemoteFiles
from sync_ways import DirectWay


class Pair:
    """One session's pair of folders below a temporary folder.

    Attributes:
        here: The project.
        there: The workspace.
        way: How the controller reaches the service.
        wrap: Put around the caller; tests lie or fail there.
    """

    def __init__(
        self,
        tmp: Path,
        *,
        options: PairOptions | None = None,
        watch: bool = True,
        way: Any = None,
        local_options: LocalOptions | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.tmp = tmp
        self.here = tmp / "home" / "project"
        self.there = tmp / "runtime" / "workspace"
        self.here.mkdir(parents=True, exist_ok=True)
        self.there.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.local_options = local_options or LocalOptions(watch=watch)
        self.way = way or DirectWay()
        self.clock = clock or SystemClock()
        self.wrap = lambda caller: caller
        self._agents = 0

    async def start(self) -> None:
        self.local = LocalSide(self.here, self.tmp / "state", self.clock, self.local_options)
        self.store = SyncStore(self.tmp / "state" / "pair.db", self.clock.time())
        self.caller = await self._open_way()
        self.remote = RemoteFiles(self.wrap(self.caller), root=str(self.there), key=self.local.key)
        self.sync = SyncController("s", self.local, self.remote, self.store, self.clock, self.options)

    async def _open_way(self) -> Any:
        self._agents += 1
        if hasattr(self.way, "roots"):
            self.way.roots.add(str(self.there))
        return await self.way.open(self.tmp / f"agent{self._agents}", self.tmp / "runtime")

    @property
    def service(self) -> FilesService:
        """The runtime's service, where it runs in this process."""
        service: FilesService = self.way.service
        return service

    async def stop(self) -> None:
        await self.way.aclose()
        await self.local.aclose()
        self.store.close()

    async def new_agent(self) -> None:
        """The agent is started anew."""
        await self.way.aclose()
        self.caller = await self._open_way()
        self.remote._caller = self.wrap(self.caller)
        self.sync.link_lost()

    async def new_machine(self) -> None:
        """The runtime is replaced by an empty one."""
        await self.way.aclose()
        self.there.rename(self.tmp / "runtime" / f"old-{os.urandom(3).hex()}")
        self.there.mkdir()
        await self.new_agent()

    def kept(self, *, reviews: bool = False) -> dict[str, str]:
        """Content of the conflict store by path; also what is there to be reviewed, if wanted."""
        copies = self.local.copies
        return {
            c.path: copies.path_of(c).read_bytes().decode("utf-8", "replace")
            for c in self.local.store.copies()
            if reviews or c.kind != CopyKind.REVIEW
        }

    def trashed(self, side: Path) -> set[tuple[str, str]]:
        """Pairs of path and content in the trash of one side, read from the disk."""
        found: set[tuple[str, str]] = set()
        with Root.open(side, any_owner=True) as root:
            trash = Trash(root, self.local.key, make_calls(root))
            try:
                for entry in trash.list():
                    place = root.state / "trash" / entry.id
                    if entry.kind == "file":
                        found.add((entry.path, _text(place)))
                    elif entry.kind == "folder":
                        below = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
                        found |= {(f"{entry.path}/{p.relative_to(place).as_posix()}", _text(p)) for p in below}
            finally:
                trash.close()
        return found

    def contents(self) -> set[str]:
        """Everything that a user can get at: both trees, both trashes, the conflict store."""
        found = set(self.kept().values())
        for side in (self.here, self.there):
            found |= set(tree_of(side).values()) | {text for _, text in self.trashed(side)}
        return found

    def owed(self) -> set[str]:
        """Content that a process left in a stage when it died between two moves; the next start brings it back."""
        found: set[str] = set()
        for side in (self.here, self.there):
            for place in (side / ".colab-bridge" / "stage").iterdir():
                if "~" in place.name and not place.name.startswith("new~"):
                    found |= {_text(path) for path in (place, *place.rglob("*")) if path.is_file()}
        return found


@contextlib.asynccontextmanager
async def open_pair(tmp: Path, **options: Any) -> AsyncIterator[Pair]:
    pair = Pair(tmp, **options)
    await pair.start()
    try:
        yield pair
    finally:
        await pair.stop()


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


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
            elif path.is_file():
                mark = "!" if path.stat().st_mode & 0o100 else ""
                found[key + mark] = _text(path)
            else:
                found[key] = "special"
    return found
