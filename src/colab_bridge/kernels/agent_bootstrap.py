"""Brings the agent up with nothing but the server's kernels API: a doorman kernel, the bundle, the way in.

The doorman kernel is an ordinary extra kernel of the server's Python. Its id is kept in a file of the daemon, so that a
daemon that was started anew uses it again; those of the same daemon that are known to nobody any more are listed in the
agent's folder, and deleted here.
"""

from __future__ import annotations

import base64
import json
import logging
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from colab_bridge._util.atomic import write_atomic
from colab_bridge._util.ids import new_id
from colab_bridge.errors import AuthError, ColabBridgeError, RuntimeLostError, TransientError, UserError
from colab_bridge.kernels.agent_bundle import Bundle, doorman_source, load_bundle
from colab_bridge.kernels.agent_errors import AgentUnavailableError, one_line
from colab_bridge.kernels.agent_socket import MOST_MESSAGE_BYTES, DoormanSocket, DoormanWire, Mode
from colab_bridge.kernels.rest import JupyterServer, KernelSpecs
from colab_bridge.kernels.socket_ws import open_channels
from colab_bridge.model.runtime import Endpoint

__all__ = ["DoormanDialer", "DoormanMemory", "FileMemory"]

log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0
# The server waits up to 60 s for a starting kernel before it opens the socket.
_FIRST_OPEN_TIMEOUT_S = 75.0
_EXECUTE_TIMEOUT_S = 75.0
_KNOCK_TIMEOUT_S = 3.0
_MOST_DOORMEN = 16


class DoormanMemory(Protocol):
    """Where the id of the doorman kernel outlives this process."""

    def load(self) -> str:
        """Return the id, empty when there is none."""
        ...

    def save(self, kernel_id: str) -> None:
        """Keep the id; empty to forget."""
        ...


