"""The next cells of a detached notebook on its runtime: which lie there, and what a daemon makes of them later."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from colab_bridge.errors import RuntimeLostError, TransientError
from colab_bridge.execution.jobs_queue import MAX_QUEUE_BYTES, queued_requests, with_queue
from colab_bridge.execution.notebook_file import NotebookFile
from colab_bridge.execution.notebook_run import NotebookRun, NotebookSettings
from colab_bridge.execution.outcome import Outcome
from colab_bridge.model.records import KernelPurpose, KernelRecord, Run, RunKind, RunStatus, Session
from colab_bridge.sessions.queue import AgentQueue, pack_requests
from colab_bridge.sessions.transports import KernelTransport
from colab_bridge.store import Store
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import RawMessage
from notebook_files import code, printed, read, write
from scripted_upstream import ManualClock, Scene, busy, idle, reply, stream


class FakeQueue:
    """Implements ``ports.remote_queue.RemoteQueue``."""

    def __init__(self, *, here: bool = True) -> None:
        self.here = here
        self.jobs: dict[str, tuple[list[str], bool]] = {}
        self.dropped: list[str] = []
        self.fails = False
        self.asked = anyio.Event()

    async def available(self, kernel_id: str) -> bool:
        self.asked.set()
        return self.here

    async def put(self, kernel_id: str, job: str, requests: Sequence[RawMessage], *, stop_on_error: bool) -> None:
        if self.fails:
            raise TransientError("the agent does not answer")
        self.jobs[job] = ([request.msg_id for request in requests], stop_on_error)

    async def drop(self, kernel_id: str, job: str) -> None:
        self.dropped.append(job)
        if self.fails:
            raise TransientError("the agent does not answer")
        self.jobs.pop(job, None)


def run_of(path: Path, **progress: Any) -> Run:
    return Run(
        id="run-1", session="s", kernel="kernel-1", kind=RunKind.NOTEBOOK, title="n", status=RunStatus.RUNNING,
        spec={"notebook": {"path": str(path)}, "detached": True}, progress=progress,
    )  # fmt: skip


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path / "records" / "kernel-1")
    made.connect()
    return made


def queued(file: NotebookFile, positions: list[int], *, keep_going: bool = False) -> list[RawMessage]:
    return queued_requests("run-1", file, positions, allow_stdin=True, keep_going=keep_going)


# -- which requests --------------------------------------------------------------------------------------------


async def test_the_runtime_gets_the_requests_that_the_daemon_would_send(scene: Scene, tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")
    file = NotebookFile.load(path)
    there = queued(file, [0, 1])
    await execute(scene, file, run_of(path, cells=[0, 1], done=0))
    for mine, sent in zip(there, scene.upstream.sent, strict=True):
        assert mine.msg_id == sent.msg_id
        assert (mine.content, mine.metadata, mine.channel) == (sent.content, sent.metadata, sent.channel)


def test_the_list_ends_with_a_cell_that_may_fail_unless_the_run_goes_on_anyway(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", code("b", "raises-exception"), "c")
    file = NotebookFile.load(path)
    assert [request.msg_id for request in queued(file, [0, 1, 2])] == ["run-1.0", "run-1.1"]
    assert len(queued(file, [0, 1, 2], keep_going=True)) == 3


def test_code_that_is_too_large_for_one_call_waits_for_the_daemon(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "#" * MAX_QUEUE_BYTES, "c")
    assert [request.msg_id for request in queued(NotebookFile.load(path), [0, 1, 2])] == ["run-1.0"]


def test_requests_are_packed_as_frames_after_their_lengths(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b")
    requests = queued(NotebookFile.load(path), [0, 1])
    packed, found = pack_requests(requests), []
    while packed:
        (length,) = struct.unpack_from("!I", packed)
        found.append(decode_v1(packed[4 : 4 + length]))
        packed = packed[4 + length :]
    assert [(m.msg_id, m.content) for m in found] == [(m.msg_id, m.content) for m in requests]


# -- leaving them and taking them back -------------------------------------------------------------------------


async def ended_at_once() -> str:
    await anyio.wait_all_tasks_blocked()
    return "outcome"


async def test_cells_lie_on_the_runtime_until_the_run_has_ended(tmp_path: Path) -> None:
    path, queue = write(tmp_path / "n.ipynb", "a", "b"), FakeQueue()
    there: list[Any] = []

    async def body() -> str:
        await anyio.wait_all_tasks_blocked()
        there.append(dict(queue.jobs))
        return "outcome"

    run = run_of(path)
    assert await with_queue(queue, run, queued(NotebookFile.load(path), [1]), body, keep_going=False) == "outcome"
    assert there == [{"run-1": (["run-1.1"], True)}]
    assert queue.jobs == {}


async def test_a_daemon_that_ends_leaves_the_cells_there(tmp_path: Path) -> None:
    path, queue = write(tmp_path / "n.ipynb", "a"), FakeQueue()
    requests = queued(NotebookFile.load(path), [0])

    async def forever() -> None:
        await anyio.sleep_forever()

    async def run() -> None:
        await with_queue(queue, run_of(path), requests, forever, keep_going=True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert queue.jobs == {"run-1": (["run-1.0"], False)}
    assert queue.dropped == []


@pytest.mark.parametrize("case", ["no queue", "no agent", "agent fails", "nothing to do"])
async def test_without_a_queue_the_run_goes_on_as_always(tmp_path: Path, case: str) -> None:
    path = write(tmp_path / "n.ipynb", "a")
    queue = FakeQueue(here=case != "no agent")
    queue.fails = case == "agent fails"
    requests = [] if case == "nothing to do" else queued(NotebookFile.load(path), [0])
    given = None if case == "no queue" else queue
    assert await with_queue(given, run_of(path), requests, ended_at_once, keep_going=False) == "outcome"
    assert queue.jobs == {}


# -- a daemon that comes back ----------------------------------------------------------------------------------


async def execute(scene: Scene, file: NotebookFile, run: Run) -> Outcome:
    """Go through the cells; the kernel prints each cell's source."""

    def answer(request: RawMessage) -> None:
        source = str(request.content_fields()["code"])
        scene.say(busy(request.msg_id), stream(request.msg_id, source), reply(request.msg_id), idle(request.msg_id))

    scene.upstream.on_send = answer
    with anyio.fail_after(10):
        settings = NotebookSettings(save_interval_s=0.01)
        notebook = NotebookRun(scene.hub, run, file, settings, ManualClock(), lambda _m: None, lambda _p: None)
        return await notebook.execute()


