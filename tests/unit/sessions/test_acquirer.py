"""Whoever waits for a machine is told of the end of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.errors import QuotaError, TransientError
from colab_bridge.model.jobs import WaitEnd
from colab_bridge.model.records import Session
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.providers.registry import ProviderRegistry
from colab_bridge.sessions.acquirer import Acquirer
from colab_bridge.sessions.starts import caller_is
from scripted_upstream import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Machines:
    """A provider that gives a machine, refuses one, or never answers."""

    name = "machines"

    def __init__(self, _folder: Path) -> None:
        self.refusal: Exception | None = None
        self.asked = anyio.Event()
        self.answers = True

    async def acquire(self, _request: RuntimeRequest) -> RuntimeHandle:
        self.asked.set()
        if not self.answers:
            await anyio.sleep_forever()
        if self.refusal is not None:
            raise self.refusal
        return RuntimeHandle(provider=self.name, id="m-1", label="a machine")

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        raise NotImplementedError

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        raise NotImplementedError

    async def release(self, handle: RuntimeHandle) -> None:
        raise NotImplementedError


class Scene:
    """An acquirer, the machines that it asks for, and the ends of waits that it tells."""

    def __init__(self, folder: Path) -> None:
        providers = ProviderRegistry(folder, {"machines": Machines})
        found = providers.get("machines")
        assert isinstance(found, Machines)
        self.machines = found
        self.acquirer = Acquirer(providers, ManualClock(1000.0))
        self.told: list[WaitEnd] = []
        self.acquirer.on_waited(self.told.append)

    async def acquire(self, **options: Any) -> RuntimeHandle:
        return await self.acquirer.acquire(Session(name="s", project="/p", provider="machines", options=options), {})


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_machine_that_was_waited_for_is_told(scene: Scene) -> None:
    await scene.acquire(wait_s=60.0)
    assert [(end.session, end.label, end.problem) for end in scene.told] == [("s", "a machine", "")]


async def test_a_wait_that_gave_up_is_told_with_its_reason(scene: Scene) -> None:
    scene.machines.refusal = QuotaError("none is free", hint="try later")
    with pytest.raises(QuotaError):
        await scene.acquire(wait_s=60.0)
    assert [(end.label, end.problem) for end in scene.told] == [("", "none is free")]


async def test_who_does_not_wait_is_told_nothing(scene: Scene) -> None:
    await scene.acquire()
    assert scene.told == []


async def test_a_caller_who_hangs_up_is_told_nothing(scene: Scene) -> None:
    scene.machines.answers = False
    gone = anyio.Event()

    async def hang_up() -> None:
        await scene.machines.asked.wait()
        gone.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hang_up)
        with caller_is(gone), anyio.fail_after(5), pytest.raises(TransientError):
            await scene.acquire(wait_s=60.0)
    assert scene.told == []
