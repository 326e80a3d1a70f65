from __future__ import annotations

import pytest

from channel_pair import Pair
from colab_bridge.agent.events import (
    LinkDead,
    LinkUp,
    PeerReset,
    Priority,
    StreamClosed,
    StreamData,
    StreamGap,
    StreamOpened,
    Writable,
)
from colab_bridge.agent.faults import BufferFull, ChannelMisuse
from colab_bridge.agent.frames import Frame, FrameReader, FrameType
from colab_bridge.agent.limits import FLOOR, Limits, PeerLimits

MIB = 1024 * 1024


def opened(**options) -> tuple[Pair, int]:
    pair = Pair(**options).up()
    stream = pair.client.open_stream("a", {"k": 1})
    pair.pump()
    return pair, stream


def data_frames(data: bytes) -> list[Frame]:
    return [frame for frame in FrameReader().feed(data) if frame.kind is FrameType.DATA]


def test_the_peer_learns_name_parameters_and_priority():
    pair = Pair().up()
    stream = pair.client.open_stream("journal", {"kernel": "k"}, priority=Priority.BULK, resume_from=7)
    pair.pump()
    (event,) = pair.of("server", StreamOpened)
    assert event == StreamOpened(
        stream=stream, name="journal", params={"kernel": "k"}, priority=Priority.BULK, resume_from=7
    )


def test_messages_arrive_in_both_directions():
    pair, stream = opened()
    pair.client.send(stream, {"a": 1}, b"up")
    pair.server.send(stream, {"b": 2}, b"down")
    pair.pump()
    (up,), (down,) = pair.of("server", StreamData), pair.of("client", StreamData)
    assert (up.header, up.payload, up.final) == ({"a": 1}, b"up", True)
    assert (down.header, down.payload, down.final) == ({"b": 2}, b"down", True)


def test_the_answering_side_begins_at_the_number_that_was_asked_for():
    pair = Pair().up()
    stream = pair.client.open_stream("journal", resume_from=4712)
    pair.pump()
    assert pair.server.send(stream, {}) == 4712
    pair.pump()
    assert pair.of("client", StreamData)[0].number == 4712
    assert not pair.of("client", StreamGap)


def test_messages_that_no_longer_exist_are_declared():
    pair = Pair().up()
    stream = pair.client.open_stream("journal", resume_from=10)
    pair.pump()
    pair.server.send(stream, {}, number=15)
    pair.pump()
    assert pair.of("client", StreamGap) == [StreamGap(stream=stream, first=10, last=14)]


def test_numbers_only_rise():
    pair, stream = opened()
    pair.client.send(stream, number=5)
    with pytest.raises(ChannelMisuse):
        pair.client.send(stream, number=5)


def test_a_large_message_comes_in_pieces_with_one_header():
    pair, stream = opened()
    payload = bytes(range(256)) * 10_000
    pair.client.send(stream, {"big": True}, payload)
    pair.pump()
    pieces = pair.of("server", StreamData)
    assert b"".join(piece.payload for piece in pieces) == payload
    assert [piece.header for piece in pieces] == [{"big": True}, None, None]
    assert [piece.final for piece in pieces] == [False, False, True]
    assert {piece.number for piece in pieces} == {1}


def test_a_message_of_any_size_can_be_given_in_parts():
    pair, stream = opened()
    for part in range(4):
        pair.client.send(stream, {"h": 1} if part == 0 else None, b"x" * 10, final=part == 3)
    pair.pump()
    assert [piece.final for piece in pair.of("server", StreamData)] == [False, False, False, True]


def test_a_view_of_bytes_is_sent_without_being_copied_and_a_changing_buffer_is_copied():
    pair = Pair().up()
    stream = pair.client.open_stream("views")
    changing = bytearray(b"before")
    pair.client.send(stream, None, memoryview(b"0123456789")[2:5])
    pair.client.send(stream, None, changing)
    pair.client.send(stream, None, memoryview(changing))
    changing[:] = b"after!"
    pair.pump()
    assert [event.payload for event in pair.of("server", StreamData)] == [b"234", b"before", b"before"]


def test_compressed_streams_carry_fewer_bytes_and_the_same_content():
    pair = Pair().up()
    stream = pair.client.open_stream("text", compress=True)
    pair.client.send(stream, {}, b"abc " * 50_000)
    data = pair.client.data_to_send(pair.now)
    assert len(data) < 5000
    pair.server.receive(1, data, pair.now)
    pair.take("server")
    assert pair.of("server", StreamData)[0].payload == b"abc " * 50_000


def test_what_was_under_way_in_a_cut_arrives_once_and_in_order():
    pair, stream = opened()
    for number in range(50):
        pair.client.send(stream, {"n": number})
        if number == 20:
            pair.client.data_to_send(pair.now)
            pair.cut()
            pair.connect()
    pair.pump()
    assert [event.header["n"] for event in pair.of("server", StreamData)] == list(range(50))


