"""Calls and streams between a daemon's end and an agent's end, with services that behave and services that do not."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agent_pair import PATIENCE_S, Handler, TestService, joined
from colab_bridge.agent.faults import BufferFull, ChannelMisuse
from colab_bridge.kernels.agent_errors import AgentError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_call_brings_back_result_and_payload() -> None:
    async with joined(TestService()) as pair:
        assert await pair.call("test.any", b"abc", a=1) == ({"verb": "any", "a": 1}, b"abc")


@pytest.mark.parametrize(
    ("method", "code", "text"),
    [
        ("test.fail", "nope", "not today"),
        ("test.crash", "internal", "ValueError: a defect"),
        ("test.huge", "internal", "cannot be sent"),
        ("other.verb", "unknown", "no service 'other'"),
        ("x" * 129, "invalid", "method"),
    ],
)
async def test_a_call_that_fails_says_how_and_the_next_one_works(method: str, code: str, text: str) -> None:
    async with joined(TestService()) as pair:
        with pytest.raises(AgentError) as failed:
            await pair.call(method)
        assert failed.value.code_name == code
        assert text in failed.value.message
        assert (await pair.call("test.next"))[0] == {"verb": "next"}


async def test_the_data_of_a_failure_arrives() -> None:
    async with joined(TestService()) as pair:
        with pytest.raises(AgentError) as failed:
            await pair.call("test.fail")
        assert failed.value.data == {"why": 1}


async def test_a_call_that_is_not_wanted_any_more_is_cancelled_at_the_agent() -> None:
    service = TestService()
    async with joined(service) as pair:
        task = asyncio.ensure_future(pair.call("test.wait"))
        await pair.call("test.any")
        assert service.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await pair.call("test.any")
        assert (service.running, service.cancelled) == (0, 1)


async def test_a_call_ends_at_its_deadline_and_is_cancelled_at_the_agent() -> None:
    service = TestService()
    async with joined(service) as pair:
        with pytest.raises(AgentError) as failed:
            await pair.call("test.wait", deadline_s=0.2)
        assert failed.value.code_name == "deadline"
        await pair.call("test.any")
        assert service.cancelled == 1


async def test_calls_wait_for_their_turn_and_a_slow_service_holds_up_no_other() -> None:
    slow, quick = TestService(), TestService()
    quick.name = "quick"
    async with joined(slow, quick) as pair:
        tasks = [asyncio.ensure_future(pair.call("test.wait")) for _ in range(40)]
        assert (await pair.call("quick.any"))[0] == {"verb": "any"}
        assert slow.running == 8
        slow.go_on.set()
        assert [result for result, _payload in await asyncio.gather(*tasks)] == [{"done": True}] * 40
        assert slow.most_running == 8


async def test_more_calls_than_the_channel_takes_wait_here() -> None:
    async with joined(TestService()) as pair:
        results = await asyncio.gather(*(pair.call("test.any", bytes(100_000), n=n) for n in range(600)))
        assert [result["n"] for result, _payload in results] == list(range(600))


async def test_a_call_survives_a_cut() -> None:
    service = TestService()
    async with joined(service) as pair:
        task = asyncio.ensure_future(pair.call("test.wait"))
        await pair.call("test.any")
        await pair.cut()
        service.go_on.set()
        await pair.connect()
        assert (await task)[0] == {"done": True}
        assert pair.links == [False, True]


async def test_messages_of_a_stream_come_in_both_directions_with_their_numbers() -> None:
    service = TestService()
    async with joined(service) as pair:
        here = Handler()
        stream = pair.open("test.kernel", here, resume_from=7)
        stream.send({"up": 1}, b"u")
        await pair.call("test.any")
        there = service.handlers[0]
        assert there.stream is not None
        assert there.pieces[0].payload == b"u"
        there.stream.send({"down": 1}, b"d", number=9)
        await here.until("data")
        assert (here.pieces[0].number, here.pieces[0].header) == (9, {"down": 1})
        assert here.gaps == [(7, 8)]


async def test_a_stream_that_the_service_refuses_is_closed_with_its_words() -> None:
    async with joined(TestService()) as pair:
        for name, code in (("test.no", "unreachable"), ("test.crash", "internal"), ("other", "unknown")):
            handler = Handler()
            pair.open(name, handler).send(None, b"too early")
            await handler.until("closed")
            assert handler.end is not None
            assert handler.end[0] == code


async def test_a_stream_closed_by_the_daemon_ends_at_the_agent_and_frees_its_place() -> None:
    service = TestService()
    async with joined(service) as pair:
        for count in range(150):  # more than may be open at once
            stream = pair.open("test.kernel", Handler())
            stream.send({"n": count})
            stream.close("done", "enough")
            while len(service.handlers) <= count or service.handlers[count].end is None:
                await pair.call("test.any")
        assert service.handlers[-1].end == ("done", "enough")
        with pytest.raises(ChannelMisuse):
            stream.send(None, b"late")


async def test_a_stream_closed_in_the_middle_of_a_message_is_ended_in_order() -> None:
    service = TestService()
    async with joined(service) as pair:
        stream = pair.open("test.kernel", Handler())
        stream.send({"begun": True}, b"a", final=False)
        stream.close("stop", "")
        with anyio.fail_after(PATIENCE_S):
            while not service.handlers or service.handlers[0].end is None:
                await pair.call("test.any")
        assert [piece.final for piece in service.handlers[0].pieces] == [False, True]


async def test_a_stream_closed_by_the_agent_with_data_that_nobody_took_frees_its_place() -> None:
    service = TestService()
    async with joined(service) as pair:
        for _ in range(150):
            handler = Handler(consume=False)
            pair.open("test.kernel", handler)
            await pair.call("test.any")
            there = service.handlers[-1].stream
            assert there is not None
            there.send(None, b"never consumed")
            there.close("over")
            await handler.until("closed")


async def test_a_full_buffer_is_told_and_room_is_told_when_there_is_some() -> None:
    service = TestService()
    async with joined(service) as pair:
        here = Handler()
        stream = pair.open("test.kernel", here, consume=False)
        with pytest.raises(BufferFull):
            for _ in range(100):
                stream.send(None, bytes(500_000))
        assert not stream.can_send(500_000)
        with anyio.fail_after(PATIENCE_S):
            while not service.handlers or len(service.handlers[0].pieces) < 8:
                await pair.call("test.any")
        there = service.handlers[0]
        there.consume = True
        assert there.stream is not None
        there.stream.consumed(there.pieces[-1].seq)
        await here.until("writable")
        assert stream.can_send(500_000)


async def test_a_daemon_that_was_started_anew_ends_the_streams_of_the_old_one() -> None:
    service = TestService()
    async with joined(service) as pair:
        pair.open("test.kernel", Handler())
        await pair.call("test.any")
        await pair.cut()
        pair.traffic = pair.new_traffic()
        await pair.connect()
        assert (await pair.call("test.again"))[0] == {"verb": "again"}
        assert service.handlers[0].end == ("reset", "the daemon was started anew")


async def test_an_agent_that_ends_its_channel_gives_back_what_it_had_not_consumed() -> None:
    async with joined(TestService()) as pair:
        here = Handler()
        pair.open("test.kernel", here, consume=False).send({"n": 1}, b"precious")
        await pair.call("test.any")
        waiting = asyncio.ensure_future(pair.call("test.wait"))
        await asyncio.sleep(0)
        pair.dispatch.close("taken over")
        await here.until("lost")
        assert [piece.payload for piece in here.unacknowledged or []] == [b"precious"]
        with pytest.raises(AgentError) as failed:
            await waiting
        assert failed.value.code_name == "closed"
        assert pair.traffic.is_over
        assert pair.traffic.fault == ""


async def test_notifications_reach_those_who_asked_for_them_and_are_dropped_without_a_link() -> None:
    async with joined(TestService()) as pair:
        await pair.call("test.any")
        assert pair.dispatch.notify("test.tick", {"n": 1}, b"x", bulk=False)
        assert pair.dispatch.notify("other.tick", None, b"", bulk=False)
        await pair.call("test.any")
        assert pair.notified == [("test.tick", {"n": 1}, b"x")]
        await pair.cut()
        assert not pair.dispatch.notify("test.tick", None, b"", bulk=False)


async def test_a_receiver_with_a_defect_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    service = TestService()
    async with joined(service) as pair:

        class Broken(Handler):
            def data(self, piece: object) -> None:
                raise ValueError("a defect")

        pair.open("test.kernel", Broken())
        healthy = Handler()
        pair.open("test.kernel", healthy)
        await pair.call("test.any")
        for handler in service.handlers:
            assert handler.stream is not None
            handler.stream.send(None, b"x")
        await healthy.until("data")
        assert "a receiver of the agent's messages failed" in caplog.text
