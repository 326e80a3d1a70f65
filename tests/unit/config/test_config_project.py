"""Which folder is the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colab_bridge.config.project import MARKERS, find_root
from colab_bridge.errors import UserError


@pytest.mark.parametrize("marker", MARKERS)
def test_the_nearest_folder_with_a_marker_is_the_root(tmp_path: Path, marker: str) -> None:
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "project" / marker).mkdir()
    assert find_root(inner, home=tmp_path / "elsewhere") == tmp_path / "project"


def test_a_folder_without_any_marker_is_its_own_root(tmp_path: Path) -> None:
    inner = tmp_path / "home" / "plain"
    inner.mkdir(parents=True)
    assert find_root(inner, home=tmp_path / "home") == inner


def test_a_file_stands_for_its_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "p").mkdir(parents=True)
    (home / "p" / "a.ipynb").write_text("")
    assert find_root(home / "p" / "a.ipynb", home=home) == home / "p"


def test_a_marker_in_the_home_folder_does_not_count(tmp_path: Path) -> None:
    home = tmp_path / "home"
    inner = home / "notes" / "today"
    inner.mkdir(parents=True)
    (home / ".git").mkdir()
    assert find_root(inner, home=home) == inner


def test_a_marker_above_the_home_folder_does_not_count(tmp_path: Path) -> None:
    inner = tmp_path / "home" / "notes"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("")
    assert find_root(inner, home=tmp_path / "home") == inner


def test_a_home_folder_reached_through_a_link_is_still_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "real"
    (home / "notes").mkdir(parents=True)
    (home / ".git").mkdir()
    link = tmp_path / "link"
    try:
        link.symlink_to(home, target_is_directory=True)
    except OSError:
        pytest.skip("links are not allowed here")
    assert find_root(link / "notes", home=home) == link / "notes"


def test_code_in_the_home_folder_runs_there(tmp_path: Path) -> None:
    assert find_root(tmp_path, home=tmp_path) == tmp_path


@pytest.mark.parametrize("where", ["home", "root"])
def test_whoever_copies_the_folder_gets_an_error_for_home_and_root(tmp_path: Path, where: str) -> None:
    folder = tmp_path if where == "home" else Path(tmp_path.anchor)
    with pytest.raises(UserError, match="too wide") as caught:
        find_root(folder, home=tmp_path, strict=True)
    assert "Make a folder" in caught.value.hint


def test_strict_is_content_with_an_ordinary_folder(tmp_path: Path) -> None:
    inner = tmp_path / "x"
    inner.mkdir()
    assert find_root(inner, home=tmp_path, strict=True) == inner


def test_a_relative_folder_gives_an_absolute_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = find_root(Path("not-there-yet"), home=tmp_path)
    assert os.path.isabs(root)
    assert root == tmp_path / "not-there-yet"
