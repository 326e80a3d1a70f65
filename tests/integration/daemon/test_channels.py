"""The channels WebSocket: many front ends on one kernel, slow ones, ones that come back, and 100 MB."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from channels_client import channels, dial, front_end_kernel, kernel_ids
from daemon_home import DaemonHome

MB = 1024 * 1024


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


@pytest.fixture
def kernel(home: DaemonHome, request: pytest.FixtureRequest) -> Iterator[str]:
    found = front_end_kernel(home, f"{request.node.name}.ipynb")["id"]
    yield found
    home.client().delete(f"/v1/kernels/{found}")


async def test_the_first_text_says_where_the_kernel_stands(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        assert front.texts[0]["type"] == "attached"
        assert front.texts[0]["next_seq"] >= 1


async def test_messages_come_together_where_that_is_asked_for(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        await front.execute("for n in range(500): print(n, flush=True)")
        singly = front.numbered
    async with channels(home.client(), kernel, batch=True) as late:
        await late.until(lambda: late.numbered and late.last_seq >= singly[-1][0])
        assert late.texts[0]["batch"]
        assert late.numbered[: len(singly)] == singly
        assert late.frames < len(singly) / 10


async def test_two_front_ends_keep_their_own_replies(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as one, channels(home.client(), kernel) as two:
        first = await one.submit("import time; time.sleep(0.3); print('one'); 1")
        second = await two.submit("print('two'); 2")
        await one.until(lambda: one.ended(first) and one.ended(second))
        await two.until(lambda: two.ended(first) and two.ended(second))
        for front in (one, two):
            assert (front.text(first), front.text(second)) == ("one\n", "two\n")
            (reply,) = front.of(first, "execute_reply")
            assert reply.parent_fields()["session"] == one.session
            (reply,) = front.of(second, "execute_reply")
            assert reply.parent_fields()["session"] == two.session


async def test_requests_of_different_kinds_in_flight_are_told_apart(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        await front.execute("import math")
        info = await front.send("shell", "kernel_info_request", {})
        complete = await front.send("shell", "complete_request", {"code": "math.sq", "cursor_pos": 7})
        inspect = await front.send("shell", "inspect_request", {"code": "math", "cursor_pos": 4, "detail_level": 0})
        history = await front.send(
            "shell", "history_request", {"hist_access_type": "tail", "n": 1, "output": False, "raw": True}
        )
        await front.until(lambda: front.of(history, "history_reply"))
        assert front.of(info, "kernel_info_reply")[0].content_fields()["language_info"]["name"] == "python"
        assert "sqrt" in str(front.of(complete, "complete_reply")[0].content_fields()["matches"])
        assert front.of(inspect, "inspect_reply")[0].content_fields()["found"] is True


async def test_a_request_sent_twice_runs_once(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        await front.execute("count = 0")
        again = await front.submit("count += 1", msg_id="the-same-id")
        await front.submit("count += 1", msg_id="the-same-id")
        await front.until(lambda: front.ended(again))
        shown = await front.execute("print(count)")
        assert front.text(shown) == "1\n"


async def test_a_front_end_that_comes_back_gets_exactly_the_rest(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as whole:
        async with channels(home.client(), kernel) as first:
            await first.execute("print('before')")
            cursor = first.last_seq
        await whole.execute("print('meanwhile')")
        async with channels(home.client(), kernel, after=cursor) as second:
            last = await second.execute("print('after')")
            await whole.until(lambda: whole.ended(last))
            numbers = [seq for seq, _ in second.numbered]
            expected = [(seq, m.parts()) for seq, m in whole.numbered if cursor < seq <= second.last_seq]
            assert numbers == sorted(set(numbers))
            assert [(seq, m.parts()) for seq, m in second.numbered] == expected


async def test_binary_buffers_go_both_ways_unchanged(home: DaemonHome, kernel: str) -> None:
    target = (
        "def opened(comm, message):\n"
        "    @comm.on_msg\n"
        "    def echo(message):\n"
        "        comm.send({'n': len(message['buffers'])}, buffers=[bytes(b)[::-1] for b in message['buffers']])\n"
        "get_ipython().kernel.comm_manager.register_target('echo', opened)\n"
    )
    async with channels(home.client(), kernel) as front:
        await front.execute(target)
        await front.send("shell", "comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}})
        sent = bytes(range(256)) * 4096
        await front.send("shell", "comm_msg", {"comm_id": "c1", "data": {}}, buffers=[sent, b"", b"\x00"])
        await front.until(lambda: any(m.msg_type == "comm_msg" for m in front.messages))
        (answer,) = [m for m in front.messages if m.msg_type == "comm_msg"]
        assert [bytes(b) for b in answer.buffers] == [sent[::-1], b"", b"\x00"]


async def test_input_goes_to_the_front_end_that_asked_and_its_answer_to_the_code(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        request = await front.submit("print('hello', input('who? '))", allow_stdin=True)
        await front.until(lambda: front.of(request, "input_request"))
        (question,) = front.of(request, "input_request")
        assert question.content_fields()["prompt"] == "who? "
        await front.send("stdin", "input_reply", {"value": "Ada"}, parent=question.header_fields())
        await front.until(lambda: front.ended(request))
        assert front.text(request) == "hello Ada\n"


async def test_an_interrupt_arrives_within_a_second(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        request = await front.submit("print('up', flush=True)\nwhile True: pass")
        await front.until(lambda: front.text(request))
        started = time.monotonic()
        await anyio.to_thread.run_sync(home.client().post, f"/v1/kernels/{kernel}/interrupt")
        await front.until(lambda: front.ended(request))
        assert time.monotonic() - started < 1
        assert front.of(request, "execute_reply")[0].content_fields()["ename"] == "KeyboardInterrupt"


async def test_a_restart_is_told_and_leaves_a_fresh_kernel(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        await front.execute("x = 1")
        await anyio.to_thread.run_sync(home.client().post, f"/v1/kernels/{kernel}/restart")
        await front.until(lambda: any(text.get("state") == "starting" for text in front.texts))
        shown = await front.execute("print('x' in globals())")
        assert front.text(shown) == "False\n"


async def test_a_deleted_kernel_closes_its_front_ends_with_4410(home: DaemonHome) -> None:
    kernel = front_end_kernel(home, "deleted.ipynb")["id"]
    async with channels(home.client(), kernel) as front:
        await front.execute("1")
        await anyio.to_thread.run_sync(home.client().delete, f"/v1/kernels/{kernel}")
        await front.until(lambda: front.close_code is not None)
        assert front.close_code == 4410
        assert front.texts[-1]["state"] == "gone"
    assert kernel not in kernel_ids(home)


async def test_a_kernel_that_does_not_exist_closes_with_4404(home: DaemonHome) -> None:
    async with dial(home.client(), "kernel-nothing") as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4404


async def test_a_kernel_that_dies_is_told_to_its_front_end(home: DaemonHome) -> None:
    kernel = front_end_kernel(home, "dies.ipynb")["id"]
    async with channels(home.client(), kernel) as front:
        await front.submit("import os; os._exit(1)")
        await front.until(lambda: any(text.get("state") == "dead" for text in front.texts))


async def test_messages_that_are_none_are_dropped_and_the_rest_goes_on(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        for rubbish in (b"", b"\x00", b"\xff" * 64, b"\x05" + b"\x00" * 47, "text", '{"type": "unknown"}', "[1]"):
            await front.socket.send(rubbish)
        await front.send("iopub", "stream", {"name": "stdout", "text": "forged"})
        shown = await front.execute("print('still here')")
        assert front.text(shown) == "still here\n"
        assert not [m for m in front.messages if b"forged" in m.content]


async def test_a_request_larger_than_the_server_takes_is_executed(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as front:
        await front.execute("x = '" + "y" * (12 * MB) + "'")
        shown = await front.execute("print(len(x))")
        assert front.text(shown) == f"{12 * MB}\n"


async def test_a_front_end_that_does_not_read_delays_nobody(home: DaemonHome, kernel: str) -> None:
    async with channels(home.client(), kernel) as reader, dial(home.client(), kernel) as stalled:
        flood = await reader.submit("for n in range(40):\n    print('x' * 1_000_000)")
        started = time.monotonic()
        await reader.until(lambda: reader.ended(flood), 20)
        assert len(reader.text(flood)) == 40 * 1_000_001
        assert time.monotonic() - started < 15
        started = time.monotonic()
        await reader.execute("1")
        assert time.monotonic() - started < 1
        stalled.transport.abort()


async def test_100_mb_of_output_do_not_grow_the_daemon(home: DaemonHome, kernel: str) -> None:
    def memory() -> int:
        return int(home.client().get("/v1/status")["daemon"]["rss_bytes"])

    before = memory()
    async with channels(home.client(), kernel) as reader, dial(home.client(), kernel) as stalled:
        flood = await reader.submit("for n in range(1_000_000):\n    print('%099d' % n)")
        peak = before
        with anyio.fail_after(60):
            while not reader.ended(flood):
                peak = max(peak, await anyio.to_thread.run_sync(memory))
                await anyio.sleep(0.1)
        assert reader.text(flood) == "".join(f"{n:099d}\n" for n in range(1_000_000))
        stalled.transport.abort()
    assert peak - before < 150 * MB


async def test_a_front_end_outlives_the_daemon_by_asking_for_the_rest(daemon_home: DaemonHome) -> None:
    kernel = front_end_kernel(daemon_home)["id"]
    async with channels(daemon_home.client(), kernel) as first:
        request = await first.submit("import time\nfor n in range(20):\n    print(n, flush=True); time.sleep(0.1)")
        await first.until(lambda: "5\n" in first.text(request))
        await anyio.to_thread.run_sync(daemon_home.kill_daemon)
        await first.until(lambda: first.close_code is not None)
    again = await anyio.to_thread.run_sync(daemon_home.client)
    async with channels(again, kernel, after=first.last_seq) as second:
        await second.until(lambda: second.ended(request))
        assert first.text(request) + second.text(request) == "".join(f"{n}\n" for n in range(20))
        assert {seq for seq, _ in first.numbered}.isdisjoint(seq for seq, _ in second.numbered)
        assert not any(text["type"] == "lost" for text in second.texts)


async def test_an_orderly_stop_closes_with_1012_and_the_kernel_waits_for_its_front_end(daemon_home: DaemonHome) -> None:
    kernel = front_end_kernel(daemon_home)["id"]
    async with channels(daemon_home.client(), kernel) as front:
        await front.execute("kept = 'still here'")
        await anyio.to_thread.run_sync(daemon_home.stop_daemon)
        await front.until(lambda: front.close_code is not None)
        assert front.close_code == 1012
    async with channels(await anyio.to_thread.run_sync(daemon_home.client), kernel, after=front.last_seq) as again:
        shown = await again.execute("print(kept)")
        assert again.text(shown) == "still here\n"
