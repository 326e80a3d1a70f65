from __future__ import annotations

import pytest

from channel_pair import Pair
from colab_bridge.agent.channel import Channel
from colab_bridge.agent.events import CallError, ChannelClosed, LinkDead, LinkUp, PeerReset
from colab_bridge.agent.faults import ChannelMisuse
from colab_bridge.agent.frames import Frame, FrameReader, FrameType, encode
from colab_bridge.agent.limits import FLOOR, Limits, PeerLimits


def frames(data: bytes) -> list[Frame]:
    return list(FrameReader().feed(data))


def test_the_handshake_tells_both_sides_what_the_other_can_do():
    pair = Pair()
    pair.ends["client"] = Channel("client", now=pair.now, capabilities={"journal": 2})
    pair.up()
    assert pair.of("server", LinkUp) == [
        LinkUp(link=1, resumed=False, version=1, codec="zlib", capabilities={"journal": 2})
    ]
    assert pair.of("client", LinkUp)[0].capabilities == {}


def test_a_second_link_between_the_same_two_resumes():
    pair = Pair().up()
    pair.cut()
    pair.up()
    assert [event.resumed for event in pair.of("client", LinkUp)] == [False, True]
    assert [event.resumed for event in pair.of("server", LinkUp)] == [False, True]
    assert not pair.of("client", PeerReset)


def test_a_black_hole_is_noticed_within_a_few_seconds():
    pair = Pair().up()
    began = pair.now
    while not pair.of("client", LinkDead):
        deadline = pair.client.next_deadline()
        assert deadline is not None
        pair.now = max(pair.now, deadline)
        pair.client.tick(pair.now)
        pair.client.data_to_send(pair.now)
        pair.take("client")
    assert pair.of("client", LinkDead)[0].reason == "silent"
    assert pair.now - began <= 5.1
    assert not pair.client.is_up


def test_an_idle_link_lives_on_by_its_heartbeat():
    pair = Pair().up()
    pair.pump(seconds=60)
    assert pair.client.is_up
    assert pair.server.is_up
    assert pair.client.rtt_s == 0


def test_an_idle_link_costs_less_than_one_frame_a_second_each_way():
    pair = Pair().up()
    sent = []
    until = pair.now + 60
    while pair.now < until:
        deadlines = [end.next_deadline() for end in pair.ends.values()]
        pair.now = min(deadline for deadline in deadlines if deadline is not None)
        for role, other in (("client", "server"), ("server", "client")):
            pair.ends[role].tick(pair.now)
            data = pair.ends[role].data_to_send(pair.now)
            pair.ends[other].receive(1, data, pair.now)
            if role == "client":
                sent += frames(data)
    assert len(sent) <= 100


def test_a_process_that_slept_gives_its_peer_time_for_a_sign_of_life():
    pair = Pair().up()
    pair.now += 3600
    pair.client.tick(pair.now)
    assert not pair.take("client")
    pair.server._link.wake(3600, pair.now)
    pair.pump()
    assert pair.client.is_up
    assert not pair.of("client", LinkDead)


def test_a_link_without_an_answer_is_dead_after_the_time_for_the_handshake():
    pair = Pair()
    pair.client.connected(pair.now)
    pair.now += 5
    pair.client.tick(pair.now)
    (event,) = pair.take("client")
    assert (event.reason, event.link) == ("handshake", 1)


def test_what_comes_late_from_an_earlier_transport_is_ignored():
    pair = Pair().up()
    stream = pair.client.open_stream("a")
    late = pair.client.data_to_send(pair.now)
    pair.cut()
    pair.up()
    before = list(pair.events["server"])
    pair.server.receive(1, late, pair.now)
    assert pair.take("server") == []
    assert pair.events["server"] == before
    assert pair.server._table.streams.keys() == {stream}


def test_frames_of_an_earlier_connection_inside_the_new_one_are_ignored():
    pair = Pair()
    pair.connect()
    recorded = {"client": b"", "server": b""}
    for _ in range(4):
        for role, other in (("client", "server"), ("server", "client")):
            data = pair.ends[role].data_to_send(pair.now)
            recorded[role] += data
            pair.ends[other].receive(1, data, pair.now)
    stream = pair.client.open_stream("a")
    pair.client.send(stream, {"x": 1})
    recorded["client"] += pair.client.data_to_send(pair.now)
    pair.cut()
    pair.up()
    pair.server.receive(2, recorded["client"], pair.now)
    pair.client.receive(2, recorded["server"], pair.now)
    pair.events["server"].clear()
    pair.pump()
    assert pair.events["server"] == []
    assert pair.client.is_up
    assert pair.server.is_up


def test_a_late_greeting_does_not_disturb_the_living_link():
    pair = Pair()
    pair.connect()
    hello = pair.client.data_to_send(pair.now)
    pair.server.receive(1, hello, pair.now)
    pair.pump()
    for _ in range(20):
        pair.server.receive(1, hello, pair.now)
    pair.client.notify("still there")
    pair.pump()
    assert pair.server.is_up
    assert pair.events["server"][-1].method == "still there"


