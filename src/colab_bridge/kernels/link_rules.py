"""The decisions of a plain WebSocket link, as pure functions.

When may output be lost
-----------------------

A Jupyter server keeps what a kernel publishes while its last WebSocket is away, and sends it when the same
``session_id`` comes back, but only if it noticed the end, and through its output limit. Hence:

=========  ======  ==============  ==========================================================================
end        active  output limit    may output be lost?
=========  ======  ==============  ==========================================================================
any        no      any             no: the kernel had nothing to say
silent     yes     any             yes: the server went on writing into the dead connection
failed     yes     any             yes: what came could not be read, and we hung up
broken     yes     limited         yes: bytes under way are gone, and the replay passes the limit
broken     yes     unlimited       only if bytes were under way, or somebody else is connected to the kernel
closed     yes     limited         yes: the replay passes the limit
closed     yes     unlimited       only if somebody else is connected: then nothing is kept
=========  ======  ==============  ==========================================================================

*Active* means that an execution was under way, or that output came without one (a background thread). Two cases
cannot be seen from here: a server with ``buffer_offline_messages = False`` and a client that connected and left
again while we were away. Both matter only where the limit is off, which only servers that we start ourselves claim.

Apart from reconnects, a server that limits output says so in the stream (:func:`limit_notice`), and what ZMQ drops
between kernel and server is noticed by :mod:`.control_pings`.

Source: jupyter_server 1.24 and 2.21, ``ZMQChannelsWebsocketConnection`` and ``MappingKernelManager.start_buffering``,
and experiments with a relay that resets, closes and swallows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import StrEnum

from colab_bridge.wire.message import RawMessage

__all__ = [
    "LinkEnd",
    "is_output",
    "limit_notice",
    "loss_reason",
    "reconnect_delays",
]

_LIMIT_TEXTS = ("IOPub data rate exceeded.", "IOPub message rate exceeded.")
#: The server's notice has about 450 characters; longer stream messages are never parsed.
_MAX_NOTICE_BYTES = 2_000
_OUTPUT_TYPES = frozenset(
    {
        "stream",
        "display_data",
        "update_display_data",
        "execute_result",
        "error",
        "clear_output",
        "comm_msg",
        "comm_open",
    }
)


class LinkEnd(StrEnum):
    """How a connection ended."""

    CLOSED = "closed"  # the server said goodbye with a close frame
    BROKEN = "broken"  # reset or end of stream without a close frame
    SILENT = "silent"  # nothing came for longer than the ping timeout: a black hole
    GONE = "gone"  # the server does not have the kernel any more; nothing follows
    FAILED = "failed"  # we hung up, because what came violates the protocol


def loss_reason(*, end: LinkEnd, active: bool, unlimited: bool, in_flight: bool, others: bool) -> str:
    """Decide whether output may have been lost between two connections; see the table above.

    Args:
        end: How the earlier connection ended.
        active: Whether the kernel may have published anything meanwhile.
        unlimited: Whether the server is known not to limit output.
        in_flight: Whether bytes may have been under way when a connection broke.
        others: Whether another client is connected to the kernel, or the server had not noticed our end.

    Returns:
        Why, in words for people; empty when nothing can have been lost.
    """
    if not active:
        return ""
    if end is LinkEnd.SILENT:
        return "the connection went silent while the kernel was busy; what the server sent meanwhile is lost"
    if end is LinkEnd.FAILED:
        return "the server sent something unreadable while the kernel was busy"
    if not unlimited:
        return "the connection was interrupted while the kernel was busy, and the server limits what it sends again"
    if end is LinkEnd.BROKEN and in_flight:
        return "the connection broke while output was under way"
    if others:
        return "another program is connected to the kernel, so the server kept no output for us"
    return ""


def is_output(message: RawMessage) -> bool:
    """Whether a message on iopub shows that the kernel has something to say outside of its states."""
    return message.channel == "iopub" and message.msg_type in _OUTPUT_TYPES


def limit_notice(message: RawMessage) -> str:
    """Return why output was dropped when this message is the server's own notice of it; empty otherwise."""
    if (
        message.channel != "iopub"
        or len(message.raw_content) > _MAX_NOTICE_BYTES
        or b"rate exceeded." not in message.content
    ):
        return ""
    if message.msg_type != "stream":
        return ""
    content = message.content_fields()
    text = content.get("text")
    if content.get("name") != "stderr" or not isinstance(text, str) or not text.startswith(_LIMIT_TEXTS):
        return ""
    what = "data" if "data rate" in text[:30] else "message"
    return f"the server dropped output, because its {what} rate limit was exceeded"


def reconnect_delays() -> Iterator[float]:
    """Yield seconds to wait before each further try: 0.2 doubling up to 10, each less up to a third by chance.

    The spread keeps many kernels of one daemon from knocking at the same moment.
    """
    delay = 0.2
    while True:
        yield delay * random.uniform(0.67, 1.0)  # noqa: S311  # jitter, not a secret
        delay = min(delay * 2, 10.0)
