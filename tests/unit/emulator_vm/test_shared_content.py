"""The host's own ``/content``, lent to one emulated machine at a time (here: any folder)."""

from __future__ import annotations

from pathlib import Path

import pytest

from colab_bridge.testing.colab.vm import supervisor
from colab_bridge.testing.colab.vm.supervisor import CannotError, SharedContent

pytestmark = pytest.mark.skipif(not hasattr(supervisor.os, "fork"), reason="Windows has another way")

REQUEST = {"hostname": "m-s-test\n"}


@pytest.fixture(autouse=True)
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(SharedContent, "content", tmp_path / "content")
    monkeypatch.setattr(SharedContent, "colab", tmp_path / "colab")
    return tmp_path / "content"


def test_it_is_made_lent_and_removed(content: Path, tmp_path: Path) -> None:
    lent = SharedContent(REQUEST, "no reason")
    (content / "deep" / "er").mkdir(parents=True)
    (content / "link").symlink_to(tmp_path)
    assert (tmp_path / "colab" / "hostname").read_text() == "m-s-test\n"
    with pytest.raises(CannotError, match="another emulated machine uses /content"):
        SharedContent(REQUEST, "no reason")
    lent.give_back()
    assert list(tmp_path.iterdir()) == []
    SharedContent(REQUEST, "no reason").give_back()


def test_a_folder_that_was_there_stays_but_what_the_machine_wrote_goes(content: Path) -> None:
    content.mkdir()
    lent = SharedContent(REQUEST, "no reason")
    (content / "written").touch()
    lent.give_back()
    assert list(content.iterdir()) == []


def test_files_of_somebody_else_are_never_touched(content: Path) -> None:
    content.mkdir()
    (content / "thesis").touch()
    with pytest.raises(CannotError, match="not the emulator's"):
        SharedContent(REQUEST, "no reason")
    assert [entry.name for entry in content.iterdir()] == ["thesis"]


def test_what_a_killed_supervisor_left_is_removed(content: Path) -> None:
    content.mkdir()
    (content / supervisor._SHARED_MARK).touch()
    (content / "left").mkdir()
    SharedContent(REQUEST, "no reason").give_back()
    assert list(content.iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "code", "fix"),
    [
        ("darwin", supervisor.errno.EROFS, "/etc/synthetic.conf"),
        ("linux", supervisor.errno.EACCES, "user namespaces"),
        ("linux", supervisor.errno.EPERM, "sudo install -d"),
        ("linux", supervisor.errno.ENOSPC, "make /content a folder"),
    ],
)
def test_what_is_missing_is_said_in_one_line_and_the_fix_in_another(
    monkeypatch: pytest.MonkeyPatch, platform: str, code: int, fix: str
) -> None:
    monkeypatch.setattr(supervisor.sys, "platform", platform)
    error = OSError(code, supervisor.os.strerror(code))
    message, hint = supervisor._advice(error, "unshare Operation not permitted").split("\n")
    assert "unshare Operation not permitted" in message
    assert fix in hint


def test_a_disk_with_something_mounted_on_it_is_left_alone(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name in ("rootfs", "layers", "content"):
        (disk / name).mkdir(parents=True)
    (disk / "rootfs" / "usr").touch()  # in place of a mount: the folder cannot be removed
    supervisor._remove(str(disk))
    assert (disk / "content").is_dir()
    (disk / "rootfs" / "usr").unlink()
    supervisor._remove(str(disk))
    assert not disk.exists()
