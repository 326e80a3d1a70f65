"""How the faces reach the daemon: one session of one project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colab_bridge.bridge.results import Result, collect
from colab_bridge.client.address import find
from colab_bridge.client.connect import connect
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.client.follow import follow_run
from colab_bridge.config.caller import caller_env
from colab_bridge.config.paths import Paths
from colab_bridge.config.project import find_root

__all__ = ["Link"]

Event = dict[str, Any]


class Link:
    """A project, a target and a client.

    Args:
        folder: Working folder; the current one when omitted.
        session: Session name; the project's own when omitted.
        runtime: Name of a configured runtime.
        options: Provider options, such as ``url`` or ``isolated``.
        on_event: Called with every event of every run.
        answer_input: Called with the prompt when code asks for input; returns the answer. Without it, ``input()``
            raises in
            the code as it does where there is no terminal.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        session: str | None = None,
        runtime: str | None = None,
        options: Mapping[str, Any] | None = None,
        on_event: Callable[[Event], None] | None = None,
        answer_input: Callable[[str], str] | None = None,
    ) -> None:
        self.folder = Path(folder or Path.cwd()).resolve()
        self.project = find_root(self.folder)
        self.session = session
        self._runtime = runtime
        self._options = {key: value for key, value in (options or {}).items() if value is not None}
        self._on_event = on_event
        self._answer_input = answer_input
        self._paths = Paths.from_env(os.environ)
        self._client: DaemonClient | None = None

    @property
    def client(self) -> DaemonClient:
        """A client of the daemon that runs now; one is started when there is none, or the one before was killed."""
        if self._client is None or find(self._paths) != self._client.address:
            self._client = connect(paths=self._paths)
        return self._client

    def target(self) -> dict[str, Any]:
        """Return the members of a request that say where it runs."""
        return {
            "project": str(self.project),
            "session": self.session,
            "runtime": self._runtime,
            "options": self._options,
            "env": caller_env(os.environ),
        }

    def open(self, name: str | None = None) -> dict[str, Any]:
        """Make sure that the session exists and answers; returns it and uses it from then on.

        Args:
            name: Name of a new session; without one the project's own is used or made.
        """
        body = self.target()
        body.pop("session")
        found = self.client.post("/v1/sessions", {**body, "name": name}, timeout_s=180.0)
        self.session = str(found["name"])
        return found

    def events(self, request: Mapping[str, Any]) -> Iterator[Event]:
        """Start a run and iterate over its events, across a daemon that is killed and comes back."""
        body = {"cwd": str(self.folder), "allow_stdin": self._answer_input is not None, **self.target(), **request}
        return follow_run(self.client, body)

    def run(self, request: Mapping[str, Any], *, check: bool = False) -> Result:
        """Start a run and return its result.

        Args:
            request: Members of the run request that say what is run.
            check: Raise when it does not end well.

        Raises:
            ExecutionFailed: it raised or ended with another status than 0, and ``check`` is set.
        """
        return self._result(self.events(request), check=check)

    def follow(self, run_id: str, *, check: bool = False) -> Result:
        """Follow a run that was started to its end and return its result; ``check`` as in :meth:`run`."""
        return self._result(follow_run(self.client, run_id), check=check)

    def _result(self, events: Iterator[Event], *, check: bool) -> Result:
        result = collect(events, on_event=self._on_event, answer=self._answer)
        return result.raise_for_error() if check else result

    def _answer(self, run_id: str, event: Event) -> None:
        if self._answer_input is not None:
            value = self._answer_input(str(event.get("prompt", "")))
            self.client.post(f"/v1/runs/{segment(run_id)}/input", {"value": value})

    def act(self, verb: str) -> dict[str, Any]:
        """Interrupt or restart the kernels of the session."""
        if self.session is None:
            self.open()
        return self.client.post(f"/v1/sessions/{segment(str(self.session))}/{verb}")

    def stop(self) -> None:
        """Stop the session: its kernels and its runtime."""
        if self.session is not None:
            self.client.delete(f"/v1/sessions/{segment(self.session)}", timeout_s=60.0)
            self.session = None
