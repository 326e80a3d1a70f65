"""The Debug Adapter Protocol through the proxy kernel: up to a breakpoint and on from there.

Source: Jupyter messaging protocol 5.4, "Debug request"; the order of requests is JupyterLab's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from frontends_support import Bridge, FrontEnd, bridge, text_of

__all__ = ["bridge"]

pytestmark = pytest.mark.ecosystem

CODE = "def double(n):\n    twice = n * 2\n    return twice\nprint(double(21))"


class Debugger:
    """A debugger front end on the control channel."""

    def __init__(self, front: FrontEnd) -> None:
        self.front = front
        self.seq = 0

    def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.seq += 1
        request = {"type": "request", "seq": self.seq, "command": command, "arguments": arguments}
        answer = self.front.content("control", "debug_request", request)
        assert answer.get("success"), answer
        return dict(answer.get("body") or {})

    def attach(self) -> None:
        self(
            "initialize",
            clientID="test",
            adapterID="python",
            pathFormat="path",
            linesStartAt1=True,
            columnsStartAt1=True,
        )
        self("attach")

    def stopped(self) -> int:
        """Wait for a stop and return its thread."""
        event = self.front.published(
            lambda m: m["msg_type"] == "debug_event" and m["content"].get("event") == "stopped"
        )
        return int(event["content"]["body"]["threadId"])


@pytest.fixture
def front(bridge: Bridge) -> Iterator[FrontEnd]:
    found = FrontEnd(bridge.project)
    yield found
    found.close()


def test_the_kernel_says_that_it_can_be_debugged(front: FrontEnd) -> None:
    info = Debugger(front)("debugInfo")
    assert info["isStarted"] is False
    assert info["hashMethod"]


def test_a_cell_stops_at_a_breakpoint_shows_its_variables_and_goes_on(front: FrontEnd) -> None:
    debug = Debugger(front)
    debug.attach()
    source = {"path": debug("dumpCell", code=CODE)["sourcePath"]}
    points = debug("setBreakpoints", source=source, breakpoints=[{"line": 3}], sourceModified=False)
    assert points["breakpoints"][0]["verified"] is True
    debug("configurationDone")
    msg_id = front.client.execute(CODE)
    thread = debug.stopped()
    frames = debug("stackTrace", threadId=thread)["stackFrames"]
    assert [frame["name"] for frame in frames[:2]] == ["double", "<module>"]
    assert (frames[0]["line"], frames[0]["source"]["path"]) == (3, source["path"])
    scope = debug("scopes", frameId=frames[0]["id"])["scopes"][0]["variablesReference"]
    variables = {v["name"]: v["value"] for v in debug("variables", variablesReference=scope)["variables"]}
    assert (variables["n"], variables["twice"]) == ("21", "42")
    debug("next", threadId=thread)
    debug.stopped()
    debug("continue", threadId=thread)
    assert front.reply(msg_id)["content"]["status"] == "ok"
    front.outputs(msg_id)
    assert text_of(front.seen) == "42\n"
    debug("disconnect", restart=False, terminateDebuggee=False)
    assert text_of(front.run("print('after')")) == "after\n"
