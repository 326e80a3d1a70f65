"""The events of one run, each of them once, across a daemon that dies and comes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from colab_bridge._util.ids import new_id
from colab_bridge.client.connect import revive
from colab_bridge.client.daemon import DaemonClient, Event, EventStream, segment
from colab_bridge.errors import ColabBridgeError, TransientError

__all__ = ["RunFollower", "follow_run"]

# A daemon takes about a second to come back and re-adopt its kernels. After this long without it, a person should
# decide.
GIVE_UP_AFTER_S = 60.0
# A daemon that was stopped on purpose is not started behind its user's back; a restart of it takes less than this.
RESTART_WAIT_S = 5.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 2.0


class RunFollower:
    """Follows one run until it has finished. Use it as a context manager.

    Args:
        client: A client of the running daemon.
        run: The id of a run, or a run request that is sent now.
        after: Only events with a larger ``seq`` are wanted.
        reconnect: Returns a client of a running daemon; :func:`colab_bridge.client.connect.revive` when omitted.

    Attributes:
        client: The client in use now.
        run_id: The run; None until the daemon has made it.
        cursor: ``seq`` of the last event returned.
        finished: Whether the last event has been returned.
    """

    def __init__(
        self,
        client: DaemonClient,
        run: str | Mapping[str, Any],
        *,
        after: int = 0,
        reconnect: Callable[[], DaemonClient] | None = None,
    ) -> None:
        self.client = client
        self.cursor = after
        self.finished = False
        self.run_id = run if isinstance(run, str) else None
        # The id is made here, so that a request may be sent again when the daemon died before it answered.
        self._request = None if isinstance(run, str) else {"run_id": new_id("run"), **run}
        self._reconnect = reconnect or revive
        self._stream: EventStream | None = None
        self._lost_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop following; the run goes on."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def poll(self, timeout_s: float, extra: Sequence[socket.socket | int] = ()) -> Event | None:
        """Return the next event; None when there is none for ``timeout_s`` or another source is ready.

        After a cut it returns an event ``link`` without ``seq`` whose state is ``reconnecting``, and goes on where it
        was.

        Args:
            timeout_s: Seconds to wait at most; making a new connection may take longer.
            extra: Sockets (on POSIX any file number) that end the wait when they become readable.

        Raises:
            ColabBridgeError: what the daemon reported instead of events.
            TransientError: the daemon was stopped on purpose, or is not back in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.finished:
            try:
                event = self._opened().poll(deadline - time.monotonic(), extra)
            except TransientError as error:
                if error.code != "CB-TRANSIENT-DAEMON":
                    raise
                return self._come_back()
            if event is None:
                return self._ended() if self._stream is not None and self._stream.ended else None
            if self._accept(event):
                return event
        return None

    def _opened(self) -> EventStream:
        if self._stream is None:
            if self.run_id is not None:
                path = f"/v1/runs/{segment(self.run_id)}/events"
                self._stream = self.client.stream("GET", path, after=self.cursor, follow=1)
            else:
                self._stream = self.client.stream("POST", "/v1/runs", self._request, follow=1)
        return self._stream

    def _accept(self, event: Event) -> bool:
        self._lost_at = None
        seq = event.get("seq")
        if event["type"] == "ping" or (isinstance(seq, int) and seq <= self.cursor):
            return False
        if isinstance(seq, int):
            self.cursor = seq
        if self.run_id is None and isinstance(run := event.get("run"), dict):
            self.run_id = str(run.get("id"))
        self.finished = event["type"] == "finished"
        return True

    def _ended(self) -> Event | None:
        """The stream ended in good order without ``finished``: the run has no such entry, or the daemon is ending."""
        self.close()
        if self.run_id is None:
            return self._come_back()
        try:
            run = self.client.get(f"/v1/runs/{segment(self.run_id)}")
        except TransientError:
            return self._come_back()
        if run.get("status") in ("queued", "running"):
            return self._come_back()
        self.finished = True
        return _finished(run)

    def _come_back(self) -> Event | None:
        """Get a client of a daemon that runs, for the next round."""
        self.close()
        first = self._lost_at is None
        self._lost_at = lost_at = time.monotonic() if self._lost_at is None else self._lost_at
        pause = _FIRST_PAUSE_S
        while True:
            # Nothing tells us that a dead process's successor is up, and a daemon that dies at once must not be
            # started in a tight loop.
            time.sleep(pause)
            waited = time.monotonic() - lost_at
            try:
                self.client = self._reconnect()
            except ColabBridgeError as error:
                if error.code == "CB-TRANSIENT-NO-DAEMON" and waited > RESTART_WAIT_S:
                    raise _stopped(self.run_id) from error
                if waited > GIVE_UP_AFTER_S:
                    raise
            else:
                break
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        if waited > GIVE_UP_AFTER_S:
            raise _stopped(self.run_id)
        text = "the daemon went away and is back; going on where it was"
        return {"type": "link", "state": "reconnecting", "text": text} if first else None


def _stopped(run_id: str | None) -> TransientError:
    return TransientError(
        "the daemon was stopped; the program itself goes on",
        hint=f"Come back to it: colab-bridge attach {run_id}",
        code="CB-TRANSIENT-STOPPED",
    )


def _finished(run: Mapping[str, Any]) -> Event:
    """Return the last event of a run that has none in its record, because no daemon saw it end."""
    begun, ended = run.get("created_at"), run.get("finished_at")
    known = isinstance(begun, (int, float)) and isinstance(ended, (int, float))
    return {
        "type": "finished",
        "status": run.get("status"),
        "exit_code": run.get("exit_code"),
        "duration_s": round(float(ended) - float(begun), 3) if known else None,  # type: ignore[arg-type]  # both are known
        "error": None,
        "outputs": [],
    }


def follow_run(
    client: DaemonClient,
    run: str | Mapping[str, Any],
    after: int = 0,
    *,
    reconnect: Callable[[], DaemonClient] | None = None,
) -> Iterator[Event]:
    """Yield the events of a run until it has finished; none is lost and none comes twice when the daemon is killed.

    Args:
        client: A client of the running daemon.
        run: The id of a run, or a run request that is sent now.
        after: Only events with a larger ``seq`` are wanted.
        reconnect: See :class:`RunFollower`.

    Raises:
        ColabBridgeError: as :meth:`RunFollower.poll`.
    """
    with RunFollower(client, run, after=after, reconnect=reconnect) as follower:
        while not follower.finished:
            # A short wait, so that Ctrl-C is noticed on Windows, where it does not end a wait for a socket.
            event = follower.poll(0.25)
            if event is not None:
                yield event
