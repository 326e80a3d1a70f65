"""Requests to the front end: published on iopub, answered on the kernel's stdin.

A request is an iopub message ``colab_request``; one that wants an answer has a number, ``colab_msg_id``, in its
metadata. The answer is an ``input_reply`` whose value is ``{"type": "colab_reply", "colab_msg_id": N, "data": ...}``,
or has ``error`` in place of ``data``. Whatever else arrives on stdin meanwhile is dropped. Not safe for threads.
"""

import itertools
import time

import zmq
from IPython import get_ipython

_POLL_S = 0.025
_numbers = itertools.count(1)


class MessageError(Exception):
    """The front end answered with an error."""


def send_request(request_type, request, parent=None, expect_reply=False):
    """Publish a request.

    Args:
        request_type: What is wanted.
        request: Its arguments, ready for JSON.
        parent: Message to which it belongs; None for none but the session.
        expect_reply: Whether to give it a number.

    Returns:
        The number, or None.
    """
    kernel = get_ipython().kernel
    metadata = {"colab_request_type": request_type}
    number = None
    if expect_reply:
        number = metadata["colab_msg_id"] = next(_numbers)
    if parent is None:
        parent = {"header": {"session": current_parent()["header"].get("session", "")}}
    kernel.session.send(
        kernel.iopub_socket, "colab_request", content={"request": request}, metadata=metadata, parent=parent
    )
    return number


def current_parent():
    """Return the message that is being executed."""
    return get_ipython().kernel.get_parent("shell")


def read_reply(number, timeout_s=None):
    """Wait for the answer to a request.

    Args:
        number: The request's.
        timeout_s: Seconds to wait; 0 and None wait for ever.

    Returns:
        The answer's data; None when there is none, and when the time is over.

    Raises:
        MessageError: the answer is an error.
    """
    kernel = get_ipython().kernel
    deadline = time.monotonic() + timeout_s if timeout_s else None
    while deadline is None or time.monotonic() < deadline:
        value = _next_value(kernel)
        if value is None:
            time.sleep(_POLL_S)
        elif isinstance(value, dict) and value.get("type") == "colab_reply" and value.get("colab_msg_id") == number:
            if "error" in value:
                raise MessageError(value["error"])
            return value.get("data")
    return None


def _next_value(kernel):
    """Return the value of the next answer on stdin; None when nothing has come."""
    try:
        _, message = kernel.session.recv(kernel.stdin_socket, zmq.NOBLOCK)
    except (zmq.ZMQError, ValueError):
        return None  # a message that is damaged, or came twice
    return None if message is None else message["content"].get("value", "")


def blocking_request(request_type, request=None, timeout_sec=5, parent=None):
    """Send a request and wait for its answer, as long as :func:`read_reply` does."""
    number = send_request(request_type, request or {}, parent=parent, expect_reply=True)
    return read_reply(number, timeout_sec)
