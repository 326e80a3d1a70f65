"""Marks of files that came from elsewhere, for systems that these tests do not run on (T15)."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.agent.sync.disk.marks import AppleMark, system_mark, write_zone


class Library:
    """Stands for the C library of macOS.

    Attributes:
        calls: Arguments of each ``setxattr``.
    """

    def __init__(self, answer: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._answer = answer

    def setxattr(self, *arguments: Any) -> int:
        self.calls.append(arguments)
        return self._answer


@pytest.mark.parametrize("answer", [0, -1], ids=["marked", "no attributes on this disk"])
def test_macos_is_told_that_a_program_fetched_the_file_and_no_link_is_followed(answer: int, tmp_path: Path) -> None:
    library = Library(answer)
    AppleMark(library)(str(tmp_path / "ü"))
    ((path, name, value, size, position, options),) = library.calls
    assert (path, name) == (os.fsencode(str(tmp_path / "ü")), b"com.apple.quarantine")
    assert re.fullmatch(rb"0081;[0-9a-f]{8};Colab Bridge;", value)
    assert isinstance(size, ctypes.c_size_t)
    assert (size.value, position, options) == (len(value), 0, 1)


def test_windows_gets_the_zone_of_the_internet_beside_the_content(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"content")
    write_zone(str(file))
    # Elsewhere the name of the stream is the name of a file.
    with open(f"{file}:Zone.Identifier", "rb") as stream:
        assert stream.read() == b"[ZoneTransfer]\r\nZoneId=3\r\n"
    assert file.read_bytes() == b"content"


def test_a_disk_without_streams_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    write_zone(str(tmp_path / "missing" / "f"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("platform", "kind"), [("linux", type(None)), ("win32", type(write_zone))])
def test_each_system_has_its_mark(platform: str, kind: type) -> None:
    assert isinstance(system_mark(platform), kind)
