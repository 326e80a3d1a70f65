"""Reading ``daemon.json``, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colab_bridge.client.address import find, read_address
from colab_bridge.config.paths import Paths
from colab_bridge.errors import ConflictError
from scripted_server import ScriptedServer


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)})


def test_a_daemon_that_listens_is_found(paths: Paths) -> None:
    with ScriptedServer() as server:
        server.write_address(paths.runtime_dir)
        address = find(paths)
    assert address is not None
    assert (address.port, address.host) == (server.port, f"127.0.0.1:{server.port}")


def test_the_file_of_a_killed_daemon_counts_as_none(paths: Paths) -> None:
    server = ScriptedServer()
    server.write_address(paths.runtime_dir)
    server.close()
    assert read_address(paths) is not None
    assert find(paths) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        json.dumps({"schema": 1}),
        json.dumps({"schema": 1, "pid": 1, "port": "80", "token": "x"}),
    ],
)
def test_a_damaged_file_counts_as_none(paths: Paths, text: str) -> None:
    paths.runtime_dir.mkdir(parents=True)
    paths.daemon_file.write_text(text)
    assert read_address(paths) is None


@pytest.mark.parametrize("change", [{"port": 0}, {"port": 70000}, {"token": "a\r\nb"}, {"token": "ä"}, {"pid": None}])
def test_values_that_would_reach_the_wire_are_checked(paths: Paths, change: dict[str, object]) -> None:
    server = ScriptedServer()
    server.write_address(paths.runtime_dir, **change)
    server.close()
    assert read_address(paths) is None


def test_a_file_of_another_generation_asks_for_a_restart(paths: Paths) -> None:
    server = ScriptedServer()
    server.write_address(paths.runtime_dir, schema=2)
    server.close()
    with pytest.raises(ConflictError) as caught:
        read_address(paths)
    assert "process 1" in caught.value.hint


def test_the_token_is_never_shown(paths: Paths) -> None:
    with ScriptedServer() as server:
        server.write_address(paths.runtime_dir)
        assert "t0k" not in repr(find(paths))
