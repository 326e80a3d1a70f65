"""A peer that knows the protocol and breaks it: only typed ends, and no memory beyond the limits."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channel_pair import Pair
from colab_bridge.agent.events import (
    CallCancelled,
    CallError,
    CallReceived,
    CallResult,
    ChannelClosed,
    LinkDead,
    StreamData,
)
from colab_bridge.agent.frames import (
    FLAG_MORE,
    Frame,
    FrameReader,
    FrameType,
    Position,
    dump_object,
    encode,
    pack_positions,
    parse_object,
)
from colab_bridge.agent.limits import FLOOR, Limits

MIB = 1024 * 1024
EDGES = st.sampled_from([0, 1, 2, 3, 4, 5, 255, 2**31, 2**32 - 1])
HUGE = st.one_of(st.integers(0, 6), st.sampled_from([2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
KNOWN_KEYS = st.sampled_from(
    ["m", "p", "t", "c", "e", "d", "name", "params", "priority", "from", "code", "message", "id", "peer", "limits"]
)
GOOD_HEADERS = st.sampled_from(
    [
        b"",
        dump_object({"m": "x", "p": {}, "t": 5}),
        dump_object({"p": {}}),
        dump_object({"c": "x", "e": "y"}),
        dump_object({"name": "s", "params": {}, "priority": 1, "from": 0}),
        dump_object({"code": "", "message": ""}),
    ]
)
HEADERS = st.one_of(
    GOOD_HEADERS,
    st.binary(max_size=30),
    st.dictionaries(st.one_of(KNOWN_KEYS, st.text(max_size=3)), JSON, max_size=5)
    .filter(lambda value: "inf" not in repr(value))
    .map(dump_object),
)
POSITIONS = st.lists(st.builds(lambda s, r, c: Position(s, max(r, c), min(r, c)), EDGES, HUGE, HUGE), max_size=3)
PAYLOADS = st.one_of(st.just(b""), st.binary(max_size=50), POSITIONS.map(pack_positions))


def open_header(priority: int, first: int) -> bytes:
    return dump_object({"name": "", "params": {}, "priority": priority, "from": first})


class Attacker:
    """The other end of a channel under attack, after a proper handshake. It numbers frames rightly unless told."""

    def __init__(self, role: str, **limits) -> None:
        self.pair = Pair(**({role: Limits(**limits)} if limits else {}), seed=5)
        self.role = role
        self.pair.up()
        self.victim = self.pair.ends[role]
        self.first_own = 2 if role == "server" else 3
        self.seqs: dict[int, int] = {}
        self.opened = 0

    @property
    def epoch(self) -> int:
        return self.victim._link.epoch if self.victim._link else 0

    def send(self, frame: Frame, *, seq: int | None = None) -> None:
        if frame.kind >= FrameType.OPEN:
            frame = frame._replace(seq=self.seqs.get(frame.stream, 0) if seq is None else seq)
            self.seqs[frame.stream] = (frame.seq + 1) % 2**64
        self.raw(encode(frame._replace(epoch=self.epoch)))

    def raw(self, data: bytes) -> None:
        self.victim.receive(self.pair.links[self.role], data, self.pair.now)

    def open(self, stream: int | None = None) -> int:
        stream = self.first_own if stream is None else stream
        header = dump_object({"name": "s", "params": {}, "priority": 0, "from": 1})
        self.send(Frame(FrameType.OPEN, stream=stream, number=self.opened, header=header))
        self.opened = stream
        return stream

    def closed(self) -> ChannelClosed:
        self.pair.take(self.role)
        (event,) = self.pair.of(self.role, ChannelClosed)
        assert event.error is not None
        assert self.victim.is_closed
        return event


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["client", "server"]),
    st.lists(
        st.tuples(
            st.builds(
                Frame,
                kind=st.sampled_from(FrameType),
                stream=EDGES,
                epoch=st.just(0),
                seq=st.just(0),
                ack=HUGE,
                number=HUGE,
                flags=st.sampled_from([0, FLAG_MORE]),
                header=HEADERS,
                payload=PAYLOADS,
            ),
            st.one_of(st.none(), HUGE),
            st.booleans(),
        ),
        max_size=25,
    ),
)
def test_valid_frames_in_any_order_with_any_values_raise_nothing(role, frames):
    attacker = Attacker(role)
    attacker.victim.call("x", deadline=attacker.pair.now + 30)
    attacker.victim.open_stream("y")
    for frame, seq, take in frames:
        if attacker.victim.is_closed:
            break
        attacker.send(frame, seq=seq)
        attacker.victim.data_to_send(attacker.pair.now)
        attacker.pair.now += 0.01
        attacker.victim.tick(attacker.pair.now)
        if take:
            attacker.pair.take(role)
        if attacker.victim._link is None and not attacker.victim.is_closed:
            attacker.pair.restart({"client": "server", "server": "client"}[role])
            attacker.pair.connect()
            attacker.pair.pump(seconds=0)
            attacker.seqs.clear()
    attacker.pair.take(role)
    attacker.pair.now += 40
    attacker.victim.tick(attacker.pair.now)
    attacker.pair.take(role)
    kinds = (CallResult, CallError, CallCancelled)
    ends = [event for event in attacker.pair.events[role] if isinstance(event, kinds)]
    assert len([event for event in ends if event.call == 1]) == 1


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["client", "server"]), st.lists(st.binary(max_size=200), max_size=6), st.booleans())
def test_random_bytes_raise_nothing(role, chunks, begin_well):
    attacker = Attacker(role)
    for number, chunk in enumerate(chunks):
        attacker.raw(b"\xc0\xb1\x01" + chunk if begin_well and number == 0 else chunk)
    assert all(isinstance(event, LinkDead) for event in attacker.pair.take(role))


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "peer", "epoch", "versions", "codecs", "capabilities", "limits", "highest"]),
        JSON,
        max_size=8,
    ),
    PAYLOADS,
)
def test_a_senseless_greeting_raises_nothing(changes, payload):
    if "inf" in repr(changes):
        return
    pair = Pair()
    pair.connect()
    (hello,) = FrameReader().feed(pair.client.data_to_send(pair.now))
    pair.server.receive(1, encode(hello), pair.now)
    (welcome,) = FrameReader().feed(pair.server.data_to_send(pair.now))
    changed = dump_object({**parse_object(welcome.header), **changes})
    pair.client.receive(1, encode(welcome._replace(header=changed, payload=payload)), pair.now)
    pair.take("client")
    changed = dump_object({**parse_object(hello.header), **changes})
    pair.server.receive(1, encode(hello._replace(header=changed, payload=payload)), pair.now)
    for frame in FrameReader().feed(pair.server.data_to_send(pair.now)):
        if frame.kind is FrameType.WELCOME:
            epoch = int(parse_object(frame.header)["epoch"], 16)
            pair.server.receive(1, encode(Frame(FrameType.READY, epoch=epoch)), pair.now)
    pair.take("server")


def test_data_beyond_the_window_closes_the_channel():
    attacker = Attacker("server")
    stream = attacker.open()
    for number in range(1, 258):
        attacker.send(Frame(FrameType.DATA, stream=stream, number=number))
    assert "window" in attacker.closed().message


def test_bytes_beyond_the_window_close_the_channel():
    attacker = Attacker("server")
    stream = attacker.open()
    for number in range(1, 6):
        attacker.send(Frame(FrameType.DATA, stream=stream, number=number, payload=bytes(MIB)))
    assert "window" in attacker.closed().message


def test_more_streams_than_agreed_close_the_channel():
    attacker = Attacker("server")
    for number in range(65):
        attacker.open(2 + 2 * number)
    assert "streams" in attacker.closed().message


def test_more_calls_than_agreed_close_the_channel():
    attacker = Attacker("server")
    header = dump_object({"m": "x", "p": {}, "t": 1000})
    for number in range(257):
        attacker.send(Frame(FrameType.CALL, number=number, header=header))
        attacker.pair.take("server")
    assert "calls" in attacker.closed().message


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (Frame(FrameType.RESULT, number=7, header=dump_object({"p": {}})), "no call"),
        (Frame(FrameType.ERROR, number=7, header=dump_object({"c": "a", "e": "b"})), "no call"),
        (Frame(FrameType.DATA, stream=0), "no place"),
        (Frame(FrameType.CALL, header=b"[1]"), "header"),
        (Frame(FrameType.CALL, header=dump_object({"m": "x", "p": {}, "t": -1})), "deadline"),
        (Frame(FrameType.NOTIFY, header=dump_object({"m": "", "p": {}})), "length"),
        (Frame(FrameType.NOTIFY, header=dump_object({"m": "x"})), "lacks"),
        (Frame(FrameType.CALL, ack=99), "was not sent"),
        (Frame(FrameType.ACK, payload=b"x"), "length"),
        (Frame(FrameType.ACK, payload=pack_positions([Position(0, 9, 9)])), "was not sent"),
        (Frame(FrameType.ACK, payload=pack_positions([Position(900, 1, 1)])), "never was"),
        (Frame(FrameType.OPEN, stream=3, header=b"{}"), "not allowed"),
        (Frame(FrameType.OPEN, stream=2, header=b"{}"), "no name"),
        (Frame(FrameType.OPEN, stream=2, header=open_header(2, 1)), "no pri"),
        (Frame(FrameType.OPEN, stream=2, header=open_header(1, -1)), "impos"),
    ],
)  # fmt: skip
def test_a_frame_that_breaks_a_rule_closes_the_channel(frame, words):
    attacker = Attacker("server")
    attacker.send(frame)
    assert words in attacker.closed().message


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(FrameType.DATA, number=0)],
        [Frame(FrameType.DATA, number=1), Frame(FrameType.DATA, number=1)],
        [Frame(FrameType.DATA, number=1, flags=FLAG_MORE), Frame(FrameType.DATA, number=2)],
        [Frame(FrameType.DATA, number=1, flags=FLAG_MORE), Frame(FrameType.DATA, number=1, header=b"{}")],
        [Frame(FrameType.DATA, number=1, flags=FLAG_MORE), Frame(FrameType.CLOSE, header=b'{"code":"","message":""}')],
        [Frame(FrameType.CLOSE, header=b'{"code":"","message":""}'), Frame(FrameType.DATA, number=1)],
        [Frame(FrameType.CLOSE, header=b"{}")],
        [Frame(FrameType.DATA, number=1, header=b"nonsense")],
        [Frame(FrameType.OPEN)],
        [Frame(FrameType.CALL)],
    ],
)
def test_messages_that_do_not_follow_one_another_close_the_channel(frames):
    attacker = Attacker("server")
    stream = attacker.open()
    for frame in frames:
        attacker.send(frame._replace(stream=stream))
    attacker.closed()


def test_an_answer_without_sense_still_ends_its_call():
    attacker = Attacker("client")
    call = attacker.victim.call("x", deadline=attacker.pair.now + 9)
    attacker.victim.data_to_send(attacker.pair.now)
    attacker.send(Frame(FrameType.RESULT, number=call, ack=1, header=b"[]"))
    attacker.pair.take("client")
    assert [event.code for event in attacker.pair.of("client", CallError)] == ["closed"]
    attacker.closed()


def test_a_peer_that_calls_and_cancels_without_reading_is_shut_out():
    attacker = Attacker("server")
    header = dump_object({"m": "x", "p": {}, "t": 1000})
    for number in range(10_000):
        attacker.send(Frame(FrameType.CALL, number=number, header=header))
        attacker.send(Frame(FrameType.CANCEL, number=number))
        attacker.pair.take("server")
        attacker.pair.events["server"] = [e for e in attacker.pair.events["server"] if not isinstance(e, CallReceived)]
        if attacker.victim.is_closed:
            break
    assert "without taking" in attacker.closed().message
    assert attacker.victim.unsent_bytes < MIB


def test_a_call_in_endless_pieces_is_cut_off():
    attacker = Attacker("server")
    header = dump_object({"m": "x", "p": {}, "t": 1000})
    for piece in range(40):
        attacker.send(Frame(FrameType.CALL, flags=FLAG_MORE, header=b"" if piece else header, payload=bytes(MIB // 4)))
        if attacker.victim.is_closed:
            break
    attacker.closed()


def test_floods_of_questions_and_greetings_get_few_answers():
    attacker = Attacker("server")
    hello = attacker.victim._greeting(0).to_frame(FrameType.HELLO, 77)
    for number in range(5000):
        attacker.send(Frame(FrameType.PING, number=number))
        attacker.raw(encode(hello))
    assert len(attacker.victim.data_to_send(attacker.pair.now)) < 20_000


def test_the_worst_that_a_peer_may_send_stays_within_the_sum_of_the_windows():
    attacker = Attacker("server")
    streams = [attacker.open(2 + 2 * number) for number in range(8)]
    tracemalloc.start()
    try:
        for stream in streams:
            for number in range(1, 16):
                attacker.send(Frame(FrameType.DATA, stream=stream, number=number, payload=bytes(MIB // 4)))
        # Headers are parsed when they are taken, so that nested lists cost nothing while they wait.
        for _ in range(60):
            attacker.send(Frame(FrameType.NOTIFY, header=b'{"m":"x","p":{"a":[' + b"[]," * 20_000 + b"[]]}}"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not attacker.victim.is_closed
    assert peak < 9 * Limits().receive.window_bytes + 3 * MIB


def test_a_huge_jump_of_numbers_is_one_gap():
    attacker = Attacker("server")
    stream = attacker.open()
    attacker.send(Frame(FrameType.DATA, stream=stream, number=2**62))
    events = attacker.pair.take("server")
    assert [type(event).__name__ for event in events] == ["StreamOpened", "StreamGap", "StreamData"]
    assert events[1].last == 2**62 - 1


def test_limits_of_a_peer_that_are_absurdly_high_do_not_raise_ours():
    attacker = Attacker("client", buffer_messages=10_000, buffer_bytes=64 * MIB)
    for name in FLOOR.to_json():
        object.__setattr__(attacker.victim._peer, name, 2**70)
    stream = attacker.victim.open_stream("a")
    for _ in range(3000):
        attacker.victim.send(stream, None, bytes(10_000))
    while attacker.victim.data_to_send(attacker.pair.now):
        pass
    messages, size = attacker.victim.in_flight
    assert messages == 400
    assert size <= 16_000_000


def test_an_unknown_seq_of_a_known_stream_is_a_fault_of_the_link():
    attacker = Attacker("server")
    stream = attacker.open()
    attacker.send(Frame(FrameType.DATA, stream=stream, number=1), seq=2**64 - 1)
    assert attacker.pair.take("server")[-1].reason == "gap"
    assert not attacker.pair.of("server", StreamData)
