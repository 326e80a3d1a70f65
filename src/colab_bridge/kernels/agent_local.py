"""The way to an agent on this machine: no doorman, the agent's own socket."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from colab_bridge._util.atomic import write_atomic
from colab_bridge.agent.process.folder import agent_file
from colab_bridge.agent.process.wire import LocalWire, open_local
from colab_bridge.errors import TransientError
from colab_bridge.kernels.agent_bundle import Bundle, compiled_bundle, compiled_file_name, load_bundle
from colab_bridge.kernels.agent_errors import AgentUnavailableError, one_line
from colab_bridge.kernels.agent_socket import Mode

__all__ = ["LocalAgentWire", "LocalDialer"]

_START_TIMEOUT_S = 60.0


class LocalAgentWire(LocalWire):
    """A connection to the agent; implements ``agent_socket.Wire``."""

    why = ""


class LocalDialer:
    """Starts an agent on this machine and connects to its socket; implements ``agent_socket.Dialer``.

    Args:
        python: This process's interpreter, or another one with the same compiled code.
        bundles: Folder for the bundle; made if need be.
        bases: Folders below which the agent may live, best first.
        workspace: Id of the workspace.
        owner: Id of this daemon.
        hints: What a doorman would know: ``jupyter_runtime_dir``, ``cwd``; ``site`` is found when missing.
        options: For the agent: ``idle_s``, ``rss_bytes``, ``disk_bytes``.
        bundle: What to run; this installation's agent when None.
        needs: Folder of the runtime; where it has gone the runtime has, and no agent is started.
    """

    mode: Mode = "tunnel"

    def __init__(
        self,
        python: str,
        bundles: Path,
        bases: list[Path],
        workspace: str,
        owner: str,
        *,
        hints: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        bundle: Bundle | None = None,
        needs: Path | None = None,
    ) -> None:
        self._python = python
        self._bundles = bundles
        self._bundle = bundle
        self._content_hash = (bundle or load_bundle()).content_hash
        self._bases = bases
        self._needs = needs
        self._workspace = workspace
        self._address: dict[str, Any] | None = None
        self._request = {
            **(options or {}),
            "workspace": workspace,
            "owner": owner,
            "hash": self._content_hash,
            "hints": {"site": _site(), **(hints or {})},
            "bases": [str(base) for base in bases],
        }

    @property
    def content_hash(self) -> str:
        """Of the agent that is started."""
        return self._content_hash

    def start_over(self) -> None:
        """Look whether the agent runs before the next connection."""
        self._address = None

    async def dial(self) -> LocalAgentWire:
        """Return a new connection to the agent.

        Raises:
            AgentUnavailableError: it cannot be started.
            TransientError: it does not answer now.
        """
        if self._address is None:
            self._address = await self._start()
        try:
            return await open_local(self._address, LocalAgentWire)
        except OSError as error:
            self._address = None
            raise TransientError(f"the agent does not answer: {error.strerror or error}") from error

    def known(self) -> bool:
        """Return whether an agent was started in one of the folders."""
        return any(agent_file(base, self._workspace).exists() for base in self._bases)

    async def aclose(self) -> None:
        """Nothing is kept."""

    async def _start(self) -> dict[str, Any]:
        try:
            path = await to_thread.run_sync(self._place_bundle)
            with anyio.fail_after(_START_TIMEOUT_S):
                done = await anyio.run_process(
                    [self._python, "-I", "-S", "-B", str(path), "start"],
                    input=json.dumps(self._request).encode(),
                    stderr=subprocess.DEVNULL,
                    check=False,
                    env=_environment(),
                )
            answer = json.loads(done.stdout.splitlines()[0])
        except (TimeoutError, ValueError, IndexError):
            raise AgentUnavailableError("the agent cannot be started on this machine") from None
        except OSError as error:
            raise AgentUnavailableError(f"the agent cannot be started: {error.strerror or error}") from error
        address = answer.get("address")
        if not answer.get("ok") or not isinstance(address, dict):
            raise AgentUnavailableError(one_line(answer.get("message")) or "the agent cannot be started")
        return address

    def _place_bundle(self) -> Path:
        """Write the bundle to where it is run, unless it is there."""
        if self._needs is not None and not self._needs.is_dir():
            raise AgentUnavailableError("the folder of the local runtime has gone, so there is no agent")
        path = self._bundles / (self._bundle.file_name if self._bundle else compiled_file_name())
        if not path.is_file():
            self._bundles.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, (self._bundle or compiled_bundle()).data)
        return path


def _site() -> str:
    """Return the folder that pyzmq is imported from here; the agent sees no packages of its own."""
    found = importlib.util.find_spec("zmq")
    return str(Path(found.origin).parents[1]) if found is not None and found.origin else ""


def _environment() -> dict[str, str]:
    """Return ours without our settings and tokens, which are not for what outlives us."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("COLAB_BRIDGE_") or name == "COLAB_BRIDGE_HOME"
    }
