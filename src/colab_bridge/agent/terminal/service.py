"""The agent's service ``terminal``: shells by name.

The stream ``terminal.attach`` (``shell``, ``cols``, ``rows``, ``cwd``) is a terminal: its payloads are what is typed
and what is shown; the header ``{"resize": [cols, rows]}`` changes its size. The shell is made when there is none of
that name, goes on when the stream ends, and shows what was last on it to whoever comes back. ``terminal.list`` tells
which shells there are, ``terminal.end`` (``shell``) ends one.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any

from ..events import StreamData
from ..process.service import CallFailure, Peer, Reply, ServerStream, StreamHandler
from .shell import Shell, Size

__all__ = ["TerminalService", "make"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,60}")
_MOST_SHELLS = 20
#: A shell that nobody has come back to for so long does not keep the agent on the machine.
_KEPT_S = 12 * 3600.0


def make() -> TerminalService:
    """Return the service, not started."""
    return TerminalService()


class TerminalService:
    """Keeps shells."""

    name = "terminal"

    def __init__(self) -> None:
        self._shells: dict[str, Shell] = {}
        self._peer: Peer | None = None

    def start(self, peer: Peer) -> None:
        """Begin."""
        self._peer = peer

    async def call(self, verb: str, params: Mapping[str, Any], payload: bytes, timeout_s: float) -> Reply:
        """Answer a call.

        Raises:
            CallFailure: ``unknown`` verb, or ``not_found``.
        """
        if verb == "list":
            return Reply({"shells": [{"name": name, "pid": shell.pid} for name, shell in self._shells.items()]})
        if verb == "end":
            shell = self._shells.pop(_name(params), None)
            if shell is None:
                raise CallFailure("not_found", "there is no such shell")
            shell.end()
            await shell.gone.wait()
            return Reply({})
        raise CallFailure("unknown", f"terminal has no '{verb[:40]}'")

    def open(self, stream: ServerStream) -> StreamHandler:
        """Attach a stream to a shell, made when there is none.

        Raises:
            CallFailure: ``unknown`` stream, ``bad_request``, ``full``, or ``unsupported`` on this system.
        """
        if stream.name != "terminal.attach":
            raise CallFailure("unknown", f"there is no stream '{stream.name[:40]}'")
        name = _name(stream.params)
        size = Size(stream.params.get("cols"), stream.params.get("rows"))
        shell = self._shells.get(name)
        if shell is None:
            shell = self._shells[name] = self._begin(name, stream.params, size)
        else:
            shell.resize(size)
        shell.attach(stream)
        return _Attached(shell, stream)

    def _begin(self, name: str, params: Mapping[str, Any], size: Size) -> Shell:
        if importlib.util.find_spec("termios") is None:
            raise CallFailure("unsupported", "this runtime has no terminals")
        if len(self._shells) >= _MOST_SHELLS:
            raise CallFailure("full", f"there are {_MOST_SHELLS} shells already")
        hints = self._peer.hints() if self._peer is not None else {}
        cwd = params.get("cwd")
        program = os.environ.get("SHELL") or "/bin/sh"
        if not os.access(program, os.X_OK):
            program = "/bin/sh"
        env = {**os.environ, "TERM": "xterm-256color"}
        try:
            return Shell(
                [program, "-l"],
                cwd if isinstance(cwd, str) and cwd else hints.get("cwd", "/"),
                env,
                size,
                lambda _status: self._forget(name),
            )
        except OSError as error:
            raise CallFailure("unsupported", f"no shell can be started: {error.strerror}") from error

    def _forget(self, name: str) -> None:
        self._shells.pop(name, None)

    def busy(self) -> bool:
        """A shell that somebody left on purpose may be doing something."""
        return any(shell.wanted(_KEPT_S) for shell in self._shells.values())

    async def stop(self) -> None:
        """End all shells."""
        shells = list(self._shells.values())
        for shell in shells:
            shell.end()
        for shell in shells:
            await shell.gone.wait()


class _Attached:
    """Handles one stream."""

    def __init__(self, shell: Shell, stream: ServerStream) -> None:
        self._shell = shell
        self._stream = stream

    def data(self, piece: StreamData) -> None:
        """Take what was typed, or a new size."""
        size = (piece.header or {}).get("resize")
        if isinstance(size, list) and len(size) == 2:
            self._shell.resize(Size(*size))
        if piece.payload:
            self._shell.type(piece.payload)
        self._stream.consumed(piece.seq)

    def writable(self) -> None:
        """Go on showing."""
        self._shell.room()

    def closed(self, code: str, message: str) -> None:
        """Leave the shell running."""
        self._shell.detach(self._stream)


def _name(params: Mapping[str, Any]) -> str:
    name = params.get("shell")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CallFailure("bad_request", "'shell' is a name of letters, digits, '.', '_' and '-'")
    return name
