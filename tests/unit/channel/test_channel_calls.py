from __future__ import annotations

import pytest

from channel_pair import Pair
from colab_bridge.agent.events import (
    CallCancelled,
    CallError,
    CallReceived,
    CallResult,
    CallWithdrawn,
    Notified,
    Writable,
)
from colab_bridge.agent.faults import BufferFull, ChannelMisuse
from colab_bridge.agent.limits import Limits


def called(**options) -> tuple[Pair, int, CallReceived]:
    pair = Pair().up()
    call = pair.client.call("files.scan", {"root": "."}, b"in", deadline=pair.now + 30, **options)
    pair.pump()
    return pair, call, pair.of("server", CallReceived)[0]


def ends(pair: Pair) -> list:
    return [event for event in pair.events["client"] if isinstance(event, (CallResult, CallError, CallCancelled))]


@pytest.mark.parametrize("bulk", [False, True])
def test_a_call_brings_its_result(bulk):
    pair, call, event = called(bulk=bulk, compress=bulk)
    assert (event.method, event.params, event.payload) == ("files.scan", {"root": "."}, b"in")
    assert event.timeout_s == pytest.approx(30, abs=0.2)
    assert pair.server.respond(event.call, {"entries": 3}, b"out" * 1000, compress=bulk)
    pair.pump()
    assert ends(pair) == [CallResult(call=call, result={"entries": 3}, payload=b"out" * 1000)]
    pair.pump(seconds=60)
    assert len(ends(pair)) == 1
    assert pair.client.unsent_bytes == pair.server.unsent_bytes == 0


def test_a_call_brings_its_error():
    pair, call, event = called()
    assert pair.server.fail(event.call, "not_found", "no such root", {"path": "."})
    pair.pump()
    assert ends(pair) == [CallError(call=call, code="not_found", message="no such root", data={"path": "."})]


def test_a_large_call_arrives_whole():
    pair = Pair().up()
    size = pair.client.call_limit_bytes
    pair.client.call("put", {}, b"x" * size, deadline=pair.now + 30, bulk=True)
    pair.pump(seconds=1)
    assert len(pair.of("server", CallReceived)[0].payload) == size >= 1_000_000
    with pytest.raises(ChannelMisuse):
        pair.client.call("put", {}, b"x" * (size + 1), deadline=pair.now + 30)


def test_a_call_without_an_answer_ends_at_its_deadline_on_both_sides():
    pair, call, event = called()
    pair.pump(seconds=31)
    (end,) = ends(pair)
    assert (end.call, end.code) == (call, "deadline")
    assert [gone.call for gone in pair.of("server", CallWithdrawn)] == [event.call]
    assert not pair.server.respond(event.call, {})


def test_a_call_ends_at_its_deadline_without_any_link():
    pair = Pair()
    pair.client.call("a", deadline=pair.now + 2)
    assert pair.client.next_deadline() == pair.now + 2
    pair.now += 2
    pair.client.tick(pair.now)
    assert [event.code for event in pair.take("client")] == ["deadline"]
    assert pair.client.unsent_bytes == 0


def test_calls_that_ended_during_an_outage_leave_no_trace():
    pair = Pair()
    for _ in range(200):
        pair.client.call("a", deadline=pair.now + 1)
        pair.now += 1
        pair.client.tick(pair.now)
    pair.up()
    assert not pair.of("server", CallReceived)


def test_a_cancelled_call_is_withdrawn_there_and_cancelled_here():
    pair, call, event = called()
    assert pair.client.cancel(call)
    pair.pump()
    assert pair.of("server", CallWithdrawn) == [CallWithdrawn(call=event.call, reason="cancelled")]
    assert ends(pair) == [CallCancelled(call=call)]
    assert not pair.client.cancel(call)
    assert not pair.server.respond(event.call)


def test_a_call_cancelled_before_it_was_sent_never_arrives():
    pair = Pair()
    call = pair.client.call("a", deadline=pair.now + 5)
    assert pair.client.cancel(call)
    pair.up()
    assert ends(pair) == [CallCancelled(call=call)]
    assert not pair.of("server", CallReceived)


