"""The file sync and single files over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.types import Receive, Scope, Send

from colab_bridge.app import App
from colab_bridge.errors import ColabBridgeError, InternalError
from colab_bridge.execution.request import absolute_path
from colab_bridge.sync.moves import Tell
from colab_bridge.sync.service import SyncService
from colab_bridge.sync_core.model import Side

__all__ = ["sync_router"]

_MOST_EVENTS = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DecideBody(_Strict):
    """Which holds are decided."""

    ids: list[str] = Field(default_factory=list, max_length=1000)
    all: bool = False


class SyncBody(_Strict):
    """How a sync is wanted."""

    wait_all: bool = True


class ResolveBody(_Strict):
    """Which conflicts are settled, and how."""

    id: str = Field(default="", max_length=4096)
    all: bool = False
    take: Literal["kept", "current"]


class PathBody(_Strict):
    """A path relative to the project."""

    path: str = Field(min_length=1, max_length=4096)


class RestoreBody(_Strict):
    """What comes back from the trash."""

    id: str = Field(max_length=200)
    side: Literal["local", "remote"] = "local"
    to: str | None = Field(default=None, max_length=4096)


class MoveBody(_Strict):
    """A copy between this machine (absolute path) and the runtime."""

    local: str
    remote: str = Field(max_length=4096)

    _local = field_validator("local")(absolute_path)


def sync_router(app: App) -> APIRouter:
    """Return the routes below ``/sessions/{name}/sync`` and ``/sessions/{name}/files``."""
    router = APIRouter(prefix="/sessions/{name}")
    service = SyncService(app.sync, app.clock)
    _sync_routes(router, service)
    _decision_routes(router, service)
    _file_routes(router, service)
    return router


def _sync_routes(router: APIRouter, service: SyncService) -> None:
    @router.get("/sync")
    async def status(name: str) -> dict[str, Any]:
        return await service.status(name)

    @router.post("/sync")
    async def now(name: str, body: SyncBody) -> dict[str, Any]:
        return await service.sync(name, wait_all=body.wait_all)

    @router.get("/sync/diff")
    async def diff(name: str) -> dict[str, Any]:
        return await service.diff(name)

    @router.post("/sync/pause")
    async def pause(name: str) -> dict[str, Any]:
        return await service.pause(name, on=True)

    @router.post("/sync/resume")
    async def resume(name: str) -> dict[str, Any]:
        return await service.pause(name, on=False)

    @router.get("/sync/history")
    async def history(name: str, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> dict[str, Any]:
        return await service.history(name, limit)

    @router.post("/sync/bench")
    async def bench(name: str) -> dict[str, Any]:
        return await service.bench(name)

    @router.post("/sync/include")
    async def include(name: str, body: PathBody) -> dict[str, Any]:
        return await service.include(name, body.path)


def _decision_routes(router: APIRouter, service: SyncService) -> None:
    @router.post("/sync/approve")
    async def approve(name: str, body: DecideBody) -> dict[str, Any]:
        return await service.decide(name, body.ids, everything=body.all, approve=True)

    @router.post("/sync/reject")
    async def reject(name: str, body: DecideBody) -> dict[str, Any]:
        return await service.decide(name, body.ids, everything=body.all, approve=False)

    @router.get("/sync/conflicts")
    async def conflicts(name: str) -> dict[str, Any]:
        return await service.conflicts(name)

    @router.post("/sync/resolve")
    async def resolve(name: str, body: ResolveBody) -> dict[str, Any]:
        return await service.resolve(name, body.id, everything=body.all, take=body.take)

    @router.get("/sync/trash")
    async def trash(name: str, side: Literal["local", "remote"] = "local") -> dict[str, Any]:
        return await service.trash(name, Side(side))

    @router.post("/sync/trash/restore")
    async def restore(name: str, body: RestoreBody) -> dict[str, Any]:
        return await service.restore(name, body.id, Side(body.side), body.to)


def _file_routes(router: APIRouter, service: SyncService) -> None:
    @router.get("/files")
    async def listing(name: str, file: Annotated[str, Query(max_length=4096)] = ".") -> dict[str, Any]:
        return await (await service.mover(name)).entries(file)

    @router.delete("/files")
    async def remove(
        name: str, file: Annotated[str, Query(min_length=1, max_length=4096)], recursive: bool = False
    ) -> dict[str, Any]:
        return await service.remove(name, file, recursive=recursive)

    @router.post("/files/upload", response_model=None)
    async def upload(name: str, body: MoveBody) -> Response:
        return ProgressResponse(lambda tell: service.upload(name, body.local, body.remote, tell))

    @router.post("/files/download", response_model=None)
    async def download(name: str, body: MoveBody) -> Response:
        return ProgressResponse(lambda tell: service.download(name, body.remote, body.local, tell))


class ProgressResponse(Response):
    """Streams the progress of a piece of work as NDJSON; its result, or its problem, is the last line.

    Args:
        work: Does it; told where to report progress.
    """

    media_type = "application/x-ndjson"

    def __init__(self, work: Callable[[Tell], Awaitable[dict[str, Any]]]) -> None:
        super().__init__(status_code=200)
        self._work = work
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; ASGI's entry point. A reader who goes away ends the work; what has come is kept."""
        del scope
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        work = asyncio.ensure_future(self._run())
        gone = asyncio.ensure_future(_until_gone(receive))
        gone.add_done_callback(lambda _: work.cancel())
        try:
            while (event := await self._events.get()) is not None:
                line = json.dumps(event, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
        finally:
            work.cancel()
            gone.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _run(self) -> None:
        """Task root of the work."""
        try:
            result = await self._work(self._tell)
            self._events.put_nowait({"type": "done", **result})
        except ColabBridgeError as error:
            self._events.put_nowait({"type": "failed", "problem": error.to_problem()})
        except OSError as error:
            problem = InternalError(f"{error.strerror or error}: {error.filename or ''}", hint="Check that path.")
            self._events.put_nowait({"type": "failed", "problem": problem.to_problem()})
        finally:
            self._events.put_nowait(None)

    def _tell(self, path: str, done: int, size: int) -> None:
        if self._events.qsize() < _MOST_EVENTS:
            self._events.put_nowait({"type": "progress", "path": path, "done": done, "size": size})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
