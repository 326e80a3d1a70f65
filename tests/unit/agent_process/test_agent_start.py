"""What is written down when a daemon finds or starts the agent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.agent.process.folder import Folder, read_json
from colab_bridge.agent.process.start import _complete, ask_agent


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def found(folder: Folder, **request: Any) -> dict[str, Any]:
    return _complete({"ok": True, "address": {}}, folder, request)


def test_a_daemon_is_told_of_kernels_that_it_made_earlier_and_of_no_others(folder: Folder) -> None:
    assert found(folder, owner="a", doorman="k1")["doormen"] == []
    assert found(folder, owner="b", doorman="k2")["doormen"] == []
    assert found(folder, owner="a", doorman="k1")["doormen"] == []
    assert found(folder, owner="a", doorman="k3")["doormen"] == ["k1"]
    assert read_json(folder.path / "doormen.json") == {"k2": "b", "k3": "a"}


def test_the_list_of_kernels_does_not_grow_for_ever(folder: Folder) -> None:
    for number in range(100):
        found(folder, owner=f"daemon-{number}", doorman=f"k{number}")
    assert len(read_json(folder.path / "doormen.json")) <= 17


def test_runtime_folders_of_several_servers_add_up_with_the_latest_first(folder: Folder) -> None:
    for name in ("/one", "/two", "/one"):
        found(folder, owner="a", doorman="", hints={"jupyter_runtime_dir": name, "python": "p"})
    hints = read_json(folder.path / "hints.json")
    assert hints == {
        "jupyter_runtime_dir": "/one",
        "jupyter_runtime_dirs": os.pathsep.join(["/one", "/two"]),
        "python": "p",
    }


@pytest.mark.parametrize("hints", [None, 5, [], "x"])
def test_hints_that_are_none_do_no_harm(folder: Folder, hints: object) -> None:
    assert found(folder, owner="a", doorman="", hints=hints)["ok"]


@pytest.mark.parametrize(
    "address",
    [{}, {"kind": "unix"}, {"kind": "unix", "path": "/nowhere/at/all"}, {"port": 1, "token": "x"}, {"port": []}],
)
def test_nobody_answers_at_an_address_that_leads_nowhere(address: dict[str, Any]) -> None:
    assert ask_agent(address) is None


def test_a_failure_is_handed_on_as_it_is(folder: Folder) -> None:
    answer = {"ok": False, "message": "no"}
    assert _complete(answer, folder, {"owner": "a", "doorman": "k"}) == answer
    assert json.dumps(answer)
