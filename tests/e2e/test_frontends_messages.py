"""Every kind of message through the proxy kernel to a real ipykernel and back."""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from frontends_support import WAIT_S, Bridge, FrontEnd, bridge, text_of

__all__ = ["bridge"]

pytestmark = pytest.mark.ecosystem


@pytest.fixture(scope="module")
def front(bridge: Bridge) -> Iterator[FrontEnd]:
    """One front end for all tests here; none of them leaves anything behind."""
    found = FrontEnd(bridge.project)
    yield found
    found.close()


def result(messages: list[dict[str, Any]], mime: str = "text/plain") -> Any:
    """Return the data of the only result or display."""
    (found,) = [m for m in messages if m["msg_type"] in ("execute_result", "display_data")]
    return found["content"]["data"][mime]


def test_stdout_stderr_and_the_result_arrive_in_order(front: FrontEnd) -> None:
    messages = front.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (text_of(messages), text_of(messages, "stderr"), result(messages)) == ("out\n", "err\n", "42")
    kinds = [m["msg_type"] for m in messages]
    assert kinds[:2] == ["status", "execute_input"]
    assert kinds[-2:] == ["execute_result", "status"]


def test_the_kernel_works_in_the_notebooks_folder(front: FrontEnd, bridge: Bridge) -> None:
    assert text_of(front.run("import os; print(os.getcwd())")).strip() == str(bridge.project)


def test_an_exception_arrives_with_its_traceback(front: FrontEnd) -> None:
    messages = front.run("1 / 0")
    (error,) = [m["content"] for m in messages if m["msg_type"] == "error"]
    assert error["ename"] == "ZeroDivisionError"
    assert any("1 / 0" in line or "ZeroDivisionError" in line for line in error["traceback"])


def test_a_plot_arrives_as_png(front: FrontEnd) -> None:
    pytest.importorskip("matplotlib")
    messages = front.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.show()", 60)
    assert base64.b64decode(result(messages, "image/png")).startswith(b"\x89PNG")


def test_input_asks_the_front_end_and_gets_the_answer(front: FrontEnd) -> None:
    msg_id = front.client.execute("name = input('Name? '); print('Hello', name)")
    asked = front.client.get_stdin_msg(timeout=WAIT_S)
    assert (asked["msg_type"], asked["content"]["prompt"]) == ("input_request", "Name? ")
    front.client.input("Ada")
    assert text_of(front.outputs(msg_id)).endswith("Hello Ada\n")
    front.reply(msg_id)


@pytest.mark.parametrize("code", ["import time; time.sleep(100)", "while True: pass"])
def test_an_interrupt_becomes_a_keyboard_interrupt_and_keeps_variables(front: FrontEnd, code: str) -> None:
    front.run("kept = 5")
    msg_id = front.client.execute(code)
    front.wait_until_busy(msg_id)
    front.manager.interrupt_kernel()
    assert front.reply(msg_id)["content"]["ename"] == "KeyboardInterrupt"
    front.outputs(msg_id)
    assert text_of(front.run("print(kept)")) == "5\n"


def test_an_interrupt_request_is_answered_on_control(front: FrontEnd) -> None:
    msg_id = front.client.execute("import time; time.sleep(100)")
    front.wait_until_busy(msg_id)
    assert front.content("control", "interrupt_request", {}) == {"status": "ok"}
    assert front.reply(msg_id)["content"]["status"] == "error"
    front.outputs(msg_id)


def test_two_requests_in_flight_keep_their_own_replies(front: FrontEnd) -> None:
    ids = [front.client.execute(f"import time; time.sleep(0.2); print({n})") for n in range(2)]
    ids.append(front.client.complete("pri"))
    replies = {}
    while len(replies) < len(ids):
        message = front.client.get_shell_msg(timeout=WAIT_S)
        replies[message["parent_header"]["msg_id"]] = message["msg_type"]
    assert [replies[i] for i in ids] == ["execute_reply", "execute_reply", "complete_reply"]
    assert [text_of(front.outputs(i)) for i in ids[:2]] == ["0\n", "1\n"]
    front.outputs(ids[2])


def test_kernel_info_is_that_of_the_real_kernel(front: FrontEnd) -> None:
    content = front.content("shell", "kernel_info_request", {})
    assert content["implementation"] == "ipython"
    assert content["language_info"]["name"] == "python"
    assert content.get("debugger") or "debugger" in content["supported_features"]


def test_no_request_waits_for_a_delayed_acknowledgement(front: FrontEnd) -> None:
    """Two small writes in a row cost 40 ms on any connection on the way where Nagle's algorithm is left on."""
    took = []
    for _ in range(31):
        begun = time.perf_counter()
        front.content("shell", "kernel_info_request", {})
        took.append(time.perf_counter() - begun)
    assert statistics.median(took) < 0.03


