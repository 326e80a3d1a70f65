"""``colab-bridge console``: a shell on the runtime, in this terminal."""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import session_of
from colab_bridge.cli.raw_terminal import RawTerminal
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import TransientError, UserError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = ["console"]

_LEAVE = b"\x1d"  # Ctrl-], as in telnet
_OPEN_S = 10.0
#: After the daemon has been killed a new one is reached in about a second.
_TRIES = 5


@click.command()
@session_option
@json_option
@click.option("--name", default="main", show_default=True, help="Which shell; each name is a shell of its own.")
@click.option("--list", "list_", is_flag=True, help="List the shells that are there.")
@click.option("--end", is_flag=True, help="End the shell with everything that runs in it.")
@click.pass_obj
def console(invocation: Invocation, session: str | None, name: str, *, list_: bool, end: bool) -> int:
    """Open a shell on the runtime in this terminal.

    The shell goes on when you leave with Ctrl-], close the window or lose the network; the next call comes back to it.
    It ends with `exit`.
    """
    client = invocation.client()
    where = session_of(invocation, client, session)
    path = f"/v1/sessions/{segment(where)}"
    if list_:
        _show_list(invocation, client.get(f"{path}/shells"))
        return 0
    if end:
        client.post(f"{path}/shells/end", {"shell": name})
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("a console needs a terminal", hint="run a command without one: colab-bridge run -- COMMAND")
    invocation.console.note(f"shell '{name}' of session {where}; leave it running with Ctrl-]")
    with RawTerminal() as terminal:
        ending = _converse(invocation, client, terminal, path, name)
    return _conclude(invocation, ending)


def _show_list(invocation: Invocation, found: dict[str, Any]) -> None:
    if invocation.as_json:
        invocation.console.json(found)
    elif found["shells"]:
        invocation.console.table(("name", "pid"), [[shell["name"], shell["pid"]] for shell in found["shells"]])
    else:
        invocation.console.note("no shell is there")


def _conclude(invocation: Invocation, ending: dict[str, str]) -> int:
    code, message = ending.get("code", ""), ending.get("message", "")
    if code == "exited":
        return int(message) & 0xFF if message.lstrip("-").isdigit() else 1
    if code == "left":
        invocation.console.note("the shell goes on; come back with: colab-bridge console")
        return 0
    if code in ("taken", "lost"):
        invocation.console.note(message)
        return 1
    raise UserError(message or "there is no shell to be had", hint="colab-bridge status")


def _converse(
    invocation: Invocation, client: DaemonClient, terminal: RawTerminal, path: str, name: str
) -> dict[str, str]:
    """Show the shell until it ends or is left; a daemon that was killed is followed by the next one."""
    from websockets.exceptions import InvalidHandshake

    from colab_bridge.cli.daemon_socket import open_socket

    for _ in range(_TRIES):
        cols, rows = terminal.size()
        query = urlencode({"shell": name, "cols": cols, "rows": rows})
        try:
            with open_socket(client.address, f"{path}/terminal?{query}", timeout_s=_OPEN_S) as socket:
                ending = _Conversation(socket, terminal).run()
        except (OSError, TimeoutError, InvalidHandshake):
            ending = None
        if ending is not None:
            return ending
        client = invocation.client()
    raise TransientError("the daemon does not keep the connection", hint="colab-bridge daemon logs")


class _Conversation:
    """Keys up, bytes down."""

    def __init__(self, socket: ClientConnection, terminal: RawTerminal) -> None:
        self._socket = socket
        self._terminal = terminal
        self._ending: dict[str, str] | None = None
        self._over = False

    def run(self) -> dict[str, str] | None:
        """Return how it ended; None when the daemon hung up."""
        from websockets.exceptions import ConnectionClosed

        reader = threading.Thread(target=self._show, daemon=True)
        reader.start()
        try:
            while not self._over:
                keys = self._terminal.read()
                if keys is None or _LEAVE in (keys or b""):
                    self._ending = {"code": "left"}
                    break
                if keys:
                    self._socket.send(keys)
                if self._terminal.resized:
                    self._socket.send(json.dumps({"resize": list(self._terminal.size())}))
        except ConnectionClosed:
            self._over = True
        self._socket.close()
        reader.join(2)
        return self._ending

    def _show(self) -> None:
        """Root of the thread that shows what comes."""
        from websockets.exceptions import ConnectionClosed

        try:
            for frame in self._socket:
                if isinstance(frame, bytes):
                    self._terminal.write(frame)
                else:
                    found = json.loads(frame)
                    self._ending = {key: str(found.get(key, "")) for key in ("code", "message")}
        except (ConnectionClosed, ValueError):
            pass  # without an ending the conversation is begun anew
        self._over = True
        self._terminal.wake()
