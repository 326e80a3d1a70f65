"""What a cell is told, and how often."""

from __future__ import annotations

import json

import anyio
import pytest

from colab_bridge.kernels.proxy import notices as module
from colab_bridge.kernels.proxy.frontend import FrontEnd
from colab_bridge.kernels.proxy.local_messages import LocalMessages
from colab_bridge.kernels.proxy.notices import Notices
from colab_bridge.kernels.proxy.outbox import Outbox
from colab_bridge.wire.message import RawMessage
from colab_bridge.wire.zmq_frames import Signer


class Wire:
    """Takes the place of the sockets and keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[bytes]]] = []

    def send(self, channel: str, frames: list[bytes]) -> None:
        self.sent.append((channel, frames))

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Cell and text of all that was told."""
        return [
            (json.loads(f[4])["msg_id"], json.loads(f[6])["text"]) for channel, f in self.sent if channel == "iopub"
        ]


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def notices(wire: Wire, outbox: Outbox) -> Notices:
    return Notices(FrontEnd(wire, Signer(b"k"), outbox, LocalMessages()), outbox)  # type: ignore[arg-type]


def run_cell(outbox: Outbox, msg_id: str) -> None:
    outbox.add(RawMessage.build("shell", "execute_request", {"code": ""}, msg_id=msg_id, session="s"), [])


def test_a_loss_is_told_once_below_the_running_cell(notices: Notices, outbox: Outbox, wire: Wire) -> None:
    run_cell(outbox, "a")
    notices.lost("the server dropped messages")
    notices.lost("the server dropped messages")
    assert wire.lines == [("a", "[colab-bridge] output may be missing here: the server dropped messages\n")]
    run_cell(outbox, "b")
    outbox.take()
    run_cell(outbox, "c")
    notices.lost("the server dropped messages")
    assert [cell for cell, _ in wire.lines] == ["a", "c"]


def test_a_loss_before_any_cell_goes_to_the_log(
    notices: Notices, wire: Wire, capsys: pytest.CaptureFixture[str]
) -> None:
    notices.gap(3, 7)
    assert wire.lines == []
    assert "5 messages" in capsys.readouterr().err


async def test_a_short_absence_is_not_told(
    notices: Notices, outbox: Outbox, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_NOTICE_S", 0.05)
    run_cell(outbox, "a")
    notices.away()
    notices.back()
    await anyio.sleep(0.1)
    assert wire.lines == []


async def test_a_long_absence_is_told_once_and_only_below_a_running_cell(
    notices: Notices, outbox: Outbox, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_NOTICE_S", 0.02)
    notices.away()
    await anyio.sleep(0.06)
    assert wire.lines == []
    notices.back()
    run_cell(outbox, "a")
    notices.away()
    notices.away()
    await anyio.sleep(0.06)
    assert [cell for cell, _ in wire.lines] == ["a"]


def test_only_the_first_cell_of_a_found_kernel_is_told_that_it_waits(
    notices: Notices, outbox: Outbox, wire: Wire
) -> None:
    notices.reattached()
    notices.sent()
    assert wire.lines == []
    run_cell(outbox, "a")
    notices.sent()
    notices.sent()
    assert [cell for cell, _ in wire.lines] == ["a"]