def test_a_result_that_was_quicker_than_the_cancel_wins():
    pair, call, event = called()
    pair.client.cancel(call)
    pair.server.respond(event.call, {"done": True})
    pair.pump()
    assert ends(pair) == [CallResult(call=call, result={"done": True}, payload=b"")]


def test_the_called_side_can_cancel():
    pair, call, event = called()
    pair.server.fail(event.call, "cancelled")
    pair.pump()
    assert ends(pair) == [CallCancelled(call=call)]


def test_a_call_into_a_dead_connection_arrives_with_the_next_one():
    pair = Pair().up()
    call = pair.client.call("a", deadline=pair.now + 60)
    pair.client.data_to_send(pair.now)
    pair.cut()
    pair.up()
    (event,) = pair.of("server", CallReceived)
    pair.server.respond(event.call)
    pair.server.data_to_send(pair.now)
    pair.cut()
    pair.up()
    assert ends(pair) == [CallResult(call=call, result={}, payload=b"")]


@pytest.mark.parametrize("lost_role", ["client", "server"])
def test_calls_end_when_the_peer_has_lost_its_state(lost_role):
    pair, call, event = called()
    back = pair.server.call("ask", deadline=pair.now + 30)
    pair.pump()
    pair.cut()
    pair.restart(lost_role)
    pair.up()
    if lost_role == "server":
        assert [(end.call, end.code) for end in ends(pair)] == [(call, "reset")]
        assert pair.of("client", CallWithdrawn) == [CallWithdrawn(call=back, reason="reset")]
    else:
        assert pair.of("server", CallWithdrawn) == [CallWithdrawn(call=event.call, reason="reset")]
        assert [(end.call, end.code) for end in pair.of("server", CallError)] == [(back, "reset")]


def test_calls_without_an_end_are_limited():
    pair = Pair().up()
    for _ in range(256):
        pair.client.call("a", deadline=pair.now + 60)
        pair.pump(seconds=0)
    assert not pair.client.can_call()
    with pytest.raises(BufferFull):
        pair.client.call("a", deadline=pair.now + 60)
    pair.server.respond(pair.of("server", CallReceived)[0].call)
    pair.pump()
    assert pair.of("client", Writable) == [Writable(stream=0)]
    assert pair.client.can_call()


def test_a_bulk_call_does_not_hold_up_an_interactive_one():
    pair = Pair().up()
    for _ in range(2):
        pair.client.call("upload", {}, b"x" * 1_500_000, deadline=pair.now + 30, bulk=True)
    pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
    pair.client.call("complete", deadline=pair.now + 30)
    pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
    pair.take("server")
    assert [event.method for event in pair.of("server", CallReceived)] == ["complete"]
    pair.pump()
    assert [event.method for event in pair.of("server", CallReceived)] == ["complete", "upload", "upload"]


def test_notifications_arrive():
    pair = Pair().up()
    pair.server.notify("probe", {"rss": 1}, b"raw")
    pair.pump()
    assert pair.of("client", Notified) == [Notified(method="probe", params={"rss": 1}, payload=b"raw")]


def test_calls_that_nobody_takes_hold_up_calls_only():
    pair = Pair(server=Limits()).up()
    stream = pair.client.open_stream("a")
    for _ in range(400):
        pair.client.notify("n")
    pair.client.send(stream)
    for _ in range(50):
        pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
        pair.client.receive(1, pair.server.data_to_send(pair.now), pair.now)
        pair.now += 0.02
    assert len(pair.take("server")) == 1 + 256 + 1
    pair.pump()
    assert len(pair.of("server", Notified)) == 400


def test_many_quick_calls_leave_nothing_behind():
    pair = Pair().up()
    for _ in range(3000):
        pair.client.call("a", deadline=pair.now + 3600)
        pair.step()
        for event in pair.of("server", CallReceived):
            pair.server.respond(event.call)
        pair.events["server"].clear()
        pair.step()
        pair.events["client"].clear()
    assert len(pair.client._calls._out._deadlines) < 200


@pytest.mark.parametrize("method", ["", "m" * 129])
def test_a_method_without_a_proper_name_is_refused(method):
    pair = Pair().up()
    with pytest.raises(ChannelMisuse):
        pair.client.call(method, deadline=pair.now + 1)
