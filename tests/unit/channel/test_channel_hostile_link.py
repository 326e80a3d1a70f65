"""Two channels over a link that does all that links do, against a model: once, in order, or the loss is reported."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from colab_bridge.agent.channel import Channel
from colab_bridge.agent.events import (
    Priority,
)
from colab_bridge.agent.faults import BufferFull
from colab_bridge.agent.frames import parse_object
from colab_bridge.agent.limits import FLOOR, Limits, PeerLimits

OTHER = {"client": "server", "server": "client"}
ROLES = st.sampled_from(["client", "server"])
SMALL = Limits(
    receive=PeerLimits(
        frame_bytes=FLOOR.frame_bytes,
        in_flight_messages=5,
        in_flight_bytes=FLOOR.in_flight_bytes,
        window_messages=6,
        window_bytes=FLOOR.window_bytes,
        call_bytes=FLOOR.call_bytes,
        open_calls=16,
        streams=16,
    ),
    chunk_bytes=1000,
    buffer_messages=12,
    buffer_bytes=70_000,
    streams=16,
    damaged_links=10**9,
)


class Side:
    """One process: its channel and what it knows itself."""

    def __init__(self, role: str, now: float, seed: int) -> None:
        source = random.Random(seed)
        self.role = role
        self.channel = Channel(role, now=now, limits=SMALL, random_id=lambda: source.getrandbits(64))
        self.link = 0
        self.sent: dict[int, list[int]] = {}  # stream -> uids in order, of this session
        self.got: dict[int, list[int]] = {}  # stream -> uids in order
        self.names: dict[int, str] = {}
        self.numbers: dict[int, int] = {}
        self.unread: dict[int, deque[int]] = {}
        self.partial: dict[int, tuple[int, int]] = {}  # stream -> uid, bytes so far
        self.closed: set[int] = set()
        self.calls: dict[int, int] = {}  # id -> uid
        self.ended: set[int] = set()
        self.serving: dict[int, int] = {}
        self.served: list[int] = []
        self.notified: list[int] = []
        self.notifications: list[int] = []
        self.resets = 0


class HostileLink(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed):
        self.random = random.Random(seed)
        self.now = 100.0
        self.uid = 0
        self.sizes: dict[int, int] = {}
        self.sides = {role: self.new_side(role) for role in OTHER}
        self.all_served: list[tuple[int, int]] = []
        self.wire: dict[str, deque[bytes]] = {role: deque() for role in OTHER}
        self.partly: dict[str, bool] = dict.fromkeys(OTHER, False)
        self.swallow = False
        self.old: list[tuple[str, int, bytes]] = []
        self.reconnect()
        self.flow(quick=True)

    def new_side(self, role):
        return Side(role, self.now, self.random.getrandbits(32))

    def fresh_uid(self, size=0):
        self.uid += 1
        self.sizes[self.uid] = size
        return self.uid

    # -- applications

    def open(self, side):
        bulk, resume_from = self.chance(0.4), self.random.randint(1, 5)
        name = f"s{self.fresh_uid()}"
        try:
            stream = side.channel.open_stream(
                name, {"n": name}, priority=Priority(int(bulk)), resume_from=resume_from, compress=bulk
            )
        except BufferFull:
            return
        self.begin_stream(side, stream, name, resume_from - 1)

    def begin_stream(self, side, stream, name, last):
        side.sent[stream] = []
        side.got[stream] = []
        side.names[stream] = name
        side.numbers[stream] = last
        side.unread[stream] = deque()
        side.partial.pop(stream, None)
        side.closed.discard(stream)

    def send(self, side):
        size = self.random.choice([0, 1, 700, 999, 1000, 1001, 4500, 30_000])
        streams = [stream for stream in side.sent if stream not in side.closed]
        if not streams:
            return
        stream = self.random.choice(streams)
        uid = self.fresh_uid(size)
        payload = bytes([uid % 256]) * size
        room = side.channel.can_send(stream, size + len(f'{{"u":{uid}}}'))
        try:
            side.channel.send(stream, {"u": uid}, payload)
        except BufferFull:
            assert not room
            return
        assert room
        side.sent[stream].append(uid)

    def close_stream(self, side):
        streams = [stream for stream in side.sent if stream not in side.closed]
        if streams:
            stream = self.random.choice(streams)
            side.channel.close_stream(stream)
            side.closed.add(stream)

    def consume(self, side):
        streams = [stream for stream, waiting in side.unread.items() if waiting]
        if streams:
            stream = self.random.choice(streams)
            for _ in range(self.random.randint(1, len(side.unread[stream]))):
                seq = side.unread[stream].popleft()
            side.channel.consumed(stream, seq)

    def call(self, side):
        bulk, size = self.chance(0.4), self.random.choice([0, 10, 1900])
        seconds = self.random.choice([0.05, 2, 60])
        uid = self.fresh_uid(size)
        try:
            call = side.channel.call("m", {"u": uid}, b"c" * size, deadline=self.now + seconds, bulk=bulk)
        except BufferFull:
            return
        side.calls[call] = uid

    def notify(self, side):
        uid = self.fresh_uid()
        try:
            side.channel.notify("n", {"u": uid})
        except BufferFull:
            return
        side.notifications.append(uid)

    def cancel(self, side):
        running = [call for call in side.calls if call not in side.ended]
        if running:
            assert side.channel.cancel(self.random.choice(running))
            self.take(side)

    def answer(self, side):
        if side.serving:
            call = self.random.choice(sorted(side.serving))
            self.end_call(side, call, well=self.chance(0.8))

    def end_call(self, side, call, *, well):
        uid = side.serving[call]
        try:
            if well:
                assert side.channel.respond(call, {"u": uid}, b"r" * self.sizes[uid])
            else:
                assert side.channel.fail(call, "bad", f"{uid}")
        except BufferFull:
            return
        del side.serving[call]

    def chance(self, share):
        return self.random.random() < share

    # Every step draws its moves from a seed, so that one step can be a whole stretch of traffic.

    @rule(seed=st.integers(0, 2**32), moves=st.integers(1, 80), luck=st.sampled_from([0.85, 0.95, 1.0]))
    def traffic(self, seed, moves, luck):
        self.random.seed(seed)
        for _ in range(moves):
            for role in OTHER:
                self.act(self.sides[role])
                if self.chance(0.7):
                    self.transmit(role)
                while self.wire[role] and self.chance(0.7):
                    self.deliver(role, self.random.randint(1, 2000) if self.chance(0.4) else None)
            if not self.chance(luck):
                self.have_trouble()
            elif not all(side.channel.is_up for side in self.sides.values()) and self.chance(0.15):
                self.reconnect(self.random.choice(["both", "client", "server", "none"]))
            self.wait(self.random.choice([0.001, 0.02, 0.3]))
            self.bounds_hold()
            self.check_prefixes()

    def act(self, side):
        acts = {
            self.send: 8,
            self.consume: 5,
            self.answer: 5,
            self.call: 4,
            self.notify: 2,
            self.open: 1.5,
            self.cancel: 1,
            self.close_stream: 0.7,
        }
        self.random.choices(list(acts), list(acts.values()))[0](side)

    def have_trouble(self):
        role = self.random.choice(["client", "server"])
        kind = self.random.choice(["cut", "cut", "lose", "twice", "swap", "swallow", "old", "die"])
        if kind == "cut":
            self.reconnect(self.random.choice(["both", "client", "server", "none"]))
        elif kind == "die" and self.chance(0.3):
            self.restart(role)
        elif kind != "die":
            self.trouble(role, kind)

    @rule(role=ROLES, tell=st.sampled_from(["both", "client", "server", "none"]), seed=st.integers(0, 2**32))
    def cut(self, role, tell, seed):
        self.random.seed(seed)
        self.reconnect(tell)
        if self.chance(0.8):
            self.flow(quick=True)

    def trouble(self, role, kind):
        if self.chance(0.5):
            self.transmit(role)
        {
            "lose": self.lose_in_the_middle,
            "twice": self.deliver_twice,
            "swap": self.swap,
            "swallow": self.black_hole,
            "old": lambda _: self.old_connection_speaks(),
        }[kind](role)

    @rule(seconds=st.sampled_from([0.1, 2, 7]))
    def silence(self, seconds):
        self.wait(seconds)

    @rule(role=ROLES, early=st.booleans())
    def die(self, role, early):
        self.restart(role)
        if not early:
            self.flow(quick=True)

    # -- the link

    def transmit(self, role):
        data = self.sides[role].channel.data_to_send(self.now)
        if data and not self.swallow:
            self.wire[role].append(data)

    def deliver(self, role, part):
        if self.wire[role]:
            data = self.wire[role].popleft()
            cut = part is not None and part < len(data)
            self.partly[role] = cut
            if cut:
                self.wire[role].appendleft(data[part:])
                data = data[:part]
            self.hand_over(role, data)

    def hand_over(self, role, data, link=None):
        receiver = self.sides[OTHER[role]]
        if len(self.old) < 50:
            self.old.append((role, receiver.link, data))
        receiver.channel.receive(receiver.link if link is None else link, data, self.now)
        self.take(receiver)

    def flow(self, quick):
        """A stretch of good luck, so that runs get somewhere."""
        for _ in range(3 if quick else 12):
            for role in OTHER:
                self.transmit(role)
                while self.wire[role]:
                    self.deliver(role, None)

    def lose_in_the_middle(self, role):
        """ZMQ drops whole messages without a word when too many wait."""
        if self.wire[role] and not self.partly[role]:
            self.wire[role].popleft()

    def deliver_twice(self, role):
        if self.wire[role] and not self.partly[role]:
            self.wire[role].appendleft(self.wire[role][0])

    def swap(self, role):
        if len(self.wire[role]) > 1 and not self.partly[role]:
            self.wire[role][0], self.wire[role][1] = self.wire[role][1], self.wire[role][0]

    def black_hole(self, role):
        self.swallow = True
        for wire in self.wire.values():
            wire.clear()

    def old_connection_speaks(self):
        """What an earlier connection had carried arrives again, over the old transport or inside the new one."""
        if self.old:
            role, link, raw = self.random.choice(self.old)
            receiver = self.sides[OTHER[role]]
            if link != receiver.link:
                receiver.channel.receive(link, raw, self.now)
            self.take(receiver)

    def reconnect(self, tell="both"):
        for role, side in self.sides.items():
            if tell in ("both", role):
                side.channel.disconnected(side.link, self.now)
        for role in OTHER:
            # Whole batches of the old connection come out of the new one first, as a server's replay does it.
            late = [raw for raw in self.wire[role] if raw.startswith(b"\xc0\xb1\x01")][:2] if tell == "none" else []
            if self.partly[role]:
                late = late[1:]
            self.wire[role] = deque(late)
            self.partly[role] = False
        for side in self.sides.values():
            side.link = side.channel.connected(self.now)
            self.take(side)
        self.swallow = False

    def wait(self, seconds):
        until = self.now + seconds
        while self.now < until:
            deadlines = [side.channel.next_deadline() for side in self.sides.values()]
            self.now = min([until, *(max(d, self.now + 0.001) for d in deadlines if d is not None)])
            for side in self.sides.values():
                side.channel.tick(self.now)
                self.take(side)

    def restart(self, role):
        self.sides[role] = self.new_side(role)
        self.reconnect()

    # -- what the applications see

    def take(self, side):
        while (event := side.channel.next_event()) is not None:
            getattr(self, f"on_{type(event).__name__}", self.ignore)(side, event)

    def ignore(self, side, event):
        pass

    def on_ChannelClosed(self, side, event):
        raise AssertionError(f"{side.role} closed: {event}")

    def on_StreamOpened(self, side, event):
        assert event.params == {"n": event.name}
        self.begin_stream(side, event.stream, event.name, 0)

    def on_StreamGap(self, side, event):
        raise AssertionError("nobody declared a gap")

    def on_StreamData(self, side, event):
        side.unread[event.stream].append(event.seq)
        if event.header is not None:
            assert event.stream not in side.partial
            assert event.number == side.numbers[event.stream] + 1
            side.numbers[event.stream] = event.number
            side.partial[event.stream] = (event.header["u"], 0)
        uid, size = side.partial[event.stream]
        assert event.payload == bytes([uid % 256]) * len(event.payload)
        side.partial[event.stream] = (uid, size + len(event.payload))
        if event.final:
            del side.partial[event.stream]
            assert size + len(event.payload) == self.sizes[uid]
            side.got[event.stream].append(uid)

    def on_StreamClosed(self, side, event):
        assert event.stream not in side.partial

    def on_CallReceived(self, side, event):
        uid = event.params["u"]
        assert event.payload == b"c" * self.sizes[uid]
        assert uid not in side.served, "a call came twice"
        side.served.append(uid)
        side.serving[event.call] = uid

    def on_CallWithdrawn(self, side, event):
        side.serving.pop(event.call, None)

    def on_CallResult(self, side, event):
        uid = self.call_ended(side, event)
        assert event.result == {"u": uid}
        assert event.payload == b"r" * self.sizes[uid]

    def call_ended(self, side, event):
        assert event.call in side.calls
        assert event.call not in side.ended, "a call has two ends"
        side.ended.add(event.call)
        return side.calls[event.call]

    def on_CallError(self, side, event):
        uid = self.call_ended(side, event)
        assert event.code in ("deadline", "reset") or event.message == str(uid), (event, uid)

    on_CallCancelled = call_ended

    def on_Notified(self, side, event):
        assert event.params["u"] not in side.notified
        side.notified.append(event.params["u"])

    def on_PeerReset(self, side, event):
        side.resets += 1
        reported = {lost.stream: lost for lost in event.streams}
        for stream, uids in side.sent.items():
            if stream in reported:
                whole = [parse_object(piece.header)["u"] for piece in reported[stream].pieces if piece.header]
                # What was not consumed comes back as the tail of what was sent, complete.
                assert uids[len(uids) - len(whole) :] == whole
        self.check_prefixes()
        for table in (side.sent, side.got, side.names, side.numbers, side.unread, side.partial):
            table.clear()
        side.closed.clear()
        side.notifications.clear()
        side.notified.clear()
        assert all(call in side.ended for call in side.calls)

    # -- what must always hold

    def pairs(self):
        for side in self.sides.values():
            other = self.sides[OTHER[side.role]]
            for stream, name in side.names.items():
                if other.names.get(stream) == name:
                    yield side, other, stream

    def check_prefixes(self):
        for side, other, stream in self.pairs():
            got = other.got[stream]
            assert side.sent[stream][: len(got)] == got

    @invariant()
    def nothing_is_lost_doubled_or_out_of_order(self):
        if hasattr(self, "sides"):
            self.check_prefixes()

    @invariant()
    def bounds_hold(self):
        for side in getattr(self, "sides", {}).values():
            messages, size = side.channel.in_flight
            assert 0 <= messages <= SMALL.receive.in_flight_messages
            assert 0 <= size <= SMALL.receive.in_flight_bytes
            streams = side.channel._all_streams()
            for stream in streams:
                assert stream.receiver.unconsumed_bytes <= SMALL.receive.window_bytes
                assert len(stream.receiver._unconsumed) <= SMALL.receive.window_messages
                most = SMALL.buffer_bytes + 64 * 1024 * (stream.stream < 2)
                assert stream.sender.buffered_bytes <= most
                kept = stream.sender
                pieces = [*kept.held, *(p for p, _ in kept.flight), *kept.resend]
                sizes = sum(len(p.header) + len(p.payload) for p in pieces)
                sizes += sum(len(m.payload) - m.offset + len(m.header) * (not m.started) for m in kept.queue)
                assert kept.buffered_bytes == sizes
                assert kept.window_used == sum(p.cost for p in pieces)

    def teardown(self):
        if not hasattr(self, "sides"):
            return
        self.wait(0.01)
        self.reconnect()
        for _ in range(500):
            if all(
                side.channel.is_up and not side.channel.unsent_bytes and side.ended == set(side.calls)
                for side in self.sides.values()
            ):
                break
            self.flow(quick=True)
            for side in self.sides.values():
                if not side.channel.is_up:
                    continue
                for stream, waiting in side.unread.items():
                    if waiting:
                        side.channel.consumed(stream, waiting[-1])
                        waiting.clear()
                for call in sorted(side.serving):
                    self.end_call(side, call, well=True)
            self.wait(0.05)
        self.flow(quick=False)
        self.wait(0.05)
        self.flow(quick=False)
        for side in self.sides.values():
            assert side.channel.is_up
            assert side.ended == set(side.calls), "a call has no end"
            other = self.sides[OTHER[side.role]]
            assert other.notified == side.notifications
            assert side.channel.unsent_bytes == 0
            assert side.channel.in_flight == (0, 0)
            for stream, uids in side.sent.items():
                if uids:
                    assert other.got[stream] == uids
            assert set(side.channel._table.streams) == set(other.channel._table.streams)


HostileLink.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=5,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHostileLink = HostileLink.TestCase
