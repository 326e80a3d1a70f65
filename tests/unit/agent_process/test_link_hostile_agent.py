"""What an agent that is broken or hostile can do to the daemon: end the link with one sentence, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest

from agent_pair import PATIENCE_S, Handler, QueueWire
from colab_bridge.agent.channel import Channel
from colab_bridge.agent.frames import Frame, FrameType, encode
from colab_bridge.agent.process.preamble import dump_line
from colab_bridge.errors import TransientError
from colab_bridge.kernels.agent_errors import AgentError, AgentHeldError, AgentUnavailableError
from colab_bridge.kernels.agent_link import AgentLink, AgentStatus
from colab_bridge.kernels.agent_socket import Mode
from colab_bridge.ports.upstream import LinkState

pytestmark = pytest.mark.anyio

WELCOME = dump_line({"v": 1, "ok": True, "agent": "hash", "pid": 1})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ScriptedDialer:
    """Gives a wire on which a test plays the agent."""

    mode: Mode = "tunnel"
    content_hash = "hash"

    def __init__(self, *scripts: Callable[[QueueWire], None] | Exception) -> None:
        self._scripts = itertools.chain(scripts, itertools.repeat(scripts[-1]))
        self.wires: list[QueueWire] = []
        self.dials = 0
        self.started_over = 0

    async def dial(self) -> QueueWire:
        self.dials += 1
        script = next(self._scripts)
        if isinstance(script, Exception):
            raise script
        wire = QueueWire()
        self.wires.append(wire)
        script(wire)
        return wire

    def start_over(self) -> None:
        self.started_over += 1

    async def aclose(self) -> None:
        pass


def says(*parts: bytes, end: bool = False) -> Callable[[QueueWire], None]:
    def script(wire: QueueWire) -> None:
        for part in parts:
            wire.feed(part)
        if end:
            wire.feed(b"")

    return script


def quick() -> Iterator[float]:
    return itertools.repeat(0.01)


@contextlib.asynccontextmanager
async def running(dialer: ScriptedDialer) -> AsyncIterator[tuple[AgentLink, list[AgentStatus]]]:
    link = AgentLink(dialer, "daemon-1", "me@here", backoff=quick)
    told: list[AgentStatus] = []
    task = asyncio.ensure_future(link.run(told.append))
    try:
        yield link, told
    finally:
        assert not task.done(), "the link must go on whatever the agent does"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def until_text(link: AgentLink, part: str) -> None:
    await until(lambda: part in link.status.text)
    assert "\n" not in link.status.text
    assert link.status.text.isprintable()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (says(b"garbage\n"), "what answers is no agent: a preamble is no JSON"),
        (says(b"\x00" * 1_000_000), "what answers is no agent"),
        (says(b'{"v": 9}\n'), "of version 9"),
        (says(b"[" * 3000 + b"\n"), "no JSON"),
        (says(b'{"v": 1, "ok": "yes"}\n'), "refuses the connection"),
        (says(b'{"v": 1, "ok": false, "code": "\\u001b[2J\\n' + b"x" * 900 + b'"}\n'), "refuses the connection"),
        (says(end=True), "hung up before it answered"),
        (TransientError("the line is down"), "the line is down"),
    ],
)
async def test_what_is_no_greeting_is_one_sentence_and_another_try(
    script: Callable[[QueueWire], None] | Exception, text: str
) -> None:
    dialer = ScriptedDialer(script)
    async with running(dialer) as (link, _told):
        await until_text(link, text)
        await until(lambda: dialer.dials > 3)
        assert link.status.state is LinkState.CONNECTING


def evil_welcome(channel_bytes: bytes) -> bytes:
    return WELCOME + channel_bytes


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 5000,
        os.urandom(5000),
        # A frame that claims 4 GiB.
        encode(Frame(FrameType.PING))[:44] + b"\xff" * 16,
        b"{}\n" * 2000,
    ],
    ids=["ones", "random", "huge length", "lines"],
)
async def test_bytes_that_are_no_frames_end_in_a_fault_and_longer_pauses(data: bytes) -> None:
    dialer = ScriptedDialer(says(WELCOME + data))
    async with running(dialer) as (link, _told):
        await until_text(link, "the agent broke the rules of the channel: 5 links in a row brought damaged data")
        assert dialer.started_over >= 1


class PlayedAgent:
    """An agent's channel on the other side of a wire, for agents that greet well and misbehave later."""

    def __init__(self, then: Callable[[PlayedAgent], None]) -> None:
        self.channel = Channel("server", now=0.0)
        self.wire: QueueWire | None = None
        self._then = then
        self._link = 0

    def __call__(self, wire: QueueWire) -> None:
        self.wire = wire
        wire.feed(WELCOME)
        original = wire.write
        self._link = self.channel.connected(0.0)

        async def write(data: bytes) -> None:
            await original(b"")
            if not data.startswith(b"{"):
                self.channel.receive(self._link, data, 0.0)
                self.pump()

        wire.write = write  # type: ignore[method-assign]

    def pump(self) -> None:
        assert self.wire is not None
        while data := self.channel.data_to_send(0.0):
            self.wire.feed(data)
        while self.channel.next_event() is not None:
            pass
        if self.channel.is_up:
            then, self._then = self._then, lambda _agent: None
            then(self)

    def raw(self, frame: Frame) -> None:
        assert self.wire is not None
        link = self.channel._link
        assert link is not None
        self.wire.feed(encode(frame._replace(epoch=link.epoch)))


