"""Starts the daemon: lock, socket, API, ``daemon.json``; ends it without ending what it holds."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator

import anyio
import filelock
import uvicorn

from colab_bridge import __version__
from colab_bridge._util.atomic import write_atomic
from colab_bridge._util.process import identify
from colab_bridge.api.prompt_websocket import PromptWebSocket
from colab_bridge.api.server import build_api, protect
from colab_bridge.app import App, open_app
from colab_bridge.config.paths import Paths
from colab_bridge.config.settings import load_settings
from colab_bridge.daemon.logs import configure_logging
from colab_bridge.errors import ColabBridgeError, ConflictError, UserError

__all__ = ["main"]

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Run the daemon until it is told to stop.

    Args:
        argv: ``--port N`` (0: any free port); the setting ``port`` without it.

    Returns:
        Exit status; 73 when another daemon runs, 2 when the port is taken.
    """
    parser = argparse.ArgumentParser(prog="colab-bridge daemon")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args(argv)
    configure_logging()
    paths = Paths.from_env(os.environ)
    try:
        paths.ensure()
        port = _wanted_port(paths) if arguments.port is None else arguments.port
        with _only_one(paths), _listen(port) as listener:
            anyio.run(_serve, paths, listener)
    except ColabBridgeError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return error.exit_status
    return 0


def _wanted_port(paths: Paths) -> int:
    """Return the setting; with broken settings any port, so that the daemon comes up and can say what is broken."""
    try:
        return load_settings(paths, None, os.environ).settings.port
    except UserError:
        return 0


@contextlib.contextmanager
def _only_one(paths: Paths) -> Iterator[None]:
    """Hold the lock that makes this the only daemon of this home; the system frees it when the process dies."""
    lock = filelock.FileLock(paths.lock_file, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise ConflictError(
            "a daemon is running already", hint="colab-bridge daemon status", code="CB-CONFLICT-010"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it each small answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} cannot be used: {getattr(error, 'strerror', None) or error}",
                hint="choose another one, or any free one with: colab-bridge config set port 0",
                code="CB-USER-050",
            ) from error
        yield listener
    finally:
        listener.close()


async def _serve(paths: Paths, listener: socket.socket) -> None:
    token = secrets.token_urlsafe(32)
    port = listener.getsockname()[1]
    async with open_app(paths) as app:
        config = uvicorn.Config(
            protect(build_api(app), token=token, port=port),
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="off",
            http="h11",
            ws=PromptWebSocket,
            ws_max_size=256 * 1024 * 1024,
            # The peer is on this machine: its death closes the socket, and pings would only wake a sleeping laptop.
            ws_ping_interval=None,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=2,
        )
        server = _Server(config)
        async with anyio.create_task_group() as tasks, _published(app, port, token):
            tasks.start_soon(_stop_on_signal, app)
            tasks.start_soon(_stop_server, app, server)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()
    log.info("daemon stopped")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@contextlib.asynccontextmanager
async def _published(app: App, port: int, token: str) -> AsyncIterator[None]:
    """Tell clients where the daemon is, for as long as it is there.

    Clients take a missing file for a stop on purpose and start no new daemon by themselves, so it stays after a
    failure.
    """
    file = app.paths.daemon_file
    own = identify(os.getpid())
    if own is None:
        raise UserError("the system tells nothing about this process", hint="is /proc or its counterpart restricted?")
    value = {
        "schema": 1,
        "pid": own.pid,
        "create_time": own.create_time,
        "port": port,
        "token": token,
        "version": __version__,
        "started_at": time.time(),
    }
    write_atomic(file, json.dumps(value).encode(), mode=0o600)
    log.info("daemon started", extra={"port": port, "pid": own.pid})
    try:
        yield
    finally:
        if app.stopping.is_set():
            file.unlink(missing_ok=True)


async def _stop_on_signal(app: App) -> None:
    if os.name != "posix":
        return  # Windows ends the process; the state is on disk at every moment
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            app.stopping.set()


async def _stop_server(app: App, server: uvicorn.Server) -> None:
    await app.stopping.wait()
    server.should_exit = True