class FileMemory:
    """Keeps the id in a small file.

    Args:
        path: The file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> str:
        """Return the id, empty when there is none or the file cannot be read."""
        try:
            value = json.loads(self._path.read_bytes())
            return str(value["kernel"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def save(self, kernel_id: str) -> None:
        """Keep the id; a disk that does not take it costs another kernel later, nothing else."""
        try:
            write_atomic(self._path, json.dumps({"v": 1, "kernel": kernel_id}).encode())
        except OSError as error:
            log.warning("doorman not written down", extra={"why": str(error)})


class DoormanDialer:
    """Connects to an agent through a kernel of a Jupyter server; implements ``agent_socket.Dialer``.

    Args:
        get_endpoint: Returns the way in; asked anew before each connection.
        workspace: Id of the workspace, letters, digits, ``-`` and ``_``: there is one agent for each.
        owner: Id of this daemon.
        memory: Keeps the doorman kernel's id.
        options: For the agent: ``idle_s``, ``rss_bytes``, ``disk_bytes``.
        bundle: What to run; this installation's agent when None.
        mode: ``control`` to leave stdin out.
    """

    def __init__(
        self,
        get_endpoint: Callable[[], Awaitable[Endpoint]],
        workspace: str,
        owner: str,
        *,
        memory: DoormanMemory,
        options: Mapping[str, Any] | None = None,
        bundle: Bundle | None = None,
        mode: Mode = "tunnel",
    ) -> None:
        self.mode: Mode = mode
        self._get_endpoint = get_endpoint
        self._workspace = workspace
        self._owner = owner
        self._memory = memory
        self._options = dict(options or {})
        self._bundle = bundle or load_bundle()
        self._kernel_id = ""
        self._started = False

    @property
    def content_hash(self) -> str:
        """Of the agent that is started."""
        return self._bundle.content_hash

    @property
    def kernel_id(self) -> str:
        """The server's id of the doorman kernel, empty before the first connection."""
        return self._kernel_id

    def start_over(self) -> None:
        """Look whether the agent runs before the next connection."""
        self._started = False

    async def dial(self) -> DoormanWire:
        """Return a new connection to the agent.

        Raises:
            AgentUnavailableError: no agent can be had on this server.
            ColabBridgeError: not this time.
        """
        timeout_s = await self._find_kernel()
        try:
            _endpoint, connection = await open_channels(
                self._get_endpoint, self._kernel_id, new_id("agent"), timeout_s, max_bytes=MOST_MESSAGE_BYTES
            )
        except RuntimeLostError:
            self._forget_kernel()
            raise TransientError("the kernel that leads to the agent has gone; another one is made") from None
        door = DoormanSocket(connection, new_id("agent"))
        try:
            await self._open_door(door)
        except AgentUnavailableError:
            await door.aclose()
            await self._delete_kernel()
            raise
        except BaseException:
            await door.aclose()
            raise
        return DoormanWire(door, self.mode, self.start_over)

    async def aclose(self) -> None:
        """Delete the doorman kernel; the agent is not touched."""
        self._kernel_id = self._kernel_id or self._memory.load()
        await self._delete_kernel()

    # -- the kernel

    async def _find_kernel(self) -> float:
        """Make sure that there is a kernel, and return how long its WebSocket may take to open."""
        if self._kernel_id and self._started:
            return _OPEN_TIMEOUT_S
        server = JupyterServer(await self._get_endpoint())
        try:
            known = self._kernel_id or self._memory.load()
            found = await server.kernel(known) if known else None
            if found is not None and found.execution_state != "dead":
                self._kernel_id = found.id
            else:
                self._kernel_id = await _start_kernel(server)
                self._memory.save(self._kernel_id)
            return _FIRST_OPEN_TIMEOUT_S
        finally:
            await server.aclose()

    def _forget_kernel(self) -> None:
        self._kernel_id = ""
        self._started = False
        self._memory.save("")

    # -- the door

    async def _open_door(self, door: DoormanSocket) -> None:
        if self._started and await door.knock(self.mode, _KNOCK_TIMEOUT_S):
            return
        await self._start_agent(door)
        if not await door.knock(self.mode, _KNOCK_TIMEOUT_S):
            # The line may have gone meanwhile: only a server that carries other messages surely swallows these.
            await door.execute("colab_bridge_answer = '{}'", _EXECUTE_TIMEOUT_S)
            if self.mode == "control":
                raise AgentUnavailableError("the server does not let the agent's messages through")
            self.mode = "control"
            await self._open_door(door)
        self._started = True

    async def _start_agent(self, door: DoormanSocket) -> None:
        answer = await self._ask(door, b"")
        if answer.get("need") == "bundle":
            answer = await self._ask(door, self._bundle.data)
        if not answer.get("ok"):
            raise AgentUnavailableError(one_line(answer.get("message")) or "the agent cannot be started")
        await self._delete_forgotten(answer.get("doormen"))

    async def _ask(self, door: DoormanSocket, bundle: bytes) -> dict[str, Any]:
        request = {
            **self._options,
            "workspace": self._workspace,
            "owner": self._owner,
            "doorman": self._kernel_id,
            "hash": self._bundle.content_hash,
            "bundle": self._bundle.file_name,
            "data": base64.b64encode(zlib.compress(bundle)).decode() if bundle else "",
            "mode": self.mode,
        }
        call = f"colab_bridge_answer = colab_bridge_doorman(json.loads({json.dumps(request)!r}))"
        answer = await door.execute(f"{doorman_source()}\n\n{call}\n", _EXECUTE_TIMEOUT_S)
        if answer is None:
            raise AgentUnavailableError("the server's Python kernel does not answer as ipykernel does")
        return answer

    async def _delete_forgotten(self, doormen: object) -> None:
        """Delete kernels that this daemon made earlier and has forgotten."""
        if isinstance(doormen, list):
            known = [each for each in doormen[:_MOST_DOORMEN] if isinstance(each, str) and each != self._kernel_id]
            await self._delete_kernels(known)

    async def _delete_kernel(self) -> None:
        kernel_id = self._kernel_id
        self._forget_kernel()
        await self._delete_kernels([kernel_id] if kernel_id else [])

    async def _delete_kernels(self, kernel_ids: list[str]) -> None:
        """Delete kernels of ours; failing costs only their memory on the server."""
        if not kernel_ids:
            return
        try:
            server = JupyterServer(await self._get_endpoint())
            try:
                for kernel_id in kernel_ids:
                    await server.delete_kernel(kernel_id)
            finally:
                await server.aclose()
        except ColabBridgeError as error:
            log.info("a kernel of the agent was not deleted", extra={"why": error.message})


async def _start_kernel(server: JupyterServer) -> str:
    specs = await server.kernelspecs()
    name = _python_spec(specs)
    if name is None:
        raise AgentUnavailableError("the server has no Python kernel, so there is no agent")
    try:
        # In the server's root, whatever folder the server itself was started in: workspaces lie below it.
        return await server.start_kernel(name, "")
    except (AuthError, UserError) as error:
        # It has just answered us: what it refuses is the kernel.
        raise AgentUnavailableError("the server does not let us start another kernel, so there is no agent") from error


def _python_spec(specs: KernelSpecs) -> str | None:
    """Choose the kernelspec of the doorman: the server's default if that is Python."""
    names = [name for name, spec in specs.specs.items() if spec.language == "python"]
    for wanted in (specs.default, "python3"):
        if wanted in names:
            return wanted
    return min(names, default=None)