def test_completion_inspection_history_and_completeness_work(front: FrontEnd) -> None:
    front.run("some_long_name = 1")
    complete = front.content("shell", "complete_request", {"code": "some_lo", "cursor_pos": 7})
    assert "some_long_name" in complete["matches"]
    inspect = front.content("shell", "inspect_request", {"code": "len", "cursor_pos": 3, "detail_level": 0})
    assert inspect["found"]
    assert "text/plain" in inspect["data"]
    request = {"output": False, "raw": True, "hist_access_type": "tail", "n": 1}
    assert front.content("shell", "history_request", request)["history"][0][2] == "some_long_name = 1"
    assert front.content("shell", "is_complete_request", {"code": "def f():"})["status"] == "incomplete"


def test_a_widget_opens_its_comm_and_takes_new_values(front: FrontEnd) -> None:
    pytest.importorskip("ipywidgets")
    msg_id = front.client.execute("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider")
    front.reply(msg_id, timeout_s=60)
    messages = front.outputs(msg_id, 60)
    opened = [m["content"] for m in messages if m["msg_type"] == "comm_open"]
    (model,) = [c for c in opened if c["data"]["state"].get("_model_name") == "IntSliderModel"]
    assert result(messages, "application/vnd.jupyter.widget-view+json")["model_id"] == model["comm_id"]
    known = front.content("shell", "comm_info_request", {"target_name": "jupyter.widget"})["comms"]
    assert model["comm_id"] in known
    update = {"method": "update", "state": {"value": 8}, "buffer_paths": []}
    front.outputs(front.ask("shell", "comm_msg", {"comm_id": model["comm_id"], "data": update}))
    assert text_of(front.run("print(slider.value)")) == "8\n"


def test_binary_buffers_pass_both_ways(front: FrontEnd) -> None:
    front.run(
        "from comm import get_comm_manager\n"
        "def opened(c, message):\n"
        "    c.on_msg(lambda m: c.send({'n': len(m['buffers'])}, buffers=[bytes(b)[::-1] for b in m['buffers']]))\n"
        "get_comm_manager().register_target('echo', opened)"
    )
    front.outputs(front.ask("shell", "comm_open", {"comm_id": "c1", "target_name": "echo", "data": {}}))
    buffers = [b"abc", b"", bytes(range(256)) * 4096]
    msg_id = front.ask("shell", "comm_msg", {"comm_id": "c1", "data": {}}, buffers=buffers)
    (echo,) = [m for m in front.outputs(msg_id) if m["msg_type"] == "comm_msg"]
    assert echo["content"]["data"] == {"n": 3}
    assert [bytes(b) for b in echo["buffers"]] == [b[::-1] for b in buffers]


def test_a_message_larger_than_a_server_takes_is_executed(front: FrontEnd) -> None:
    front.run("x = '" + "y" * 12_000_000 + "'", 60)
    assert text_of(front.run("print(len(x))")) == "12000000\n"


def test_a_large_display_arrives_whole(front: FrontEnd) -> None:
    messages = front.run("from IPython.display import display\ndisplay({'text/plain': 'x' * 20_000_000}, raw=True)", 60)
    assert len(result(messages)) == 20_000_000


def test_a_flood_of_lines_arrives_whole(front: FrontEnd) -> None:
    messages = front.run("for n in range(100_000): print(n)", 60)
    assert text_of(messages).split() == [str(n) for n in range(100_000)]
    assert text_of(messages, "stderr") == ""


def test_the_heartbeat_answers_while_the_kernel_is_busy(front: FrontEnd) -> None:
    msg_id = front.client.execute("import time; time.sleep(0.5)")
    front.wait_until_busy(msg_id)
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    try:
        socket.connect(front.client._make_url("hb"))
        socket.send(b"ping")
        assert socket.poll(400)
        assert socket.recv() == b"ping"
    finally:
        socket.close(linger=0)
        context.term()
    front.reply(msg_id)
    front.outputs(msg_id)


def test_a_second_front_end_on_the_same_kernel_sees_its_own_replies(front: FrontEnd) -> None:
    second = BlockingKernelClient(connection_file=front.manager.connection_file)
    second.load_connection_file()
    second.start_channels()
    try:
        second.wait_for_ready(timeout=WAIT_S)
        msg_id = second.execute("print('second')")
        while (reply := second.get_shell_msg(timeout=WAIT_S))["parent_header"].get("msg_id") != msg_id:
            pass
        assert reply["content"]["status"] == "ok"
        assert text_of(front.outputs(msg_id)) == "second\n"
    finally:
        second.stop_channels()
        second.context.destroy(linger=0)


def test_encrypted_sockets_are_used_when_the_front_end_demands_them(bridge: Bridge) -> None:
    secure = FrontEnd(bridge.project, transport_encryption="required")
    try:
        assert text_of(secure.run("print('secret')")) == "secret\n"
    finally:
        secure.close()
