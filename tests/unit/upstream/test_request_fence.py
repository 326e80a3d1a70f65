"""RequestFence against a model of a link that loses the end of what was sent, in both directions."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.kernels.fence import RequestFence, probe
from colab_bridge.wire.message import RawMessage


def execute(msg_id: str, *, silent: bool = False) -> RawMessage:
    content = {"code": "x", "silent": silent, "store_history": not silent}
    return RawMessage.build("shell", "execute_request", content, msg_id=msg_id, session="s")


def answer(request: RawMessage, channel: str, msg_type: str, content: dict[str, object]) -> RawMessage:
    parent = request.header_fields()
    return RawMessage.build(channel, msg_type, content, msg_id=f"a-{request.msg_id}", session="k", parent=parent)


def reply(request: RawMessage, count: int) -> RawMessage:
    return answer(request, "shell", "execute_reply", {"status": "ok", "execution_count": count})


def busy(request: RawMessage) -> RawMessage:
    return answer(request, "iopub", "status", {"execution_state": "busy"})


@dataclass
class Kernel:
    """Takes requests in order and answers each with busy and a reply."""

    counter: int = 0
    ran: list[str] = field(default_factory=list)

    def take(self, request: RawMessage) -> list[RawMessage]:
        if not request.content_fields()["silent"]:
            self.counter += 1
            self.ran.append(request.msg_id)
        return [busy(request), reply(request, self.counter)]


class Model:
    """A kernel, a fence, and between them connections that each lose the end of either direction."""

    def __init__(self, *, hold: bool = False) -> None:
        self.hold = hold
        self.held: list[RawMessage] = []
        self.named: list[str] = []
        self.kernel = Kernel()
        self.fence = RequestFence()
        self.up: list[RawMessage] = []
        self.sent = 0
        self.fences = 0

    def send(self) -> None:
        message = execute(f"r{self.sent}")
        self.sent += 1
        if self.hold and self.fence.active:
            self.held.append(message)
        else:
            self.fence.sent(message)
            self.up.append(message)

    def connection(self, arrive: int | None, come_back: int | None) -> None:
        """Carry what was sent, but only the first ones up and the first ones down; None for all."""
        while self.up:
            batch, self.up = self.up[:arrive], []
            down = [message for request in batch for message in self.kernel.take(request)]
            for message in down[:come_back]:
                self.up += self.fence.received(message)
                self.named += [str(header["msg_id"]) for header in self.fence.unanswered()]
                if not self.fence.active:
                    for request in self.held:
                        self.fence.sent(request)
                    self.up += self.held
                    self.held = []
            if arrive is not None:
                self.up = []
        if arrive is not None:
            self.fence.link_lost()

    def reconnect(self) -> None:
        if not self.fence.pending():
            return
        self.fences += 1
        message = probe(f"f{self.fences}", "s")
        assert self.fence.start(message.msg_id) == []
        self.up.append(message)


LOSSES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 12)), max_size=6
)  # requests sent, how many of them arrive, how many answers come back


def play(model: Model, losses: list[tuple[int, int, int]], last: int) -> None:
    for sends, arrive, come_back in losses:
        for _ in range(sends):
            model.send()
        model.connection(arrive, come_back)
        model.reconnect()
    for _ in range(last):
        model.send()
    model.connection(None, None)


@given(LOSSES, st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_every_request_runs_exactly_once_and_in_order_where_requests_wait_for_the_fence(
    losses: list[tuple[int, int, int]], last: int
) -> None:
    model = Model(hold=True)
    play(model, losses, last)
    assert model.kernel.ran == [f"r{i}" for i in range(model.sent)]


@given(LOSSES, st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_no_request_runs_twice_and_one_that_did_not_run_is_named_where_they_do_not_wait(
    losses: list[tuple[int, int, int]], last: int
) -> None:
    model = Model()
    play(model, losses, last)
    assert len(set(model.kernel.ran)) == len(model.kernel.ran)
    assert {f"r{i}" for i in range(model.sent)} - set(model.kernel.ran) <= set(model.named)


@given(st.integers(0, 8), st.integers(0, 8))
def test_requests_that_are_sent_again_keep_their_order(sends: int, arrive: int) -> None:
    model = Model()
    for _ in range(sends):
        model.send()
    model.connection(arrive, None)
    model.reconnect()
    model.connection(None, None)
    assert model.kernel.ran == [f"r{i}" for i in range(sends)]


def test_a_request_with_a_busy_status_is_not_sent_again_without_a_counter() -> None:
    fence = RequestFence()
    begun, missing = execute("begun"), execute("missing")
    fence.sent(begun)
    fence.sent(missing)
    fence.received(busy(begun))
    fence.link_lost()
    fence.start("f")
    info = RawMessage.build("shell", "kernel_info_request", {}, msg_id="f", session="s")
    again = fence.received(answer(info, "shell", "kernel_info_reply", {"status": "ok"}))
    assert [message.msg_id for message in again] == ["missing"]


def test_an_execution_whose_reply_was_lost_is_named_once() -> None:
    model = Model()
    model.send()
    model.connection(1, 1)
    model.reconnect()
    model.connection(None, None)
    assert model.named == ["r0"]


def test_a_request_newer_than_the_fence_is_not_touched() -> None:
    fence = RequestFence()
    fence.sent(execute("old"))
    fence.link_lost()
    fence.start("f")
    fence.sent(execute("new"))
    again = fence.received(reply(probe("f", "s"), 0))
    assert [message.msg_id for message in again] == ["old"]
    assert [message.msg_id for message in fence.pending()] == ["new", "old"]


def test_the_reply_to_a_fence_that_was_given_up_decides_nothing() -> None:
    fence = RequestFence()
    fence.sent(execute("r"))
    fence.start("f1")
    fence.link_lost()
    fence.start("f2")
    assert fence.received(reply(probe("f1", "s"), 0)) == []
    assert [message.msg_id for message in fence.received(reply(probe("f2", "s"), 0))] == ["r"]


def test_a_proof_for_a_request_of_the_next_connection_says_nothing_about_the_last_one() -> None:
    fence = RequestFence()
    fence.sent(execute("lost"))
    fence.link_lost()
    queued = execute("queued while down")
    fence.sent(queued)
    fence.start("f")
    fence.received(busy(queued))
    fence.received(reply(queued, 1))
    assert [message.msg_id for message in fence.received(reply(probe("f", "s"), 1))] == ["lost"]


def test_code_of_somebody_else_keeps_ours_from_running_twice() -> None:
    fence = RequestFence()
    first = execute("first")
    fence.sent(first)
    fence.received(reply(first, 1))
    fence.sent(execute("unknown"))
    fence.link_lost()
    fence.start("f")
    assert fence.received(reply(probe("f", "s"), 9)) == []
    assert [header["msg_id"] for header in fence.unanswered()] == ["unknown"]


def test_an_answer_to_input_is_sent_again_at_once_unless_the_kernel_went_on() -> None:
    fence = RequestFence()
    request = execute("r")
    fence.sent(request)
    value = answer(request, "stdin", "input_reply", {"value": "Ada"})
    fence.sent(value)
    assert fence.start("f1") == [value]
    fence.received(answer(request, "iopub", "stream", {"name": "stdout", "text": "hello Ada"}))
    assert fence.start("f2") == []


def test_control_requests_are_never_sent_again() -> None:
    fence = RequestFence()
    fence.sent(RawMessage.build("control", "interrupt_request", {}, msg_id="i", session="s"))
    assert fence.pending() == []


def test_clear_forgets_what_a_dead_kernel_was_asked() -> None:
    fence = RequestFence()
    fence.sent(execute("r"))
    fence.clear()
    assert fence.pending() == []
    assert fence.start("f") == []
    assert fence.received(reply(probe("f", "s"), 0)) == []
