"""The path rule and the keys of names."""

from __future__ import annotations

import pytest

from colab_bridge.agent.sync.names import check_path, check_target, fold_key, guard_key, name_from_disk, shown


@pytest.mark.parametrize("path", ["a", "a b/ü/日本", "'$();", "src/main.py", "com10", "x" * 255, "a.tar.gz", ".hidden"])
def test_an_ordinary_path_may_travel(path):
    assert check_path(path) is None


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "./f", "d/../f", "..", "a/", "a\0b", "//server/x", "e\u0301", "d/e\u0301/x"]
)
def test_a_path_that_no_honest_agent_sends_is_hostile(path):
    fault = check_path(path)
    assert fault is not None and fault.grade == "hostile"


@pytest.mark.parametrize(
    "path",
    [
        "a\nb",
        "\x1b[2J",
        "a\u202eb",
        "a\u200cb",
        "\ufeffa",
        "a\U000e0041",
        "~/x",
        "~x",
        "a\\b",
        "\\\\server\\x",
        "C:\\x",
        "x" * 256,
        "ü" * 128,
        "/".join(["x" * 204] * 5) + "xx",
        "/".join(["d"] * 65),
        chr(0xDCFF),
    ],
)
def test_a_spoofed_or_overlong_path_is_refused(path):
    fault = check_path(path)
    assert fault is not None and fault.grade == "refused"


def test_the_longest_path_is_1024_bytes():
    path = "/".join(["x" * 204] * 5)
    assert check_path(path) is None and check_path(path + "x") is not None


@pytest.mark.parametrize(
    "path",
    [
        "CON",
        "nul.txt",
        "com1 .log",
        "aux.tar.gz",
        "d/LPT\u00b9",
        "COM0",
        "conin$",
        "a.",
        "a ",
        "x:y",
        "a?",
        "C:x",
        'a"b',
    ],
)
def test_a_name_that_windows_refuses_is_unportable(path):
    fault = check_path(path)
    assert fault is not None and fault.grade == "unportable"


def test_the_worst_fault_is_the_one_that_is_told():
    fault = check_path("CON/../a\nb")
    assert fault is not None and fault.grade == "hostile"


@pytest.mark.parametrize("target", ["", "/abs", "a\0", "x" * 1025, "~/a", "a\\b"])
def test_a_target_of_a_link_is_checked_too(target):
    assert check_target(target) is not None


def test_a_relative_target_may_go_up():
    assert check_target("../a/./b") is None


@pytest.mark.parametrize(
    "name", [".git", ".GIT", ".git ", ".git.", ".g\u200cit", ".git::$INDEX_ALLOCATION", ".git\u00a0", ".\uff27it"]
)
def test_every_alias_of_a_name_has_its_guard_key(name):
    assert guard_key(name) == ".git"


def test_fold_keys_find_case_and_form():
    assert fold_key("É.py") == fold_key("e\u0301.PY")
    assert fold_key("ß") == fold_key("SS")
    assert fold_key("ı") != fold_key("i")


def test_a_name_from_the_disk_travels_as_nfc():
    assert name_from_disk("e\u0301".encode()) == ("é", None)


def test_a_name_that_is_not_utf8_is_reported_under_a_name_that_cannot_travel():
    name, fault = name_from_disk(b"a\xffb")
    assert fault is not None and check_path(name) is not None


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "a\u202eb", "x" * 10_000, "\u200b"])
def test_what_is_shown_is_harmless_and_short(text):
    assert shown(text).isprintable()
    assert "\u202e" not in shown(text) and len(shown(text)) <= 2000
