"""Code that fails on a file which was left out is told so, whatever the error looks like."""

from __future__ import annotations

from typing import Any

import pytest

from colab_bridge.sync.missing import left_out_hint, missing_paths, words_of
from colab_bridge.wire.message import RawMessage
from sync_pair import open_pair

ERRORS = {
    "FileNotFoundError: [Errno 2] No such file or directory: 'data/x y.csv'": ["data/x y.csv"],
    "FileNotFoundError: [Errno 2] No such file or directory: b'data/x.csv'": ["data/x.csv"],
    "NotADirectoryError: [Errno 20] Not a directory: 'x'": [],
    "FileNotFoundError: [Errno 2] Unable to synchronously open file (unable to open file: name = 'm.h5', errno = 2, "
    "error message = 'No such file or directory', flags = 0, o_flags = 0)": ["m.h5"],
    "FileNotFoundError: data/table.parquet": ["data/table.parquet"],
    "f\n\x1b[0;31mFileNotFoundError\x1b[0m: [Errno 2] No such file or directory: 'a'\n\nRuntimeError: b": ["a"],
    "cat: data/x.csv: No such file or directory\n": ["data/x.csv"],
    "ls: cannot access 'data': No such file or directory\n": ["data"],
    "ValueError: nothing of this kind": [],
}


@pytest.mark.parametrize("words", ERRORS)
def test_the_path_is_found_in_errors_of_python_of_libraries_and_of_programs(words: str) -> None:
    assert missing_paths(words) == ERRORS[words]


def message(kind: str, content: dict[str, Any]) -> RawMessage:
    return RawMessage.build("iopub", kind, content, msg_id="m", session="s")


def test_an_error_and_what_is_written_to_stderr_are_searched() -> None:
    error = {"ename": "E", "evalue": "v", "traceback": ["a", "b"]}
    assert words_of(message("error", error)) == "a\nb\nE: v\n"
    assert words_of(message("stream", {"name": "stderr", "text": "x"})) == "x"
    assert words_of(message("stream", {"name": "stdout", "text": "x"})) == ""
    assert words_of(message("status", {"execution_state": "idle"})) == ""


@pytest.mark.anyio
async def test_the_command_is_one_that_a_shell_reads_as_that_path(tmp_path) -> None:
    async with open_pair(tmp_path) as pair:
        (pair.here / "build").mkdir()
        for name in ("it's mine.bin", "x" * 240):
            (pair.here / "build" / name).write_text("1")
        await pair.sync.sync("sync")
        hint = left_out_hint(pair.sync, "", "build/it's mine.bin")
        assert hint is not None
        assert hint.fix == "colab-bridge sync include 'build/it'\\''s mine.bin'"
        assert hint.text.endswith(f"take it along: {hint.fix}")
        hint = left_out_hint(pair.sync, "sub", f"{pair.there}/sub/../build/{'x' * 240}")
        assert hint is not None
        assert hint.fix == f"colab-bridge sync include build/{'x' * 240}"
        assert left_out_hint(pair.sync, "", "../build/x") is None
        assert left_out_hint(pair.sync, "", "build/none") is None
        assert left_out_hint(pair.sync, "", "build/\0") is None
