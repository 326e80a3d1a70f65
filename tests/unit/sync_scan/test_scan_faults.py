"""Every call that a scan makes fails once, in every way: nothing is ever taken for deleted because of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from colab_bridge.agent.sync.disk.platform_posix import DescriptorFolder
from colab_bridge.agent.sync.disk.root import RootFault
from colab_bridge.agent.sync.tree import Blocked, Directory, Unknown, Why, walk
from scan_tools import Side, side

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the real disk of these tests is a POSIX one")

_CALLS = ("listing", "names", "differing", "stat", "open_file", "read_link", "child")
_CODES = (errno.EIO, errno.EACCES, errno.ENOENT, errno.EMFILE, errno.ESTALE, errno.ELOOP, errno.ENOTDIR, errno.EINTR)


class _Faults:
    """Counts the calls of a scan and lets one of them fail."""

    def __init__(self, fail_at: int, code: int) -> None:
        self.calls = 0
        self.fail_at = fail_at
        self.code = code

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.code, os.strerror(self.code))


@contextmanager
def _faults(monkeypatch, fail_at: int, code: int) -> Iterator[_Faults]:
    faults = _Faults(fail_at, code)
    with monkeypatch.context() as patch:
        for call in _CALLS:
            real = getattr(DescriptorFolder, call)

            def fail(self, *arguments, _real=real):
                faults()
                return _real(self, *arguments)

            patch.setattr(DescriptorFolder, call, fail)
        yield faults


def _fill(here: Side) -> None:
    for path in ("a/b/f", "a/b/g", "a/h", "i", "\u00e9/j"):
        here.write(path, path)
    (here.path / "a" / "l").symlink_to("h")
    (here.path / "empty").mkdir()


def _assert_nothing_is_denied(true: Directory, seen: Directory) -> None:
    """Each entry is as it is, or said to be blocked or unknown there or above."""
    for name, entry in true.children.items():
        found = seen.children.get(name)
        if isinstance(found, (Unknown, Blocked)):
            assert not isinstance(found, Blocked) or found.why in {Why.UNREADABLE, Why.UNSTABLE, Why.LINK_OUTSIDE}
        elif isinstance(entry, Directory):
            assert isinstance(found, Directory)
            _assert_nothing_is_denied(entry, found)
        else:
            assert found == entry
    assert set(seen.children) <= set(true.children)


def _looks(here: Side, kind: str):
    if kind == "refresh":
        last = here.scanner._last
        assert last is not None
        for path, _ in list(walk(last.tree)):
            here.scanner._doubt(path)
        return here.scanner.refresh(last.tree, ["a", "i", "\u00e9/j", "empty"])
    return here.walk(rehash=kind == "warm")


@pytest.mark.parametrize("kind", ["cold", "warm", "refresh"])
@pytest.mark.parametrize("code", _CODES, ids=lambda code: errno.errorcode[code])
def test_a_fault_in_any_call_denies_nothing_and_leaves_no_trace(tmp_path, monkeypatch, kind, code):
    at = 0
    with side(tmp_path) as true:
        _fill(true)
        expected = true.walk().tree
        while True:
            at += 1
            with side(tmp_path) as here:
                if kind != "cold":
                    here.walk()
                    here.age()
                with _faults(monkeypatch, at, code) as faults:
                    try:
                        result = _looks(here, kind)
                    except RootFault:
                        # The root itself: nothing is concluded at all.
                        result = None
                if faults.calls < at:
                    assert at > 15
                    return
                if result is not None:
                    _assert_nothing_is_denied(expected, result.tree)
                    again = here.scanner.refresh(result.tree, [])
                    assert again.tree == expected
                assert here.walk().tree == expected
