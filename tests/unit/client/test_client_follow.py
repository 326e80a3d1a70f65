"""Following a run across a daemon that goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import colab_bridge.client.follow as follow_module
from colab_bridge.client.address import Address
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.client.follow import follow_run
from colab_bridge.errors import TransientError
from scripted_server import STREAM_END, STREAM_HEAD, ScriptedServer, chunk, document


def line(seq: int) -> dict[str, Any]:
    return {"seq": seq, "type": "stream", "name": "stdout", "text": f"{seq}\n"}


STARTED = {"seq": 1, "type": "started", "run": {"id": "run-1"}}
FINISHED = {"seq": 9, "type": "finished", "status": "ok", "exit_code": 0}
PING = {"type": "ping"}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


def client_of(server: ScriptedServer) -> DaemonClient:
    return DaemonClient(Address(pid=1, create_time=0.0, port=server.port, token="t0k"), timeout_s=5)


def follow(server: ScriptedServer, run: Any, **options: Any) -> list[dict[str, Any]]:
    return list(follow_run(client_of(server), run, reconnect=lambda: client_of(server), **options))


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events if "seq" in event]


def test_events_come_until_the_run_has_finished(server: ScriptedServer) -> None:
    server.replies["POST /v1/runs"] = [STREAM_HEAD + chunk(STARTED, PING, line(2), FINISHED) + STREAM_END]
    events = follow(server, {"kind": "code", "code": "x"})
    assert [event["type"] for event in events] == ["started", "stream", "finished"]


def test_after_a_cut_the_run_goes_on_where_it_was_without_loss_or_repetition(server: ScriptedServer) -> None:
    server.replies["POST /v1/runs"] = [STREAM_HEAD + chunk(STARTED, line(2), line(3)) + b"10\r\n{"]
    server.replies["GET /v1/runs/run-1/events?after=3&follow=1"] = [STREAM_HEAD + chunk(line(3), line(4)) + b"5\r\n"]
    server.replies["GET /v1/runs/run-1/events?after=4&follow=1"] = [STREAM_HEAD + chunk(line(5), FINISHED) + STREAM_END]
    events = follow(server, {"kind": "code", "code": "x"})
    assert seqs(events) == [1, 2, 3, 4, 5, 9]


def test_a_cut_is_told_once(server: ScriptedServer) -> None:
    server.replies["GET /v1/runs/run-1/events"] = [
        STREAM_HEAD + chunk(line(2)) + b"5\r\n",
        STREAM_HEAD,
        STREAM_HEAD + chunk(FINISHED) + STREAM_END,
    ]
    events = follow(server, "run-1")
    assert [event["type"] for event in events].count("link") == 1


def test_following_can_begin_in_the_middle(server: ScriptedServer) -> None:
    server.replies["GET /v1/runs/run-1/events?after=7&follow=1"] = [STREAM_HEAD + chunk(line(8), FINISHED) + STREAM_END]
    assert seqs(follow(server, "run-1", after=7)) == [8, 9]


def test_a_request_whose_answer_was_cut_is_sent_again_as_the_same_run(server: ScriptedServer) -> None:
    server.replies["POST /v1/runs"] = [STREAM_HEAD + b"10\r\n{", STREAM_HEAD + chunk(STARTED, FINISHED) + STREAM_END]
    events = follow(server, {"kind": "code", "code": "x"})
    assert [event["type"] for event in events] == ["link", "started", "finished"]
    first, second = (json.loads(body) for body in server.bodies)
    assert first == second
    assert first["run_id"].startswith("run-")


def test_a_run_that_no_daemon_saw_end_is_finished_from_its_status(server: ScriptedServer) -> None:
    server.replies["GET /v1/runs/run-1/events"] = [STREAM_HEAD + chunk(line(2)) + STREAM_END]
    server.replies["GET /v1/runs/run-1"] = [
        document({"status": "lost", "exit_code": 69, "created_at": 10.0, "finished_at": 12.5})
    ]
    last = follow(server, "run-1")[-1]
    assert (last["type"], last["status"], last["exit_code"], last["duration_s"]) == ("finished", "lost", 69, 2.5)


def test_a_daemon_that_was_stopped_on_purpose_ends_following_with_the_way_back(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "RESTART_WAIT_S", 0.5)
    server.replies["GET /v1/runs/run-1/events"] = [STREAM_HEAD + chunk(line(2)) + b"5\r\n"]

    def nobody() -> DaemonClient:
        raise TransientError("none", code="CB-TRANSIENT-NO-DAEMON")

    with pytest.raises(TransientError) as caught:
        list(follow_run(client_of(server), "run-1", reconnect=nobody))
    assert caught.value.hint == "Come back to it: colab-bridge attach run-1"


def test_following_gives_up_when_the_daemon_never_stays(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_module, "GIVE_UP_AFTER_S", 0.5)
    server.replies["GET /v1/runs/run-1/events"] = [b""]
    with pytest.raises(TransientError):
        follow(server, "run-1")
