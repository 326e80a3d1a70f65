"""A session of a daemon on a real Jupyter server, reached through a relay that hurts the connection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from colab_bridge.testing.relay import TcpRelay
from daemon_home import DaemonHome, Seen


@dataclass
class SyncRig:
    home: DaemonHome
    root: Path
    relay: TcpRelay
    session: str
    url: str

    @property
    def project(self) -> Path:
        return self.home.project

    @property
    def workspace(self) -> Path:
        (found,) = (self.root / "colab-bridge").iterdir()
        return found

    async def call(self, method: str, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        client = self.home.client()
        path = f"/v1/sessions/{self.session}/{path}"
        return await anyio.to_thread.run_sync(lambda: getattr(client, method)(path, *args, timeout_s=120, **options))

    async def code(self, code: str, **members: Any) -> Seen:
        return await anyio.to_thread.run_sync(lambda: self.home.code(code, session=self.session, **members))