def test_a_slow_reader_holds_up_its_own_stream_only():
    pair, slow = opened()
    quick = pair.client.open_stream("quick")
    for number in range(1000):
        pair.client.send(slow, {"n": number})
    pair.client.send(quick, {"q": 1})
    pair.pump(seconds=1)
    came = [event.stream for event in pair.of("server", StreamData)]
    assert came.count(slow) == 256
    assert came.count(quick) == 1


def test_reading_on_lets_a_stopped_stream_flow_again():
    pair, stream = opened()
    for number in range(1000):
        pair.client.send(stream, {"n": number})
    for _ in range(6):
        pair.pump(seconds=0.2)
        pair.server.consumed(stream, pair.of("server", StreamData)[-1].seq)
    assert [event.header["n"] for event in pair.of("server", StreamData)] == list(range(1000))
    pair.pump()
    assert pair.client.unsent_bytes == 0


def test_a_full_buffer_says_so_and_tells_when_there_is_room():
    pair, stream = opened(client=Limits(buffer_messages=10))
    for _ in range(10):
        assert pair.client.can_send(stream, 2)
        pair.client.send(stream)
    assert not pair.client.can_send(stream, 2)
    with pytest.raises(BufferFull):
        pair.client.send(stream)
    pair.pump()
    assert not pair.of("client", Writable)
    pair.server.consumed(stream, pair.of("server", StreamData)[-1].seq)
    pair.pump()
    assert pair.of("client", Writable) == [Writable(stream=stream)]
    assert pair.client.can_send(stream)


def test_the_send_buffer_is_bounded_in_bytes_while_there_is_no_link():
    pair, stream = opened()
    pair.cut()
    sent = 0
    while pair.client.can_send(stream, MIB):
        pair.client.send(stream, None, b"x" * MIB)
        sent += 1
    assert sent == 8
    assert pair.client.unsent_bytes <= Limits().buffer_bytes


def test_never_more_is_under_way_than_both_sides_allow():
    receive = PeerLimits(**{**Limits().receive.to_json(), "in_flight_messages": 7, "in_flight_bytes": 300_000})
    pair, stream = opened(server=Limits(receive=receive))
    for _ in range(100):
        pair.client.send(stream, None, b"x" * 1000)
    while pair.client.data_to_send(pair.now):
        pass
    assert pair.client.in_flight[0] == 7
    pair.cut()
    pair.connect()
    pair.pump(seconds=1)
    assert len(pair.of("server", StreamData)) == 100


def test_an_interactive_frame_waits_for_one_bulk_chunk_at_most():
    pair = Pair().up()
    bulk = pair.client.open_stream("upload", priority=Priority.BULK)
    keys = pair.client.open_stream("keys")
    pair.pump()
    for _ in range(4):
        pair.client.send(bulk, None, b"x" * MIB)
    first = data_frames(pair.client.data_to_send(pair.now))
    pair.client.send(keys, {"key": "tab"})
    second = data_frames(pair.client.data_to_send(pair.now))
    assert [frame.stream for frame in first] == [bulk]
    assert len(first[0].payload) <= MIB
    assert second[0].stream == keys


def test_bulk_leaves_room_in_the_windows_for_interactive_frames():
    pair = Pair().up()
    bulk = pair.client.open_stream("upload", priority=Priority.BULK)
    keys = pair.client.open_stream("keys")
    pair.pump()
    for _ in range(1000):
        pair.client.send(bulk, None, b"x")
    while pair.client.data_to_send(pair.now):
        pass
    assert pair.client.in_flight[0] <= 300
    pair.client.send(keys)
    assert data_frames(pair.client.data_to_send(pair.now))[0].stream == keys


def test_bulk_goes_on_under_a_flood_of_interactive_messages():
    pair = Pair().up()
    bulk = pair.client.open_stream("upload", priority=Priority.BULK)
    flood = pair.client.open_stream("flood")
    pair.client.send(bulk, None, b"x" * 100_000)
    done = 0
    for _ in range(200):
        while pair.client.can_send(flood, 100_000):
            pair.client.send(flood, None, b"y" * 100_000)
        pair.step()
        fresh = pair.of("server", StreamData)
        pair.events["server"].clear()
        done += sum(len(event.payload) for event in fresh if event.stream == bulk)
        for event in fresh:
            pair.server.consumed(event.stream, event.seq)
        pair.now += 0.02
    assert done == 100_000


def test_bulk_on_a_slow_line_keeps_little_under_way():
    pair = Pair().up()
    bulk = pair.client.open_stream("upload", priority=Priority.BULK)
    pair.pump()
    line: list[bytes] = []
    most_late = 0
    for step in range(400):
        while pair.client.can_send(bulk, MIB):
            pair.client.send(bulk, None, b"x" * MIB)
        line.append(pair.client.data_to_send(pair.now))
        waiting = b"".join(line)
        # A line of 1 MB/s in steps of a twentieth of a second; the way back is free.
        pair.server.receive(1, waiting[:50_000], pair.now)
        line = [waiting[50_000:]]
        pair.now += 0.05
        for event in pair.take("server"):
            if isinstance(event, StreamData):
                pair.server.consumed(event.stream, event.seq)
        pair.server.tick(pair.now)
        pair.client.receive(1, pair.server.data_to_send(pair.now), pair.now)
        pair.client.tick(pair.now)
        pair.take("client")
        if step > 200:
            most_late = max(most_late, len(line[0]))
    assert pair.client.is_up
    assert most_late < 700_000
    assert sum(len(event.payload) for event in pair.of("server", StreamData)) > 17_000_000