BROKEN_RULES = {
    "answer to no call": Frame(FrameType.RESULT, number=77, header=b'{"p": {}}'),
    "ack of what was never sent": Frame(FrameType.CALL, number=1, ack=10**9, header=b'{"m": "x", "p": {}, "t": 1}'),
    "a header without sense": Frame(FrameType.NOTIFY, header=b'{"m": 5}'),
    "deep lists": Frame(FrameType.NOTIFY, header=b'{"m": ' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "a stream number of the daemon": Frame(FrameType.OPEN, stream=10, header=b"{}"),
}


@pytest.mark.parametrize("frame", BROKEN_RULES.values(), ids=BROKEN_RULES.keys())
async def test_a_broken_rule_ends_every_call_and_stream_and_the_link_tries_again(frame: Frame) -> None:
    agent = PlayedAgent(lambda agent: agent.raw(frame))
    dialer = ScriptedDialer(agent, says(WELCOME))
    async with running(dialer) as (link, told):
        handler = Handler()
        handler.stream = link.open_stream("tunnel.kernel", {}, handler=handler)
        handler.stream.send({"n": 1}, b"precious")
        call = asyncio.ensure_future(link.call("echo.echo", deadline_s=PATIENCE_S))
        await handler.until("lost")
        assert [piece.payload for piece in handler.unacknowledged or []] == [b"precious"]
        with contextlib.suppress(AgentError):
            # A frame that was lost ends only the link, and the call may go on with the next one.
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await until(lambda: dialer.dials > 1)
        assert any(status.text for status in told)


async def test_calls_and_streams_of_the_agent_are_refused() -> None:
    seen: list[object] = []

    def ask(agent: PlayedAgent) -> None:
        agent.channel.call("daemon.secrets", deadline=100.0)
        agent.channel.open_stream("daemon.shell")

    class Asking(PlayedAgent):
        def pump(self) -> None:
            assert self.wire is not None
            while (event := self.channel.next_event()) is not None:
                seen.append(event)
            super().pump()

    async with running(ScriptedDialer(Asking(ask))) as (link, _told):
        await until(lambda: len({type(event).__name__ for event in seen} & {"CallError", "StreamClosed"}) == 2)
        assert link.status.state is not LinkState.GONE


async def test_endless_notifications_stall_nothing_and_are_not_kept() -> None:
    async def flood(wire: QueueWire, agent: PlayedAgent) -> None:
        for number in range(3000):
            with contextlib.suppress(Exception):
                agent.channel.notify("probe.noise", {"n": number}, bytes(60_000))
            agent.pump()
            await asyncio.sleep(0)

    agent = PlayedAgent(lambda _agent: None)
    async with running(ScriptedDialer(agent)) as (link, _told):
        heard: list[int] = []
        link.on_notify("probe.", lambda _method, params, _payload: heard.append(params["n"]))
        await until(lambda: agent.channel.is_up)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert agent.wire is not None
        task = asyncio.ensure_future(flood(agent.wire, agent))
        beats = 0
        while not task.done():
            await asyncio.sleep(0.001)
            beats += 1
        await task
        assert len(heard) > 500
        assert beats > 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


async def test_a_holder_is_named_and_calls_fail_at_once() -> None:
    held = dump_line({"v": 1, "ok": False, "code": "held", "owner_label": "bob@\x1b[31mlab", "since": 5, "heard": "x"})
    async with running(ScriptedDialer(says(held))) as (link, _told):
        status = await link.ready(PATIENCE_S)
        assert status.held_by == "bob@[31mlab"
        assert isinstance(link.error, AgentHeldError)
        assert (link.error.since, link.error.heard) == (5.0, 0.0)
        with pytest.raises(AgentError) as failed:
            await link.call("echo.echo")
        assert failed.value.code_name == "held"


async def test_taking_over_is_said_at_the_next_connection_which_is_made_at_once() -> None:
    held = says(dump_line({"v": 1, "ok": False, "code": "held", "owner_label": "bob@lab"}))
    dialer = ScriptedDialer(held)
    async with running(dialer) as (link, _told):
        await link.ready(PATIENCE_S)
        link.take_over()
        await until(lambda: dialer.dials == 2)
        await until(lambda: bool(dialer.wires[1].written))
        assert [json.loads(wire.written.splitlines()[0])["take"] for wire in dialer.wires] == [False, True]


async def test_no_agent_at_all_is_definite_and_is_looked_at_again_when_asked() -> None:
    dialer = ScriptedDialer(AgentUnavailableError("the server has no Python kernel"))
    async with running(dialer) as (link, _told):
        status = await link.ready(PATIENCE_S)
        assert (status.mode, status.state, status.text) == ("none", LinkState.GONE, "the server has no Python kernel")
        link.retry_now()
        await until(lambda: dialer.dials == 2)


async def test_a_defect_on_the_way_to_the_agent_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    dialer = ScriptedDialer(ValueError("a defect"), TransientError("the line is down"))
    async with running(dialer) as (link, _told):
        await until_text(link, "the line is down")
    assert "the link to the agent failed" in caplog.text


async def test_an_agent_that_is_replaced_again_and_again_is_not_asked_without_a_pause() -> None:
    dialer = ScriptedDialer(says(dump_line({"v": 1, "ok": False, "code": "replaced"})))
    async with running(dialer) as (link, _told):
        await until(lambda: dialer.dials > 6)
        assert dialer.started_over >= 6
        assert "replaced" in link.status.text


async def test_a_call_without_a_link_ends_at_its_deadline_with_the_reason() -> None:
    async with running(ScriptedDialer(TransientError("the line is down"))) as (link, _told):
        with pytest.raises(AgentError) as failed:
            await link.call("echo.echo", deadline_s=0.1)
        assert (failed.value.code_name, failed.value.message) == ("deadline", "the line is down")