def at(message: RawMessage, seconds: int) -> RawMessage:
    """The same message, made at a time by the kernel's clock."""
    header = {**message.header_fields(), "date": f"2026-01-01T00:00:{seconds:02d}+00:00"}
    return RawMessage(message.channel, json.dumps(header).encode(), message.parent, message.metadata,
                      message.content, [])  # fmt: skip


def done_by_the_runtime(scene: Scene, request: RawMessage, begin: int, end: int) -> None:
    """What the journal tells of a cell that the runtime sent by itself."""
    journal = scene.hub.events().journal
    assert journal is not None
    cell = request.msg_id
    origin = scene.record.last_origin + 1
    journal.request(request, origin)
    for number, message in enumerate(
        [at(busy(cell), begin), stream(cell, f"far {cell}"), reply(cell), at(idle(cell), end)], start=origin + 1
    ):
        journal.message(message, number)


async def test_cells_that_ended_without_a_daemon_are_shown_once_and_not_sent_again(
    scene: Scene, tmp_path: Path
) -> None:
    path = write(tmp_path / "n.ipynb", "a", "b", "c", "d")
    file = NotebookFile.load(path)
    for request, begin in zip(queued(file, [1, 2]), (10, 40), strict=True):
        done_by_the_runtime(scene, request, begin, begin + 15)
    outcome = await execute(scene, file, run_of(path, cells=[1, 2, 3], done=0))
    assert outcome.status is RunStatus.OK
    assert [message.msg_id for message in scene.upstream.sent if message.msg_type == "execute_request"] == ["run-1.3"]
    assert [printed(cell) for cell in read(path)] == ["", "far run-1.1", "far run-1.2", "d"]
    notes = scene.notes()
    assert [note["index"] for note in notes if note["type"] == "cell_started"] == [1, 2, 3]
    finished = [note for note in notes if note["type"] == "cell_finished"]
    assert [note["index"] for note in finished] == [1, 2, 3]
    assert [note["duration_s"] for note in finished[:2]] == [15, 15]


# -- the agent's side of the port ------------------------------------------------------------------------------


class Agent:
    """A pool with one kernel, and the link to its agent, in one."""

    def __init__(self, *ways: str) -> None:
        self.ways = list(ways)
        self.calls: list[tuple[str, dict[str, Any], bytes]] = []

    def transport(self, kernel_id: str) -> KernelTransport:
        return KernelTransport(way=self.ways.pop(0) if len(self.ways) > 1 else self.ways[0])

    def kernel(self, kernel_id: str) -> KernelRecord:
        return KernelRecord(
            id=kernel_id, session="s", remote_id="remote-1", ws_session_id="w", purpose=KernelPurpose.NOTEBOOK,
            key="n", spec="python3",
        )  # fmt: skip

    def connected(self, session: Session) -> Agent | None:
        return self if self.ways[0] == "tunnel" else None

    async def call(self, method: str, params: dict[str, Any], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        self.calls.append((method, params, payload))
        return {}, b""


def queue_of(agent: Agent, store: Store) -> AgentQueue:
    store.put_session(Session(name="s", project="/p", provider="jupyter"))
    return AgentQueue(agent, agent, store)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ways", "available"), [(["tunnel"], True), (["websocket"], False), (["", "", "tunnel"], True)]
)
async def test_a_kernel_can_be_queued_for_when_it_is_in_a_tunnel(
    store: Store, ways: list[str], available: bool
) -> None:
    assert await queue_of(Agent(*ways), store).available("kernel-1") is available


async def test_the_agent_is_told_of_its_own_kernel_and_to_wait_for_the_daemon(store: Store, tmp_path: Path) -> None:
    agent = Agent("tunnel")
    queue = queue_of(agent, store)
    requests = queued(NotebookFile.load(write(tmp_path / "n.ipynb", "a")), [0])
    await queue.put("kernel-1", "run-1", requests, stop_on_error=True)
    await queue.drop("kernel-1", "run-1")
    (leave, params, payload), (unqueue, which, _) = agent.calls
    assert (leave, unqueue) == ("tunnel.leave", "tunnel.unqueue")
    assert params == {"kernel": "remote-1", "job": "run-1", "stop_on_error": True, "patience_s": 10.0}
    assert which == {"kernel": "remote-1", "job": "run-1"}
    assert payload == pack_requests(requests)


async def test_a_session_without_an_agent_is_a_lost_one(store: Store) -> None:
    with pytest.raises(RuntimeLostError):
        await queue_of(Agent("websocket"), store).drop("kernel-1", "run-1")
