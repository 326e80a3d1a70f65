"""What the upstream refuses to queue."""

from __future__ import annotations

import pytest

from colab_bridge.errors import UserError
from colab_bridge.kernels.upstream_ws import MAX_MESSAGE_BYTES, WebSocketUpstream
from colab_bridge.model.runtime import Endpoint
from colab_bridge.wire.jupyter_ws import encode_v1
from colab_bridge.wire.message import RawMessage


async def no_endpoint() -> Endpoint:
    raise AssertionError("not asked in these tests")


def message(size: int) -> RawMessage:
    return RawMessage.build("shell", "comm_msg", {}, msg_id="m", session="s", buffers=[bytes(size)])


@pytest.mark.anyio
async def test_a_message_over_ten_mebibytes_is_refused_with_its_size_and_a_way_out() -> None:
    upstream = WebSocketUpstream(no_endpoint, "k", "s")
    with pytest.raises(UserError, match=r"12\.0 MiB") as caught:
        upstream.send(message(12 * 2**20))
    assert "file" in caught.value.hint


@pytest.mark.anyio
async def test_what_is_accepted_fits_into_one_websocket_message() -> None:
    upstream = WebSocketUpstream(no_endpoint, "k", "s")
    largest = message(MAX_MESSAGE_BYTES - 2000)
    upstream.send(largest)
    assert len(encode_v1(largest)) <= MAX_MESSAGE_BYTES


@pytest.mark.anyio
async def test_what_waits_for_a_link_that_is_down_is_limited() -> None:
    upstream = WebSocketUpstream(no_endpoint, "k", "s")
    with pytest.raises(UserError, match="waits"):
        for _ in range(40):
            upstream.send(message(9 * 2**20))
