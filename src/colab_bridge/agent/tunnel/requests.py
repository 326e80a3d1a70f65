"""Which requests have gone to a kernel, and which of them it has not ended yet; survives the agent.

The daemon sends a request again when it cannot know whether it arrived, so each is taken once by its ``msg_id``. This
is a file of its own beside the journal, because the output of one long execution may push its request out of that.

Each line of the file is a JSON list: ``["s", msg_id, number, msg_type, channel]`` when a request was sent, ``number``
being that of its journal entry, ``["e", msg_id]`` when it has ended, ``["x"]`` when the kernel's process has ended and
all its requests with it.
"""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Flight", "Requests"]

log = logging.getLogger(__name__)

_KEPT_IDS = 10_000
_MAX_LINES = 3 * _KEPT_IDS
# Requests that a kernel never ends (some answer nothing on control) must not add up.
_MAX_FLYING = 1000
_MAX_ID = 500


@dataclass
class Flight:
    """A request that was sent and has not ended.

    Attributes:
        number: Of its entry in the journal.
        msg_type: Of the request.
        channel: Where it went.
        status: Of its reply; empty until that has come.
        replied: Its reply has come.
        idle: The kernel has said that it is done with it.
    """

    number: int
    msg_type: str
    channel: str
    status: str = ""
    replied: bool = False
    idle: bool = False


class Requests:
    """The ids of the latest requests of one kernel, and those under way.

    Attributes:
        flying: Under way, in order, by id.

    Args:
        path: The file; made when absent.
    """

    def __init__(self, path: Path) -> None:
        self.flying: OrderedDict[str, Flight] = OrderedDict()
        self._path = path
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lines = 0
        self._descriptor = -1

    def load(self) -> None:
        """Read what a predecessor left; blocks. A file that cannot be read is like none."""
        try:
            raw = self._path.read_bytes()
        except OSError:
            raw = b""
        # A last line without its end was being written when the writer died.
        for line in raw.split(b"\n")[:-1]:
            try:
                self._replay(json.loads(line))
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
        self._rewrite()

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def knows(self, msg_id: str) -> bool:
        """Return whether a request was sent before."""
        return msg_id in self._seen

    def sent(self, msg_id: str, number: int, msg_type: str, channel: str) -> None:
        """Note that a message is about to go to the kernel."""
        if not msg_id or len(msg_id) > _MAX_ID:
            return
        self._replay(["s", msg_id, number, msg_type[:100], channel])
        self._write(["s", msg_id, number, msg_type[:100], channel])

    def replied(self, msg_id: str, status: str) -> Flight | None:
        """Note a reply; return the request if it has ended by that."""
        flight = self.flying.get(msg_id)
        if flight is None:
            return None
        flight.replied, flight.status = True, status
        return self._end(msg_id, flight)

    def idled(self, msg_id: str) -> Flight | None:
        """Note that the kernel is done with a request; return it if it has ended by that."""
        flight = self.flying.get(msg_id)
        if flight is None:
            return None
        flight.idle = True
        return self._end(msg_id, flight)

    def process_ended(self) -> None:
        """Forget what was under way: the process that had it is gone."""
        if self.flying:
            self.flying.clear()
            self._write(["x"])

    @property
    def executing(self) -> bool:
        """Whether an execution is under way."""
        return any(flight.msg_type == "execute_request" for flight in self.flying.values())

    def _end(self, msg_id: str, flight: Flight) -> Flight | None:
        if not (flight.replied and flight.idle):
            return None
        del self.flying[msg_id]
        self._write(["e", msg_id])
        return flight

    def _replay(self, line: list[Any]) -> None:
        if line[0] == "x":
            self.flying.clear()
        elif line[0] == "e":
            self.flying.pop(str(line[1]), None)
        elif line[0] == "s":
            msg_id, number, msg_type, channel = str(line[1]), int(line[2]), str(line[3]), str(line[4])
            self._seen[msg_id] = None
            if len(self._seen) > _KEPT_IDS:
                self._seen.popitem(last=False)
            if number and channel in ("shell", "control") and msg_type.endswith("_request"):
                self.flying[msg_id] = Flight(number, msg_type, channel)
                if len(self.flying) > _MAX_FLYING:
                    self.flying.popitem(last=False)

    def _write(self, line: list[Any]) -> None:
        """Append a line. Without a disk, the ids are known for as long as this process lives."""
        self._lines += 1
        if self._lines > _MAX_LINES:
            self._rewrite()
        if self._descriptor < 0:
            return
        try:
            os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
        except OSError as error:
            log.warning("requests are not written down", extra={"path": str(self._path), "why": str(error)})
            self.close()

    def _rewrite(self) -> None:
        lines: list[list[Any]] = [["s", msg_id, 0, "", ""] for msg_id in self._seen if msg_id not in self.flying]
        lines += [["s", msg_id, one.number, one.msg_type, one.channel] for msg_id, one in self.flying.items()]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        self._lines = len(lines)
        self.close()
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
        # Windows would translate line ends and hand the file to child processes.
        flags |= getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
        try:
            descriptor = os.open(fresh, flags, 0o600)
            try:
                os.write(descriptor, text.encode("ascii"))
            finally:
                os.close(descriptor)
            os.replace(fresh, self._path)
            self._descriptor = os.open(self._path, flags & ~os.O_TRUNC, 0o600)
        except OSError as error:
            log.warning("requests are not written down", extra={"path": str(self._path), "why": str(error)})
