"""Who is attached to a kernel, and what happens when they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from colab_bridge.errors import ColabBridgeError, RuntimeLostError, TransientError
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.model.records import KernelPurpose, KernelRecord
from colab_bridge.sessions.frontends import FrontEnds
from scripted_upstream import ManualClock, Scene, idle, reply, request


class Pool:
    """The part of the kernel pool that front ends need, with hubs over scripted links."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self._folder, self._clock = folder, clock
        self.scenes: dict[str, Scene] = {}
        self.records: dict[str, KernelRecord] = {}
        self.deleted: list[str] = []
        self.fail: BaseException | None = None
        self._listeners: list[Callable[[KernelRecord, HubKernel], None]] = []

    def add(self, kernel: str, purpose: KernelPurpose = KernelPurpose.FRONTEND, **identity: Any) -> Scene:
        scene = Scene(self._folder / kernel, clock=self._clock)
        scene.hub._on_state = lambda hub: [listener(self.records[kernel], hub) for listener in self._listeners]
        self.scenes[kernel] = scene
        self.records[kernel] = KernelRecord(
            id=kernel,
            session="s",
            remote_id="r",
            ws_session_id="w",
            purpose=purpose,
            key="k",
            spec="python3",
            identity=identity,
        )
        scene.connect()
        return scene

    def on_state(self, listener: Callable[[KernelRecord, HubKernel], None]) -> None:
        self._listeners.append(listener)

    def kernels(self, _session: str | None = None) -> list[KernelRecord]:
        return list(self.records.values())

    def kernel(self, kernel_id: str) -> KernelRecord:
        if kernel_id not in self.records:
            raise RuntimeLostError("it does not exist", hint="")
        return self.records[kernel_id]

    def hub(self, kernel_id: str) -> HubKernel:
        return self.scenes[self.kernel(kernel_id).id].hub

    async def delete(self, kernel_id: str) -> None:
        if self.fail is not None:
            raise self.fail
        self.deleted.append(kernel_id)
        self.records.pop(kernel_id, None)


async def scene_of(
    tmp_path: Path,
    play: Callable[[Pool, FrontEnds, ManualClock], Any],
    *,
    fail: BaseException | None = None,
    pauses_s: tuple[float, ...] = (),
) -> Pool:
    clock = ManualClock()
    pool = Pool(tmp_path, clock)
    pool.fail = fail
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            stopping = anyio.Event()
            ends = FrontEnds(pool, clock, tasks, stopping, pauses_s=pauses_s)  # type: ignore[arg-type]  # what it needs
            await play(pool, ends, clock)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    return pool


async def test_an_idle_kernel_goes_with_its_front_end(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k")
        async with ends.attached("k"):
            pass

    assert (await scene_of(tmp_path, play)).deleted == ["k"]


async def test_a_kernel_that_another_front_end_uses_stays(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k")
        async with ends.attached("k"):
            async with ends.attached("k"):
                pass
            await anyio.wait_all_tasks_blocked()
            assert pool.deleted == []

    assert (await scene_of(tmp_path, play)).deleted == ["k"]


async def test_a_busy_kernel_goes_once_its_work_is_done(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        scene = pool.add("k")
        async with ends.attached("k"):
            scene.hub.submit(request("a"))
        await anyio.wait_all_tasks_blocked()
        assert pool.deleted == []
        scene.say(reply("a"), idle("a"))

    assert (await scene_of(tmp_path, play)).deleted == ["k"]


async def test_work_that_waits_behind_other_work_is_waited_for(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        scene = pool.add("k")
        async with ends.attached("k"):
            scene.hub.submit(request("a"))
            scene.hub.submit(request("b"))
        scene.say(reply("a"), idle("a"))

    assert (await scene_of(tmp_path, play)).deleted == []


async def test_always_keeps_an_idle_kernel(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k", reattach="always")
        async with ends.attached("k"):
            pass

    assert (await scene_of(tmp_path, play)).deleted == []


async def test_a_kernel_that_no_front_end_made_stays(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("main", KernelPurpose.MAIN)
        async with ends.attached("main"):
            pass

    assert (await scene_of(tmp_path, play)).deleted == []


async def test_a_front_end_that_comes_back_in_time_keeps_a_busy_kernel(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, clock: ManualClock) -> None:
        scene = pool.add("k", notebook="/n")
        async with ends.attached("k"):
            scene.hub.submit(request("a"))
        clock.now += 60
        assert ends.decide_start("s", {"notebook": "/n"}).reuse == "k"
        async with ends.attached("k"):
            scene.say(reply("a"), idle("a"))
            await anyio.wait_all_tasks_blocked()
            assert pool.deleted == []

    await scene_of(tmp_path, play)


async def test_a_start_soon_after_the_departure_is_a_restart(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, clock: ManualClock) -> None:
        scene = pool.add("k", notebook="/n")
        async with ends.attached("k"):
            scene.hub.submit(request("a"))
        clock.now += 2
        decision = ends.decide_start("s", {"notebook": "/n", "restart_window_s": 5.0})
        assert (decision.remove, decision.restarted) == (("k",), True)

    await scene_of(tmp_path, play)


async def test_a_removal_that_failed_is_tried_again_when_the_link_comes_back(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        scene = pool.add("k")
        async with ends.attached("k"):
            pass
        await anyio.wait_all_tasks_blocked()
        scene.cut()
        await anyio.wait_all_tasks_blocked()
        pool.fail = None
        scene.connect()

    pool = await scene_of(tmp_path, play, fail=TransientError("the server does not answer"))
    assert pool.deleted == ["k"]


async def test_a_removal_that_failed_once_is_tried_again_without_any_event(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k")
        async with ends.attached("k"):
            pass
        await anyio.wait_all_tasks_blocked()
        pool.fail = None
        while not pool.deleted:
            await anyio.sleep(0.01)

    pool = await scene_of(tmp_path, play, fail=TransientError("it is being started again"), pauses_s=(0.05,))
    assert pool.deleted == ["k"]


async def test_a_defect_in_a_removal_does_not_end_the_daemon(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k")
        async with ends.attached("k"):
            pass
        await anyio.wait_all_tasks_blocked()

    assert (await scene_of(tmp_path, play, fail=KeyError("a defect"))).deleted == []


async def test_a_kernel_that_ended_meanwhile_is_no_error(tmp_path: Path) -> None:
    async def play(pool: Pool, ends: FrontEnds, _clock: ManualClock) -> None:
        pool.add("k")
        async with ends.attached("k"):
            pool.records.clear()

    try:
        assert (await scene_of(tmp_path, play)).deleted == []
    except ColabBridgeError as error:  # pragma: no cover
        raise AssertionError("it must not escape") from error
