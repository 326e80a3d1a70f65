"""The events of one run, each of them once, across a daemon that dies and comes back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from colab_bridge.client.connect import connect
from colab_bridge.client.daemon import DaemonClient, Event, EventStream, segment
from colab_bridge.errors import ColabBridgeError, TransientError

__all__ = ["RunFollower", "follow_run"]

# A daemon takes about a second to come back and re-adopt its kernels. After this long without it, a person should decide.
GIVE_UP_AFTER_S = 60.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# A daemon that ended the stream in good order was stopped on purpose; a restart of it takes less than this.
_RESTART_WAIT_S = 5.0


class RunFollower:
    """Follows one run until it has finished. Use it as a context manager.

    Args:
        client: A client of the running daemon.
        run: The id of a run, or a run request that is sent now.
        after: Only events with a larger ``seq`` are wanted.
        reconnect: Returns a client of a running daemon, started anew if need be; its argument says whether to start one.

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
        reconnect: Callable[[bool], DaemonClient] | None = None,
    ) -> None:
        self.client = client
        self.cursor = after
        self.finished = False
        self.run_id = run if isinstance(run, str) else None
        self._request = None if isinstance(run, str) else dict(run)
        self._reconnect = reconnect or (lambda start: connect(start=start))
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

        After a cut it returns an event ``link`` without ``seq`` whose state is ``reconnecting``, and goes on where it was.

        Args:
            timeout_s: Seconds to wait at most; making a new connection may take longer.
            extra: Sockets (on POSIX any file number) that end the wait when they become readable.

        Raises:
            ColabBridgeError: what the daemon reported instead of events.
            TransientError: the daemon went away before the run had begun, was stopped on purpose, or is not back in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.finished:
            try:
                event = self._opened().poll(deadline - time.monotonic(), extra)
            except TransientError as error:
                if error.code != "CB-TRANSIENT-DAEMON":
                    raise
                return self._cut(error)
            if event is None:
                if self._stream is not None and self._stream.ended:
                    self._stopped()
                    continue
                return None
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

    def _cut(self, error: TransientError) -> Event | None:
        """Get a client of a daemon that runs, for the next round."""
        self.close()
        if self.run_id is None:
            raise TransientError(
                "the daemon went away before the run had begun",
                hint="See whether it runs nevertheless: colab-bridge status",
                code="CB-TRANSIENT-DAEMON",
            ) from error
        first = self._lost_at is None
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        self._come_back(self._lost_at + GIVE_UP_AFTER_S, error, start=True)
        text = "the daemon went away; going on where it was"
        return {"type": "link", "state": "reconnecting", "text": text} if first else None

    def _stopped(self) -> None:
        """The stream ended in good order before the run did: the daemon is being stopped or restarted."""
        self.close()
        reason = TransientError(
            "the daemon was stopped; the program itself goes on",
            hint=f"Come back to it: colab-bridge attach {self.run_id or ''}".rstrip(),
            code="CB-TRANSIENT-STOPPED",
        )
        if self.run_id is None:
            raise reason
        self._come_back(time.monotonic() + _RESTART_WAIT_S, reason, start=False)

    def _come_back(self, deadline: float, reason: TransientError, *, start: bool) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            # Nothing tells us that a dead process's successor is up; the pause keeps a daemon that dies at once from
            # being started in a tight loop.
            time.sleep(pause)
            try:
                self.client = self._reconnect(start)
            except ColabBridgeError as error:
                if time.monotonic() >= deadline:
                    raise (reason if not start else error) from error
            else:
                if time.monotonic() >= deadline:
                    raise reason
                return
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def follow_run(
    client: DaemonClient,
    run: str | Mapping[str, Any],
    after: int = 0,
    *,
    reconnect: Callable[[bool], DaemonClient] | None = None,
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
