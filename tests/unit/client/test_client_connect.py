"""Which daemon a command gets, when there is one already."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from colab_bridge import __version__
from colab_bridge.client.connect import connect
from colab_bridge.config.paths import Paths
from colab_bridge.errors import TransientError
from scripted_server import ScriptedServer, document


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)})


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        running.replies["GET /v1/health"] = [document({"status": "ok"})]
        yield running


def test_the_daemon_that_answers_is_used(server: ScriptedServer, paths: Paths) -> None:
    server.write_address(paths.runtime_dir, version=__version__)
    assert connect(start=False, paths=paths).address.port == server.port


def test_without_a_daemon_and_without_leave_to_start_one_there_is_an_error(paths: Paths) -> None:
    with pytest.raises(TransientError) as caught:
        connect(start=False, paths=paths)
    assert caught.value.hint == "Start it: colab-bridge daemon start"


def test_somebody_elses_server_on_the_old_port_is_no_daemon(server: ScriptedServer, paths: Paths) -> None:
    server.replies["GET /v1/health"] = [document({"title": "AuthError", "detail": "token"}, 401)]
    server.write_address(paths.runtime_dir, version=__version__)
    with pytest.raises(TransientError) as caught:
        connect(start=False, paths=paths)
    assert caught.value.code == "CB-TRANSIENT-NO-DAEMON"


def test_a_busy_daemon_of_another_version_is_used_and_told(server: ScriptedServer, paths: Paths) -> None:
    server.replies["GET /v1/status"] = [document({"runs": [{"id": "run-1"}]})]
    server.write_address(paths.runtime_dir, version="0.0.1")
    told: list[str] = []
    assert connect(paths=paths, notify=told.append).address.port == server.port
    assert len(told) == 1
    assert "0.0.1" in told[0]
    assert "POST /v1/shutdown" not in server.requests


def test_an_idle_daemon_of_another_version_is_replaced(
    server: ScriptedServer, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    import colab_bridge.client.start as start_module

    def shut(connection: socket.socket) -> None:
        connection.sendall(document({}, 202))
        server.close()

    with ScriptedServer() as successor:
        successor.replies["GET /v1/health"] = [document({"status": "ok"})]
        server.replies["GET /v1/status"] = [document({"runs": []})]
        server.replies["POST /v1/shutdown"] = [shut]
        server.write_address(paths.runtime_dir, version="0.0.1")

        def spawn(argv: list[str], **options: object) -> object:
            successor.write_address(paths.runtime_dir, version=__version__)
            return start_module.ProcessId(pid=1, create_time=0.0)

        # The one thing that is replaced: the process that would be started.
        monkeypatch.setattr(start_module, "spawn_detached", spawn)
        client = connect(paths=paths, timeout_s=5, notify=lambda text: None)
    assert client.address.port == successor.port
    assert "POST /v1/shutdown" in server.requests


def test_a_daemon_that_dies_at_once_is_an_error_with_its_own_words(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    import colab_bridge.client.start as start_module

    def spawn(argv: list[str], *, log_path: Path, **options: object) -> object:
        log_path.write_text("port 80 cannot be used\ntake another one\n")
        return start_module.ProcessId(pid=2**22 + 7, create_time=-1.0)

    monkeypatch.setattr(start_module, "spawn_detached", spawn)
    monkeypatch.setattr(start_module, "_LOSER_WAIT_S", 0.1)
    with pytest.raises(TransientError, match="port 80 cannot be used") as caught:
        connect(paths=paths, timeout_s=5)
    assert caught.value.hint == "take another one"


def test_a_crash_of_the_daemon_is_shown_by_its_last_line(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    import colab_bridge.client.start as start_module

    def spawn(argv: list[str], *, log_path: Path, **options: object) -> object:
        log_path.write_text("Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module named 'x'\n")
        return start_module.ProcessId(pid=2**22 + 7, create_time=-1.0)

    monkeypatch.setattr(start_module, "spawn_detached", spawn)
    monkeypatch.setattr(start_module, "_LOSER_WAIT_S", 0.1)
    with pytest.raises(TransientError, match="ModuleNotFoundError") as caught:
        connect(paths=paths, timeout_s=5)
    assert "doctor" in caught.value.hint
