"""Calls and streams against a server whose every byte is written down."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from colab_bridge.client.address import Address
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.errors import TransientError, UserError
from scripted_server import STREAM_END, STREAM_HEAD, ScriptedServer, chunk, document


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> DaemonClient:
    return DaemonClient(Address(pid=1, create_time=0.0, port=server.port, token="t0k"), timeout_s=5)


def test_a_document_is_returned_as_it_was_sent(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /v1/status"] = [document({"a": [1, "ü"]})]
    assert client.get("/v1/status", project="/x y", limit=None) == {"a": [1, "ü"]}
    assert server.requests == ["GET /v1/status?project=%2Fx%20y"]


def test_a_body_arrives_whole(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["POST /v1/runs"] = [document({}, 201)]
    client.post("/v1/runs", {"source": "x" * 300_000})
    assert len(server.bodies[0]) > 300_000


def test_an_empty_answer_is_an_empty_document(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["POST /v1/runs/r/input"] = [b"HTTP/1.1 204 No Content\r\n\r\n"]
    assert client.post("/v1/runs/r/input", {"value": "x", "eof": False}) == {}


def test_a_problem_becomes_the_error_that_the_daemon_raised(server: ScriptedServer, client: DaemonClient) -> None:
    problem = UserError("no such thing", hint="do that", code="CB-USER-9").to_problem()
    server.replies["DELETE /v1/sessions/x"] = [document(problem, 422)]
    with pytest.raises(UserError, match="no such thing") as caught:
        client.delete("/v1/sessions/x")
    assert (caught.value.hint, caught.value.code) == ("do that", "CB-USER-9")


def test_a_foreign_server_on_the_port_is_recognised(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /v1/health"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"]
    with pytest.raises(TransientError, match="not the daemon's"):
        client.get("/v1/health")


def test_a_connection_that_is_cut_in_an_answer_is_an_error(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /v1/status"] = [document({"a": 1})[:-3]]
    with pytest.raises(TransientError, match="cut"):
        client.get("/v1/status")


def test_a_call_without_an_answer_ends_after_its_time(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /v1/status"] = [lambda connection: time.sleep(1.2)]
    waits: list[float] = []
    client.on_wait = waits.append
    with pytest.raises(TransientError, match="has not answered") as caught:
        client.get("/v1/status", timeout_s=0.6)
    assert caught.value.code == "CB-TRANSIENT-TIMEOUT"
    assert waits


def test_nobody_at_the_port_is_an_error_that_may_pass(server: ScriptedServer, client: DaemonClient) -> None:
    server.close()
    with pytest.raises(TransientError):
        client.get("/v1/status")


def test_events_come_one_by_one_over_any_cut_of_the_bytes(server: ScriptedServer, client: DaemonClient) -> None:
    events = [{"type": "stream", "seq": n, "text": "é" * n} for n in range(20)]
    data = STREAM_HEAD + b"".join(chunk(event) for event in events) + STREAM_END

    def slowly(connection: socket.socket) -> None:
        for index in range(0, len(data), 7):
            connection.sendall(data[index : index + 7])

    server.replies["GET /v1/runs/r/events"] = [slowly]
    with client.stream("GET", "/v1/runs/r/events", after=3) as stream:
        assert list(stream) == events
        assert stream.ended


def test_a_stream_that_is_cut_gives_its_whole_events_and_then_an_error(
    server: ScriptedServer, client: DaemonClient
) -> None:
    whole = {"type": "stream", "seq": 1, "text": "a"}
    server.replies["GET /e"] = [STREAM_HEAD + chunk(whole) + b'20\r\n{"type": "str']
    seen = []
    with client.stream("GET", "/e") as stream, pytest.raises(TransientError, match="cut"):
        for event in stream:
            seen.append(event)  # the error in the middle is the point
    assert seen == [whole]


def test_half_an_event_at_an_orderly_end_is_an_error(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /e"] = [STREAM_HEAD + b'3\r\n{"t\r\n' + STREAM_END]
    with client.stream("GET", "/e") as stream, pytest.raises(TransientError):
        list(stream)


@pytest.mark.parametrize("line", [b"[]", b"{}", b"nonsense", b'{"type": 3}', b"[" * 5000])
def test_lines_that_are_no_events_are_refused(server: ScriptedServer, client: DaemonClient, line: bytes) -> None:
    server.replies["GET /e"] = [STREAM_HEAD + f"{len(line) + 1:x}\r\n".encode() + line + b"\n\r\n" + STREAM_END]
    with client.stream("GET", "/e") as stream, pytest.raises(TransientError):
        list(stream)


def test_a_refused_stream_raises_the_daemons_own_error(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["POST /v1/runs"] = [document(UserError("no", hint="yes").to_problem(), 422)]
    with client.stream("POST", "/v1/runs", {"kind": "code"}) as stream, pytest.raises(UserError, match="no"):
        list(stream)


def test_waiting_for_an_event_ends_when_another_source_is_ready(server: ScriptedServer, client: DaemonClient) -> None:
    server.replies["GET /e"] = [lambda connection: time.sleep(1)]
    mine, other = socket.socketpair()
    with mine, other, client.stream("GET", "/e") as stream:
        other.send(b"x")
        begun = time.monotonic()
        assert stream.poll(30, [mine]) is None
        assert time.monotonic() - begun < 5