def test_a_stream_ends_when_both_sides_have_closed_it():
    pair, stream = opened()
    pair.client.send(stream, {"last": 1})
    pair.client.close_stream(stream, "done", "all read")
    pair.pump()
    assert pair.of("server", StreamClosed) == [StreamClosed(stream=stream, code="done", message="all read")]
    pair.server.send(stream, {"still": 1})
    pair.server.close_stream(stream)
    pair.pump()
    for role, end in pair.ends.items():
        end.consumed(stream, pair.of(role, StreamData)[-1].seq)
    pair.pump()
    assert not pair.client._table.streams
    assert not pair.server._table.streams


def test_a_stream_whose_last_acknowledgement_was_lost_ends_with_the_next_link():
    pair, stream = opened()
    pair.client.close_stream(stream)
    pair.server.close_stream(stream)
    while pair.client._table.streams and pair.server._table.streams:
        pair.now += 0.02
        for role, other in (("client", "server"), ("server", "client")):
            pair.ends[other].receive(1, pair.ends[role].data_to_send(pair.now), pair.now)
            if not (pair.client._table.streams and pair.server._table.streams):
                break
    assert pair.client._table.streams or pair.server._table.streams
    pair.cut()
    pair.up()
    assert not pair.client._table.streams
    assert not pair.server._table.streams
    assert pair.of("client", LinkUp)[-1].resumed


def test_as_many_streams_as_agreed_can_be_opened_again_and_again():
    receive = PeerLimits(**{**Limits().receive.to_json(), "streams": FLOOR.streams})
    pair = Pair(server=Limits(receive=receive)).up()
    for _ in range(5):
        streams = [pair.client.open_stream("a") for _ in range(FLOOR.streams)]
        with pytest.raises(BufferFull):
            pair.client.open_stream("one too many")
        for stream in streams:
            pair.client.close_stream(stream)
        pair.pump()
        for stream in streams:
            pair.server.close_stream(stream)
        pair.pump()
    assert not pair.client.is_closed
    assert not pair.server.is_closed


def test_an_opening_that_is_lost_inside_a_link_is_noticed_by_the_next_one():
    pair = Pair().up()
    first = pair.client.open_stream("first")
    pair.client.data_to_send(pair.now)
    second = pair.client.open_stream("second")
    pair.pump()
    assert pair.of("server", LinkDead)[-1].reason == "gap"
    pair.up()
    assert [event.stream for event in pair.of("server", StreamOpened)] == [first, second]


@pytest.mark.parametrize("lost_role", ["client", "server"])
def test_a_peer_that_lost_its_state_is_reported_with_what_it_had_not_consumed(lost_role):
    pair, stream = opened()
    stays = "server" if lost_role == "client" else "client"
    for number in range(5):
        pair.ends[stays].send(stream, {"n": number})
    pair.pump()
    pair.ends[lost_role].consumed(stream, pair.of(lost_role, StreamData)[1].seq)
    pair.pump()
    pair.ends[stays].send(stream, {"n": 5}, b"queued")
    pair.cut()
    pair.restart(lost_role)
    pair.up()
    (reset,) = pair.of(stays, PeerReset)
    (lost,) = reset.streams
    assert lost.name == "a"
    assert [piece.header for piece in lost.pieces] == [b'{"n":%d}' % number for number in range(2, 6)]
    assert [piece.number for piece in lost.pieces] == [3, 4, 5, 6]
    assert lost.pieces[-1].payload == b"queued"
    assert not pair.ends[stays].can_send(stream)
    assert not pair.of(lost_role, PeerReset)


def test_a_new_daemon_goes_on_from_its_cursor():
    pair = Pair().up()
    pair.client.open_stream("journal", resume_from=1)
    pair.pump()
    for _ in range(30):
        pair.server.send(pair.of("server", StreamOpened)[-1].stream)
    pair.pump()
    cursor = pair.of("client", StreamData)[17].number
    pair.cut()
    pair.restart("client")
    pair.events["client"].clear()
    pair.connect()
    again = pair.client.open_stream("journal", resume_from=cursor + 1)
    pair.pump()
    for number in range(pair.of("server", StreamOpened)[-1].resume_from, 31):
        pair.server.send(again, number=number)
    pair.pump()
    assert [event.number for event in pair.of("client", StreamData)] == list(range(19, 31))
    assert not pair.of("client", StreamGap)


@pytest.mark.parametrize("header", [{"a": float("nan")}, {"a": "x" * 70_000}, {"a": object()}])
def test_a_header_that_cannot_be_sent_is_refused_and_changes_nothing(header):
    pair, stream = opened()
    with pytest.raises(ChannelMisuse):
        pair.client.send(stream, header)
    assert pair.client.send(stream) == 1
