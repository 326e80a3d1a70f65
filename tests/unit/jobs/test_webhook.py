"""Notices over HTTP: what arrives, what is tried again, and that the address stays secret."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from colab_bridge.config.settings import NotifySettings
from colab_bridge.execution.notices.service import RETRY_PAUSES_S, NoticeService
from colab_bridge.execution.notices.webhook import post_notice
from colab_bridge.model.jobs import NoticeState
from colab_bridge.model.records import RunStatus
from colab_bridge.store import Store
from job_scenes import a_run, an_end
from scripted_upstream import ManualClock

SECRET = "T0SECRET"


class Receiver:
    """A server on loopback that keeps what it gets and answers as told; 0 closes the connection without an answer."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.answers: list[int] = []
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append(json.loads(body))
                outer.keys.append(self.headers["Idempotency-Key"])
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def service_for(url: str, store: Store, clock: ManualClock) -> NoticeService:
    settings = NotifySettings(desktop=False, webhook=url)
    service = NoticeService(store, clock, lambda project: settings)
    run = a_run()
    store.put_run(run, "/p")
    service.ended(*an_end(run, RunStatus.OK, 90))
    clock.now = 1090.0
    return service


def state_of(store: Store) -> NoticeState:
    (notice,) = store.notices_of()
    return notice.state


async def test_a_notice_is_posted_as_json_that_slack_reads_too(
    receiver: Receiver, store: Store, clock: ManualClock
) -> None:
    await service_for(receiver.url, store, clock)._round()
    (document,) = receiver.got
    assert document["text"].startswith("train.py is done\nafter 1 min 30 s")
    assert {"event": "ended", "run": "run-1", "exit_code": 0, "duration_s": 90.0}.items() <= document.items()
    assert receiver.keys == [document["id"]]
    assert state_of(store) is NoticeState.SENT


async def test_a_receiver_that_is_busy_gets_the_notice_later_and_once(
    receiver: Receiver, store: Store, clock: ManualClock
) -> None:
    receiver.answers = [503, 429]
    service = service_for(receiver.url, store, clock)
    for pause in (0.0, *RETRY_PAUSES_S):
        clock.now += pause
        await service._round()
    assert len(receiver.got) == 3
    assert len(set(receiver.keys)) == 1
    assert state_of(store) is NoticeState.SENT


async def test_a_receiver_that_asks_for_time_gets_it(receiver: Receiver, store: Store, clock: ManualClock) -> None:
    receiver.answers, receiver.headers = [429], {"Retry-After": "120"}
    service = service_for(receiver.url, store, clock)
    await service._round()
    clock.now += 119
    await service._round()
    assert len(receiver.got) == 1
    clock.now += 2
    await service._round()
    assert len(receiver.got) == 2


@pytest.mark.parametrize("answer", [0, 302, 400, 404, 500])
async def test_a_notice_that_may_have_arrived_or_is_not_wanted_is_not_sent_again(
    receiver: Receiver, store: Store, clock: ManualClock, answer: int
) -> None:
    receiver.answers = [answer]
    service = service_for(receiver.url, store, clock)
    for _ in range(4):
        await service._round()
        clock.now += 10_000
    assert len(receiver.got) == 1
    assert state_of(store) is NoticeState.FAILED


async def test_a_receiver_that_never_answers_is_given_up_after_a_few_tries(store: Store, clock: ManualClock) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        service = service_for(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}", store, clock)
        for _ in range(len(RETRY_PAUSES_S) + 3):
            await service._round()
            clock.now += 10_000
    (notice,) = store.notices_of()
    assert (notice.state, notice.tries) == (NoticeState.FAILED, len(RETRY_PAUSES_S) + 1)
    assert "not reached" in service.problem


@pytest.mark.parametrize("answer", [200, 0, 404, 503])
async def test_the_address_is_in_no_log_and_in_no_text(
    receiver: Receiver, store: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture, answer: int
) -> None:
    receiver.answers = [answer]
    caplog.set_level(logging.INFO, logger="colab_bridge")
    service = service_for(receiver.url, store, clock)
    await service._round()
    logged = "".join(
        f"{record.getMessage()} {vars(record)}" for record in caplog.records if record.name.startswith("colab_bridge")
    )
    assert SECRET not in logged
    assert SECRET not in service.problem
    assert SECRET not in repr(store.notices_of())
    assert SECRET not in repr(NotifySettings(webhook=receiver.url))


async def test_an_address_that_is_none_is_a_problem_and_no_failure() -> None:
    assert (await post_notice("https://[", {})).problem
