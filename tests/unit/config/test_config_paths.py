"""Where our files are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colab_bridge.config.paths import Paths
from colab_bridge.errors import UserError

posix = pytest.mark.skipif(os.name != "posix", reason="mode bits and owners are POSIX")


def test_a_home_variable_puts_everything_below_one_folder(tmp_path: Path) -> None:
    paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)})
    assert paths.home == tmp_path
    assert paths.user_config == tmp_path / "config" / "config.toml"
    assert paths.daemon_file == tmp_path / "run" / "daemon.json"
    assert paths.lock_file == tmp_path / "run" / "daemon.lock"
    assert paths.database == tmp_path / "state" / "state.db"
    assert paths.records_dir == tmp_path / "state" / "records"
    assert paths.cache_dir == tmp_path / "cache"


def test_a_relative_home_counts_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.from_env({"COLAB_BRIDGE_HOME": "state of mine"}).home == tmp_path / "state of mine"


def test_without_the_variable_the_platforms_folders_are_used() -> None:
    paths = Paths.from_env({})
    assert paths.home is None
    assert all("colab-bridge" in str(folder) for folder in (paths.config_dir, paths.state_dir, paths.cache_dir))


def test_the_daemon_file_does_not_move_with_the_login_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "one"))
    first = Paths.from_env({}).daemon_file
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Paths.from_env({}).daemon_file == first


@posix
def test_folders_are_made_for_their_owner_only(tmp_path: Path) -> None:
    paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / "new")})
    paths.ensure()
    for folder in (paths.home, paths.config_dir, paths.state_dir, paths.cache_dir, paths.runtime_dir):
        assert folder is not None
        assert folder.stat().st_mode & 0o777 == 0o700


@posix
def test_an_open_folder_of_ours_is_closed_and_the_users_own_home_folder_is_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir(mode=0o755)
    Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)}).ensure()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 12345, 12345)
    with pytest.raises(UserError, match="belongs to another user") as caught:
        Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)}).ensure()
    assert "COLAB_BRIDGE_HOME" in caught.value.hint


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(UserError, match="a file is there"):
        Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path)}).ensure()


def test_a_folder_that_cannot_be_made_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError):
        Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / "file" / "below")}).ensure()


def test_importing_paths_and_project_stays_light() -> None:
    program = (
        "import sys; import colab_bridge.config.paths as p, colab_bridge.config.project;"
        "p.Paths.from_env({'COLAB_BRIDGE_HOME': 'x'});"
        "print([m for m in ('pydantic', 'tomlkit', 'platformdirs', 'click', 'asyncio', 'tomllib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
