"""A recorded conversation, cut at every byte: the rest comes with the next link, nothing twice, nothing never."""

from __future__ import annotations

import pytest

from channel_pair import Pair
from colab_bridge.agent.events import CallReceived, CallResult, StreamData, StreamOpened
from colab_bridge.agent.limits import Limits

CHUNKS = Limits(chunk_bytes=40)


def begin() -> Pair:
    pair = Pair(client=CHUNKS, server=CHUNKS, seed=3)
    stream = pair.client.open_stream("journal", resume_from=5)
    pair.client.send(stream, {"a": 1}, b"x" * 100)
    pair.client.send(stream, {"a": 2}, b"z" * 10, number=9)
    pair.client.call("c", {"n": 1}, b"y" * 60, deadline=pair.now + 500)
    pair.connect()
    return pair


def answer(pair: Pair) -> None:
    """What the server's application does with what it sees."""
    for event in pair.take("server"):
        if isinstance(event, StreamOpened):
            pair.server.send(event.stream, {"b": 1}, b"w" * 90)
        elif isinstance(event, CallReceived):
            pair.server.respond(event.call, {"ok": 1})
        elif isinstance(event, StreamData):
            pair.server.consumed(event.stream, event.seq)
    for event in pair.take("client"):
        if isinstance(event, StreamData):
            pair.client.consumed(event.stream, event.seq)


def talk(pair: Pair, budget: int) -> int:
    """Let both ends talk until so many bytes have been delivered; return what is left of the budget."""
    for _ in range(30):
        for role, other in (("client", "server"), ("server", "client")):
            data = pair.ends[role].data_to_send(pair.now)[:budget]
            budget -= len(data)
            for place in range(0, len(data), 7):
                pair.ends[other].receive(pair.links[other], data[place : place + 7], pair.now)
            answer(pair)
            if not budget:
                return 0
        pair.now += 0.02
    return budget


def check(pair: Pair) -> None:
    server, client = pair.of("server", StreamData), pair.of("client", StreamData)
    assert b"".join(event.payload for event in server) == b"x" * 100 + b"z" * 10
    assert [event.number for event in server if event.final] == [1, 9]
    assert b"".join(event.payload for event in client) == b"w" * 90
    assert {event.number for event in client} == {5}
    assert [event.payload for event in pair.of("server", CallReceived)] == [b"y" * 60]
    assert len(pair.of("client", CallResult)) == 1
    assert pair.client.unsent_bytes == pair.server.unsent_bytes == 0
    assert not pair.client.is_closed
    assert not pair.server.is_closed


WHOLE = 1_000_000 - talk(begin(), 1_000_000)


def test_the_conversation_is_what_the_cuts_go_through():
    pair = begin()
    talk(pair, 1_000_000)
    check(pair)
    assert 2000 < WHOLE < 8000


@pytest.mark.parametrize("know", ["both", "client", "server"])
def test_a_cut_at_any_byte_changes_nothing_that_arrives(know):
    for place in range(WHOLE):
        pair = begin()
        talk(pair, place)
        for role in ("client", "server"):
            if know in ("both", role):
                pair.ends[role].disconnected(pair.links[role], pair.now)
        pair.connect()
        talk(pair, 1_000_000)
        check(pair)
