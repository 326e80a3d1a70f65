"""A kernel whose machine is got at the first cell."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from colab_bridge.errors import UserError
from colab_bridge.kernels.proxy import relay as relay_module
from colab_bridge.kernels.proxy.deferral import chosen_hardware
from colab_bridge.kernels.proxy.relay import KernelRelay
from colab_bridge.wire.message import RawMessage
from test_proxy_decisions import Kernel, Wire, make

FRONT = [b"front"]


def request(msg_type: str, msg_id: str = "", channel: str = "shell", **content: Any) -> RawMessage:
    return RawMessage.build(channel, msg_type, content, msg_id=msg_id or f"id-{msg_type}", session="s")


def cell(msg_id: str = "cell", **more: Any) -> RawMessage:
    return request("execute_request", msg_id, code="1", silent=False, store_history=True, **more)


class Scene:
    """A relay under way, and what its front end got."""

    def __init__(self, kernel: Kernel, relay: KernelRelay, wire: Wire) -> None:
        self.kernel, self.relay, self.wire = kernel, relay, wire

    def got(self, kind: str) -> list[dict[str, Any]]:
        return [content for _, msg_type, content in self.wire.sent if msg_type == kind]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        with anyio.fail_after(5):
            while len(self.got(kind)) < count:
                await anyio.sleep(0.005)
        return self.got(kind)[count - 1]

    async def until_called(self, what: str) -> None:
        with anyio.fail_after(5):
            while what not in self.kernel.calls:
                await anyio.sleep(0.005)


@contextlib.asynccontextmanager
async def opened(*, asks: bool = False, delay_s: float = 3600.0) -> AsyncIterator[Scene]:
    kernel = Kernel(delay_s=delay_s, costs=True)
    relay, wire = make(kernel, asks=asks)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run)
        await anyio.wait_all_tasks_blocked()
        yield Scene(kernel, relay, wire)
        tasks.cancel_scope.cancel()


async def test_opening_a_notebook_gets_no_machine_and_the_kernel_looks_ready() -> None:
    async with opened() as scene:
        scene.relay.take(request("kernel_info_request"), FRONT)
        info = await scene.until("kernel_info_reply")
        assert "first cell" in info["banner"]
        assert scene.kernel.calls == []


@pytest.mark.parametrize(
    ("msg_type", "reply"),
    [
        ("comm_info_request", {"status": "ok", "comms": {}}),
        ("history_request", {"status": "ok", "history": []}),
        ("is_complete_request", {"status": "unknown"}),
        ("inspect_request", {"status": "ok", "found": False, "data": {}, "metadata": {}}),
    ],
)
async def test_what_editors_ask_at_once_is_answered_without_a_machine(msg_type: str, reply: dict[str, Any]) -> None:
    async with opened() as scene:
        scene.relay.take(request(msg_type), FRONT)
        assert await scene.until(msg_type.replace("request", "reply")) == reply
        assert scene.kernel.calls == []


async def test_a_completion_without_a_machine_is_empty() -> None:
    async with opened() as scene:
        scene.relay.take(request("complete_request", code="abc", cursor_pos=3), FRONT)
        assert (await scene.until("complete_reply"))["matches"] == []


async def test_code_that_an_editor_sends_by_itself_gets_no_machine_either() -> None:
    async with opened() as scene:
        scene.relay.take(request("execute_request", "setup", code="x = 1", silent=True, store_history=False), FRONT)
        assert (await scene.until("execute_reply"))["status"] == "ok"
        assert scene.kernel.calls == []


async def test_the_first_cell_gets_the_machine() -> None:
    async with opened() as scene:
        scene.relay.take(cell(), FRONT)
        await scene.until_called("acquire")


async def test_code_of_the_editor_runs_on_the_machine_before_the_first_cell() -> None:
    async with opened() as scene:
        setup = request("execute_request", "setup", code="x = 1", silent=True)
        scene.relay.take(setup, FRONT)
        scene.relay.take(cell(), FRONT)
        await scene.until_called("acquire")
        assert [message.msg_id for message in scene.relay._outbox.unanswered()] == ["setup", "cell"]
        assert len(scene.got("execute_reply")) == 1


async def test_what_is_said_while_the_machine_is_got_stands_in_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "SAID_EVERY_S", 0.01)
    async with opened() as scene:
        scene.kernel.lines = [(1, "asking for a T4"), (2, "no T4 is free; trying again in 30 s")]
        scene.relay.take(cell(), FRONT)
        await scene.until("stream", 2)
        assert [shown["text"] for shown in scene.got("stream")] == [
            "[colab-bridge] asking for a T4\n",
            "[colab-bridge] no T4 is free; trying again in 30 s\n",
        ]
        await anyio.sleep(0.05)
        assert len(scene.got("stream")) == 2


async def test_an_interrupt_gives_up_the_wait_and_the_next_cell_begins_anew() -> None:
    async with opened() as scene:
        scene.relay.take(cell("one"), FRONT)
        await scene.until_called("acquire")
        scene.relay.take(request("interrupt_request", channel="control"), FRONT)
        assert (await scene.until("execute_reply"))["ename"] == "KeyboardInterrupt"
        with anyio.fail_after(5):
            while not scene.relay._deferral.active:
                await anyio.sleep(0.005)
        scene.relay.take(cell("two"), FRONT)
        with anyio.fail_after(5):
            while scene.kernel.calls.count("acquire") < 2:
                await anyio.sleep(0.005)


async def test_a_kernel_that_asks_asks_in_the_first_cell() -> None:
    async with opened(asks=True) as scene:
        scene.relay.take(cell(allow_stdin=True), FRONT)
        assert "Which machine" in (await scene.until("input_request"))["prompt"]
        assert scene.kernel.calls == []
        scene.relay.take(request("input_reply", channel="stdin", value="a100, t4"), FRONT)
        await scene.until_called("acquire")
        assert scene.kernel.options == {"gpu": "A100,T4"}


async def test_an_answer_that_names_no_machine_is_asked_again() -> None:
    async with opened(asks=True) as scene:
        scene.relay.take(cell(allow_stdin=True), FRONT)
        await scene.until("input_request")
        scene.relay.take(request("input_reply", "r1", channel="stdin", value="RTX 9090"), FRONT)
        assert "RTX 9090" in (await scene.until("input_request", 2))["prompt"]
        scene.relay.take(request("input_reply", "r2", channel="stdin", value="cpu"), FRONT)
        await scene.until_called("acquire")
        assert scene.kernel.options == {}


async def test_a_run_that_takes_no_input_is_told_which_kernels_do_not_ask() -> None:
    async with opened(asks=True) as scene:
        scene.relay.take(cell(allow_stdin=False), FRONT)
        reply = await scene.until("execute_reply")
        assert reply["status"] == "error"
        assert "colab-bridge-t4" in "\n".join(reply["traceback"])
        assert scene.kernel.calls == []


async def test_an_interrupt_ends_the_question() -> None:
    async with opened(asks=True) as scene:
        scene.relay.take(cell(allow_stdin=True), FRONT)
        await scene.until("input_request")
        scene.relay.take(request("interrupt_request", channel="control"), FRONT)
        assert (await scene.until("execute_reply"))["status"] == "error"
        assert scene.kernel.calls == []


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        ("cpu", {}),
        (" CPU ", {}),
        ("t4", {"gpu": "T4"}),
        ("A100,L4,T4", {"gpu": "A100,L4,T4"}),
        ("v5e1", {"tpu": "V5E1"}),
    ],
)
def test_what_is_typed_becomes_options(answer: str, options: dict[str, str]) -> None:
    assert chosen_hardware(answer) == options


@pytest.mark.parametrize("answer", ["", "gpu", "T4,V5E1", "V5E1,T4", "\x00"])
def test_what_is_no_machine_is_refused(answer: str) -> None:
    with pytest.raises(UserError):
        chosen_hardware(answer)
