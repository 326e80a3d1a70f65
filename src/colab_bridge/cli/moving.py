"""What the commands for single files share: the session, and progress on the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.sync_text import amount
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import TransientError, from_problem

__all__ = ["copy_files", "files_path", "move", "session_of"]

_VERBS = {"upload": ("uploaded", "up"), "download": ("downloaded", "down")}
_NAMED = 3


def session_of(invocation: Invocation, client: DaemonClient, session: str | None) -> str:
    """Return the name of the session that a command means."""
    return session or default_session(invocation, client)


def copy_files(invocation: Invocation, verb: str, session: str | None, *, here: Path, there: str) -> None:
    """Copy a file or folder and say what was copied.

    Args:
        invocation: This call.
        verb: ``upload`` or ``download``.
        session: Name of the session, if one was named.
        here: Path on this machine, relative to the working folder.
        there: Path on the runtime.

    Raises:
        ColabBridgeError: it was not copied; what has arrived is kept for the next try.
    """
    client = invocation.client()
    invocation.doing = "copying"
    body = {"local": os.path.normpath(Path(invocation.cwd) / here), "remote": there}
    result = move(invocation, client, session_of(invocation, client, session), verb, body)
    if invocation.as_json:
        invocation.console.json(result)
        return
    member, word = _VERBS[verb]
    done = result[member]
    more = ", …" if len(done) > _NAMED else ""
    invocation.console.note(f"{len(done)} file{'' if len(done) == 1 else 's'} {word}: {', '.join(done[:_NAMED])}{more}")


def files_path(name: str, verb: str = "") -> str:
    """Return the API's path for the files of a session."""
    return f"/v1/sessions/{segment(name)}/files" + (f"/{verb}" if verb else "")


def move(invocation: Invocation, client: DaemonClient, name: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Copy files and show how they get on.

    Returns:
        The result.

    Raises:
        ColabBridgeError: what the daemon reported.
    """
    console = invocation.console
    with client.stream("POST", files_path(name, verb), body) as events:
        for event in events:
            if event["type"] == "progress" and event["size"] > 1 << 20:
                console.progress(f"{event['path']}  {amount(event['done'])} of {amount(event['size'])}")
            elif event["type"] == "failed":
                console.clear_progress()
                raise from_problem(event["problem"])
            elif event["type"] == "done":
                console.clear_progress()
                return {key: value for key, value in event.items() if key != "type"}
    raise TransientError("the daemon stopped in the middle of it", hint="Try again: it goes on where it ended.")
