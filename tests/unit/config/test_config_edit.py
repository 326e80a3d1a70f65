"""Changes of settings files."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.config.edit import project_target, replace_group, set_value, set_values, unset_value
from colab_bridge.config.layers import USER_ONLY, file_layer
from colab_bridge.config.schema import KEYS, Scalar, is_secret
from colab_bridge.errors import UserError

COMMENTED = """\
# my settings
port = 3 # because of the firewall

[notebook] # about notebooks
# often enough
save_interval_s = 1
"""


def test_comments_and_order_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    set_value(path, "port", 4)
    assert path.read_text() == COMMENTED.replace("port = 3", "port = 4")


def test_a_new_key_does_not_slip_into_the_last_group(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    set_value(path, "reattach", "never")
    assert tomllib.loads(path.read_text()) == {"port": 3, "reattach": "never", "notebook": {"save_interval_s": 1}}


def test_text_becomes_the_type_of_the_key(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    set_values(path, {"port": "8", "notebook.collapse_progress": "no", "restart_window_s": "1.5", "provider": "8"})
    assert file_layer(path, shared=False).values == {
        "port": 8,
        "notebook.collapse_progress": False,
        "restart_window_s": 1.5,
        "provider": "8",
    }


def test_dotted_and_inline_forms_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("notebook.save_interval_s = 1 # a\nrecord = { max_mb = 2 } # b\n")
    set_values(path, {"notebook.collapse_progress": False, "record.keep_days": 3})
    text = path.read_text()
    assert "# a" in text
    assert "# b" in text
    assert tomllib.loads(text) == {
        "notebook": {"save_interval_s": 1, "collapse_progress": False},
        "record": {"max_mb": 2, "keep_days": 3},
    }


def test_groups_out_of_order_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[runtimes.a]\nurl = 'http://a'\n[notebook]\nsave_interval_s = 1\n[runtimes.b]\nurl = 'http://b'\n")
    set_values(path, {"runtimes.b.kernel": "ir", "runtimes.c.url": "http://c"})
    runtimes = tomllib.loads(path.read_text())["runtimes"]
    assert runtimes == {"a": {"url": "http://a"}, "b": {"url": "http://b", "kernel": "ir"}, "c": {"url": "http://c"}}


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    set_value(path, "port", 4)
    assert path.read_bytes() == COMMENTED.replace("\n", "\r\n").replace("= 3", "= 4").encode()


def test_the_rest_of_a_pyproject_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    before = '[project]\nname = "x" # n\n\n[tool.ruff]\nline-length=1\n'
    path.write_text(before)
    set_value(path, "runtimes.gpu.url", "http://x")
    assert path.read_text().startswith(before)
    assert tomllib.loads(path.read_text())["tool"]["colab-bridge"] == {"runtimes": {"gpu": {"url": "http://x"}}}


@pytest.mark.skipif(os.name != "posix", reason="mode bits are POSIX")
def test_the_user_file_is_for_its_owner_only_even_if_it_was_open(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0o644)
    set_value(path, "runtimes.gpu.token", "t")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="mode bits are POSIX")
def test_a_project_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "colab-bridge.toml"
    path.write_text("")
    path.chmod(0o664)
    set_value(path, "port", 1)
    assert path.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "x"),
        ("port", 70000),
        ("prot", 1),
        ("reattach", "no"),
        ("runtimes.local.url", "http://x"),
        ("notebook", 1),
    ],
)
def test_what_is_not_allowed_is_not_written(tmp_path: Path, key: str, value: Scalar) -> None:
    path = tmp_path / "config.toml"
    path.write_text(COMMENTED)
    with pytest.raises(UserError):
        set_value(path, key, value)
    assert path.read_text() == COMMENTED


@pytest.mark.parametrize("name", ["colab-bridge.toml", "pyproject.toml"])
def test_a_token_is_not_written_into_a_project_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no place") as caught:
        set_value(tmp_path / name, "runtimes.gpu.token", "s3cr3t")
    assert "s3cr3t" not in str(caught.value)
    assert not (tmp_path / name).exists()


def test_a_broken_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("port = \n")
    with pytest.raises(UserError, match="line 1"):
        set_value(path, "port", 1)
    assert path.read_text() == "port = \n"


def test_an_unknown_key_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("old_thing = 1\nport = 2\n")
    assert unset_value(path, "old_thing")
    assert path.read_text() == "port = 2\n"


def test_removing_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert not unset_value(path, "port")
    assert not path.exists()


def test_a_whole_group_can_be_removed(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    set_values(path, {"runtimes.a.url": "http://a", "runtimes.a.token": "t", "runtimes.b.url": "http://b"})
    assert unset_value(path, "runtimes.a")
    assert tomllib.loads(path.read_text()) == {"runtimes": {"b": {"url": "http://b"}}}


def test_replacing_a_runtime_leaves_no_old_token_for_the_new_address(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    set_values(path, {"runtimes.a.url": "http://a", "runtimes.a.token": "t"})
    replace_group(path, "runtimes.a", {"runtimes.a.url": "http://new"})
    assert tomllib.loads(path.read_text()) == {"runtimes": {"a": {"url": "http://new"}}}


def test_a_folder_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        set_value(tmp_path / "missing" / "config.toml", "port", 1)


def test_a_project_change_goes_into_the_file_that_is_read(tmp_path: Path) -> None:
    assert project_target(tmp_path).name == "colab-bridge.toml"
    (tmp_path / "pyproject.toml").write_text("[tool.colab-bridge]\n")
    assert project_target(tmp_path).name == "pyproject.toml"
    (tmp_path / "colab-bridge.toml").write_text("")
    assert project_target(tmp_path).name == "colab-bridge.toml"


_words = st.text("abcXYZ019._-", min_size=1, max_size=12)
_values = {
    "port": st.integers(0, 65535),
    "provider": _words,
    "runtime": _words,
    "account": st.sampled_from(["", "ada@example.org", "work"]),
    "oauth_client": st.text(max_size=30),
    "credential_store": st.sampled_from(["auto", "keychain", "file"]),
    "reattach": st.sampled_from(["always", "busy", "never"]),
    "restart_window_s": st.floats(0, 3600),
    "transport": st.sampled_from(["auto", "tunnel", "websocket"]),
    "notebook.save_interval_s": st.floats(0.1, 3600),
    "notebook.collapse_progress": st.booleans(),
    "record.max_mb": st.integers(1, 10_000_000),
    "record.keep_days": st.integers(0, 36_500),
    "notify.when": st.sampled_from(["jobs", "asked", "always", "never"]),
    "notify.after_s": st.floats(0, 86_400),
    "notify.desktop": st.booleans(),
    "notify.webhook": st.sampled_from(["https://h/x", "http://127.0.0.1:8/x"]),
    "sync.enabled": st.booleans(),
    "sync.respect_gitignore": st.booleans(),
    "sync.max_file_mb": st.integers(1, 1_000_000),
    "sync.max_ignored_file_mb": st.integers(0, 1_000_000),
    "sync.max_ignored_total_mb": st.integers(0, 10_000_000),
    "sync.barrier_mb": st.integers(0, 1_000_000),
    "sync.prefer": st.sampled_from(["local", "remote"]),
    "sync.review": st.sampled_from(["review", "trust"]),
    "sync.allow_remote_exec": st.booleans(),
    "sync.allow_stale": st.booleans(),
    "sync.autoreload": st.booleans(),
    "local.python": st.text(max_size=30),
    "local.isolated": st.booleans(),
    "colab.keep_alive_s": st.floats(30, 3600),
    "colab.keep_alive_minutes": st.floats(0, 1440),
    "colab.idle_minutes": st.floats(0, 1440),
    "colab.most_hours": st.floats(0, 168, exclude_min=True),
    "colab.budget": st.floats(0, 1_000_000),
    "runtimes.a.kernel": st.text(max_size=30),
    "runtimes.a.gpu": st.sampled_from(["", "T4", "a100, l4,T4"]),
    "runtimes.a.high_mem": st.booleans(),
    "runtimes.a.wait_s": st.floats(0, 86_400),
    "runtimes.b-1.token": st.text("abc!~#'\"\\", max_size=12),
    "runtimes.b-1.url": st.sampled_from(["http://x", "https://h:1/p?q=1#f"]),
}
_changes = st.lists(
    st.sampled_from(sorted(_values)).flatmap(lambda key: st.tuples(st.just(key), st.none() | _values[key])), max_size=12
)
_starts = st.sampled_from(["", COMMENTED, "[runtimes]\n", "[runtimes.a]\n\n[record]\n", "record = {}\n", "\n\n#end"])


def test_the_round_trip_covers_every_key() -> None:
    assert set(KEYS) <= set(_values)


@settings(deadline=None)
@given(_starts, st.sampled_from(["config.toml", "pyproject.toml"]), _changes)
def test_what_was_set_last_is_what_is_read(start: str, name: str, changes: list[tuple[str, Scalar | None]]) -> None:
    if name == "pyproject.toml":
        start = "[project]\nname = 'x'\n"
        changes = [(key, value) for key, value in changes if not is_secret(key) and key not in USER_ONLY]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(start, encoding="utf-8")
        shared = name == "pyproject.toml"
        expected = dict(file_layer(path, shared=shared).values)
        for key, value in changes:
            if value is None:
                assert unset_value(path, key) == (key in expected)
                expected.pop(key, None)
            else:
                set_value(path, key, value)
                expected[key] = value
        assert file_layer(path, shared=shared).values == expected
        text = path.read_text(encoding="utf-8")
        assert all(line.partition("#")[2] in text for line in start.splitlines() if line.startswith("#"))