def test_garbage_ends_the_link_and_not_the_channel():
    pair = Pair().up()
    pair.server.receive(1, b"GET / HTTP/1.1", pair.now)
    (event,) = pair.take("server")
    assert event.reason == "damaged"
    pair.up()
    assert pair.of("server", LinkUp)[-1].resumed


def test_links_that_bring_nothing_but_damage_close_the_channel():
    pair = Pair()
    for _ in range(5):
        pair.connect()
        pair.server.receive(pair.links["server"], b"nonsense", pair.now)
    pair.take("server")
    assert pair.events["server"][-1].error is not None
    assert pair.server.is_closed


def test_a_frame_that_is_missing_in_the_middle_ends_the_link_and_comes_with_the_next():
    pair = Pair().up()
    pair.client.notify("one")
    pair.client.data_to_send(pair.now)
    pair.client.notify("two")
    pair.pump()
    assert pair.of("server", LinkDead)[-1].reason == "gap"
    pair.up()
    assert [event.method for event in pair.events["server"] if hasattr(event, "method")] == ["one", "two"]


def test_a_last_frame_that_is_missing_is_noticed_by_the_heartbeat():
    pair = Pair().up()
    pair.client.notify("one")
    pair.client.data_to_send(pair.now)
    pair.pump(seconds=3)
    assert pair.of("client", LinkDead)[-1].reason == "gap"


def test_a_peer_without_a_common_version_is_told_so_and_refused():
    pair = Pair()
    pair.connect()
    (hello,) = frames(pair.client.data_to_send(pair.now))
    newer = hello._replace(header=hello.header.replace(b'"versions":[1,1]', b'"versions":[2,9]'))
    pair.server.receive(1, encode(newer), pair.now)
    pair.client.receive(1, pair.server.data_to_send(pair.now), pair.now)
    (event,) = pair.take("client")
    assert isinstance(event, ChannelClosed)
    assert "versions 2 to 9" in event.message
    assert not pair.server.is_closed


def test_limits_below_the_floor_are_refused():
    low = PeerLimits(**{**FLOOR.to_json(), "window_bytes": 1})
    with pytest.raises(ValueError, match="window_bytes"):
        Limits(receive=low)


def test_goodbye_ends_both_ends_and_every_call():
    pair = Pair().up()
    pair.client.call("slow", deadline=pair.now + 60)
    call = pair.server.call("slow", deadline=pair.now + 60)
    pair.pump()
    pair.client.close("enough")
    pair.pump()
    assert pair.events["client"][-1].by_peer is False
    assert pair.events["server"][-1].by_peer is True
    assert pair.events["server"][-1].message == "enough"
    assert pair.of("server", CallError)[0].call == call
    with pytest.raises(ChannelMisuse):
        pair.client.connected(pair.now)


def test_a_closed_channel_takes_anything_without_a_word():
    pair = Pair().up()
    pair.client.close()
    pair.take("client")
    assert frames(pair.client.data_to_send(pair.now))[0].kind is FrameType.BYE
    pair.client.receive(1, b"x", pair.now)
    pair.client.tick(pair.now + 100)
    assert pair.client.next_deadline() is None
    assert pair.client.data_to_send(pair.now) == b""
    assert pair.client.next_event() is None


def test_what_a_dead_daemon_had_said_is_not_taken_for_words_of_the_new_one():
    pair = Pair().up()
    pair.client.notify("old")
    late = pair.client.data_to_send(pair.now)
    pair.cut()
    pair.restart("client")
    pair.up()
    pair.server.receive(2, late, pair.now)
    pair.client.notify("new")
    pair.pump()
    assert [event.method for event in pair.events["server"] if hasattr(event, "method")] == ["new"]


def test_a_first_handshake_whose_end_was_lost_is_no_reset():
    pair = Pair()
    stream = pair.client.open_stream("a")
    pair.connect()
    pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
    pair.client.receive(1, pair.server.data_to_send(pair.now), pair.now)
    assert pair.client.is_up
    pair.client.data_to_send(pair.now)
    pair.cut()
    pair.up()
    assert not pair.of("client", PeerReset)
    assert set(pair.server._table.streams) == {stream}


def test_an_acknowledgement_goes_with_the_next_message_and_not_alone():
    pair = Pair().up()
    stream = pair.client.open_stream("echo")
    pair.client.send(stream, None, b"question")
    pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
    pair.take("server")
    pair.server.consumed(stream, 1)
    assert frames(pair.server.data_to_send(pair.now)) == []
    pair.server.send(stream, None, b"answer")
    assert [frame.kind for frame in frames(pair.server.data_to_send(pair.now))] == [FrameType.ACK, FrameType.DATA]
    pair.now += 1.0
    assert frames(pair.server.data_to_send(pair.now)) == []


def test_an_acknowledgement_goes_alone_when_no_message_comes_in_time():
    pair = Pair().up()
    stream = pair.client.open_stream("echo")
    pair.client.send(stream, None, b"question")
    pair.server.receive(1, pair.client.data_to_send(pair.now), pair.now)
    pair.take("server")
    pair.now += 0.1
    assert [frame.kind for frame in frames(pair.server.data_to_send(pair.now))] == [FrameType.ACK]
