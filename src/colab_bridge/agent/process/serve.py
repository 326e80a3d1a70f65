"""The command ``serve`` of the bundle: the agent itself, from its first breath to its last."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..garbage import look_seldom
from ..tunnel.processes import can_see_processes
from .folder import Folder
from .guard import Caps
from .loading import load_services
from .server import AgentServer, Identity

__all__ = ["main"]

_LOG_BYTES = 512 * 1024
_NO_PROCESSES = "the runtime shows no processes (/proc is empty), so the end of a kernel is noticed late"


def main() -> None:
    """Be the agent of the folder that the arguments name; the rest comes as one JSON object on stdin."""
    serve(Folder(Path(sys.argv[2])), json.loads(sys.stdin.buffer.read()))


def serve(folder: Folder, request: Mapping[str, Any]) -> None:
    """Be the agent until its end.

    Args:
        folder: The agent's.
        request: ``hash`` of the bundle, ``site`` (folder of pyzmq), ``idle_s``, ``troubles``.
    """
    try:
        if not folder.lock():
            _say({"ok": False, "code": "locked"})
            return
    except OSError as error:
        _say({"ok": False, "code": "folder", "message": f"{folder.path}: {error.strerror or error}"})
        return
    look_seldom()
    _log_to(folder)
    _add_site(request.get("site"))
    loop = asyncio.SelectorEventLoop()  # the only kind on Windows that ZMQ's sockets can live in
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(folder, request))
    finally:
        loop.close()
    # A thread that a service has left behind must not keep the folder.
    os._exit(0)


async def _serve(folder: Folder, request: Mapping[str, Any]) -> None:
    identity = Identity(content_hash=str(request.get("hash", "")), boot_id=secrets.token_hex(8), started_at=time.time())
    caps = Caps(**{key: request[key] for key in ("idle_s", "rss_bytes", "disk_bytes") if key in request})
    services, troubles = load_services()
    if sys.platform == "linux" and not can_see_processes():
        troubles.append(_NO_PROCESSES)
    server = AgentServer(folder, identity, caps, services, [*request.get("troubles", ()), *troubles])
    try:
        await server.run(_announce)
    except OSError as error:
        _say({"ok": False, "code": "folder", "message": f"{folder.path}: {error.strerror or error}"})


def _announce(about: Mapping[str, Any]) -> None:
    _say({"ok": True, **about})
    # Whoever started us reads one line and goes; nothing may ever wait for that pipe again.
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.close(quiet)


def _say(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _log_to(folder: Folder) -> None:
    logging.raiseExceptions = False  # a full disk is no reason to say more
    try:
        handler: logging.Handler = logging.handlers.RotatingFileHandler(
            folder.log_file, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8"
        )
    except OSError:
        handler = logging.NullHandler()
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _add_site(site: Any) -> None:
    """Make the doorman's pyzmq importable; at the end, so that nothing there can stand before the standard library."""
    if isinstance(site, str) and os.path.isdir(site) and site not in sys.path:
        sys.path.append(site)
