"""Where the agent keeps its files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from colab_bridge.agent.process.folder import (
    Folder,
    FolderError,
    candidate_bases,
    choose,
    private_folder,
    read_json,
    write_json,
)

posix = pytest.mark.skipif(os.name != "posix", reason="mode bits and links")


def unwritable(tmp_path: Path) -> Path:
    """A base below which nothing can be made, also by root: a file is in its place."""
    path = tmp_path / "no-folder"
    path.write_bytes(b"")
    return path


def test_the_first_base_that_can_be_written_is_taken_and_the_reason_is_told(tmp_path: Path) -> None:
    folder, troubles = choose("ws-1", [unwritable(tmp_path), tmp_path / "cache"])
    assert folder.path == tmp_path / "cache" / "colab-bridge" / "agents" / "ws-1"
    assert len(troubles) == 1
    assert "not in the user's data folder" in troubles[0]


def test_the_data_folder_needs_no_comment(tmp_path: Path) -> None:
    _folder, troubles = choose("ws-1", [tmp_path / "data", tmp_path / "cache"])
    assert troubles == []
    assert not (tmp_path / "cache").exists()


def test_no_place_at_all_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no folder on the runtime can be written to"):
        choose("ws-1", [unwritable(tmp_path)])


def test_a_running_agent_is_found_wherever_it_is(tmp_path: Path) -> None:
    second = choose("ws-1", [tmp_path / "cache"])[0]
    assert second.lock()
    try:
        found, _troubles = choose("ws-1", [tmp_path / "data", tmp_path / "cache"])
        assert found.path == second.path
        assert not found.lock()
    finally:
        second.unlock()


def test_stores_that_exist_come_before_a_better_place(tmp_path: Path) -> None:
    second = choose("ws-1", [tmp_path / "cache"])[0]
    write_json(second.agent_file, {"v": 1})
    assert choose("ws-1", [tmp_path / "data", tmp_path / "cache"])[0].path == second.path


def test_an_agent_of_another_machine_in_a_shared_home_is_left_alone(tmp_path: Path) -> None:
    first = choose("ws-1", [tmp_path / "data"])[0]
    write_json(first.agent_file, {"host": "another-machine"})
    assert first.lock()
    try:
        found, troubles = choose("ws-1", [tmp_path / "data", tmp_path / "cache"])
        assert found.path.is_relative_to(tmp_path / "cache")
        assert "in use by an agent on another-machine" in troubles[0]
    finally:
        first.unlock()


@pytest.mark.parametrize("workspace", ["", "..", "a/b", "a b", "x" * 65, "a\0"])
def test_an_id_that_is_no_name_is_refused(workspace: str, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="malformed"):
        choose(workspace, [tmp_path])


@posix
def test_folders_are_closed_to_others_even_if_they_were_open(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir(mode=0o755)
    assert stat.S_IMODE(private_folder(path).stat().st_mode) == 0o700


@posix
def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        private_folder(tmp_path / "link")


@posix
def test_small_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    write_json(tmp_path / "agent.json", {"token": "x"})
    assert stat.S_IMODE((tmp_path / "agent.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_small_file_counts_as_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_bytes(content)
    assert read_json(tmp_path / "agent.json") == {}


def test_a_folder_knows_what_its_files_take(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 1000)
    assert Folder(tmp_path).size_bytes() == 1000


def test_every_system_has_a_place_in_the_end() -> None:
    for platform in ("linux", "darwin", "win32"):
        assert len(candidate_bases({}, platform)) >= 2
    assert candidate_bases({"XDG_DATA_HOME": "/x"}, "linux")[0] == Path("/x")
