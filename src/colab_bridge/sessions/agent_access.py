"""How this daemon gets to the agent of a workspace, and who it says that it is."""

from __future__ import annotations

import getpass
import hashlib
import logging
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

from colab_bridge._util.atomic import write_atomic
from colab_bridge._util.ids import new_id
from colab_bridge.kernels.agent_bootstrap import DoormanDialer, FileMemory
from colab_bridge.kernels.agent_link import AgentLink
from colab_bridge.kernels.agent_local import LocalDialer
from colab_bridge.model.records import Session
from colab_bridge.model.runtime import Endpoint

__all__ = ["AgentAccess", "AgentDoors", "workspace_id"]

log = logging.getLogger(__name__)

#: Name of the one agent in the folder of a runtime on this machine; short, because a socket's path must be.
_HERE = "here"
_OWNER = re.compile(r"daemon-[a-z0-9-]{8,60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAccess:
    """One link that does not run yet, and what belongs to it.

    Attributes:
        link: The link.
        known: Returns whether this daemon, or one before it, has left something on the runtime to get to the agent.
        leave: Removes that again, after the agent's end.
    """

    link: AgentLink
    known: Callable[[], bool]
    leave: Callable[[], Awaitable[None]]


class AgentDoors:
    """Makes the ways to agents; implements what :class:`~colab_bridge.sessions.agents.Agents` is given.

    Args:
        folder: Where this daemon's name and the doormen's ids are kept; made when absent.
        endpoint_of: Gives the way in to the runtime of a session, by session name.
    """

    def __init__(self, folder: Path, endpoint_of: Callable[[str], Awaitable[Endpoint]]) -> None:
        self._folder = folder
        self._endpoint_of = endpoint_of
        self._owner = ""

    def open(self, session: Session) -> AgentAccess:
        """Return a link to the agent of a session's workspace; on this machine without a kernel in between.

        Two servers of one machine may lead to the same agent. Who comes second is told that it is held, as another
        daemon would be; under one name the two links would take it from each other for ever.
        """

        async def endpoint() -> Endpoint:
            return await self._endpoint_of(session.name)

        workspace = workspace_id(session)
        place = f"{session.provider}\n{session.handle.id if session.handle is not None else ''}"
        server = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        owner = f"{self._owner_id()}-{server}"
        if session.handle is not None and session.handle.here is not None:
            return self._open_here(Path(session.handle.here), owner)
        memory = FileMemory(self._folder / f"{workspace}-{server}.json")
        dialer = DoormanDialer(endpoint, workspace, owner, memory=memory)
        link = AgentLink(dialer, owner, _label())
        return AgentAccess(link=link, known=lambda: bool(memory.load()), leave=dialer.aclose)

    def _open_here(self, folder: Path, owner: str) -> AgentAccess:
        hints = {"jupyter_runtime_dir": str(folder / "runtime"), "cwd": str(folder)}
        dialer = LocalDialer(
            sys.executable, self._folder / "bundles", [folder], _HERE, owner, hints=hints, needs=folder
        )
        link = AgentLink(dialer, owner, _label())
        return AgentAccess(link=link, known=dialer.known, leave=dialer.aclose)

    def _owner_id(self) -> str:
        """Return the name that stays the same when this daemon is started again: the agent's lease hangs on it."""
        if self._owner:
            return self._owner
        path = self._folder / "owner"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.read_text(encoding="ascii").strip() if path.exists() else ""
            if not _OWNER.fullmatch(found):
                found = new_id("daemon")
                write_atomic(path, found.encode())
        except (OSError, UnicodeDecodeError) as error:
            # The lease then ends by itself two minutes after this process.
            log.warning("the daemon's name cannot be kept", extra={"reason": str(error)})
            found = new_id("daemon")
        self._owner = found
        return found


def workspace_id(session: Session) -> str:
    """Return the name of a session's workspace on its runtime; the same on every machine with the same project.

    Args:
        session: The session; its runtime is known.
    """
    root = session.handle.root if session.handle is not None else None
    name = PurePath(session.project).name
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")[:32] or "project"
    digest = hashlib.sha256(f"{name}\n{root or ''}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{slug}-{digest[:12]}"


def _label() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in the system's list, as in some containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"[:100]
