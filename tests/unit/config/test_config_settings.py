"""Which settings hold, and what is refused."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.config.layers import PROMISED_VARIABLES, split_token
from colab_bridge.config.paths import Paths
from colab_bridge.config.settings import Resolved, load_settings
from colab_bridge.errors import UserError


class Place:
    """A machine with its settings files."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(folder / "home")})
        self.paths.ensure()
        self.project = folder / "project"
        self.project.mkdir()

    def user(self, text: str) -> None:
        self.paths.user_config.write_text(text, encoding="utf-8")
        self.paths.user_config.chmod(0o600)

    def own(self, text: str) -> None:
        (self.project / "colab-bridge.toml").write_text(text, encoding="utf-8")

    def pyproject(self, text: str) -> None:
        (self.project / "pyproject.toml").write_text(text, encoding="utf-8")

    def load(self, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None) -> Resolved:
        return load_settings(self.paths, self.project, environ or {}, flags)

    def refuses(self, environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None) -> UserError:
        with pytest.raises(UserError) as caught:
            self.load(environ, flags)
        error = caught.value
        assert "\n" not in error.message + error.hint
        assert error.hint
        return error


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


_LAYERS = ("user", "project", "environment", "flag")
_SUBSETS = [set(chosen) for n in range(5) for chosen in itertools.combinations(_LAYERS, n)]


@pytest.mark.parametrize("given_in", _SUBSETS, ids=lambda chosen: "+".join(sorted(chosen)) or "none")
@pytest.mark.parametrize(
    ("key", "variable", "values", "default"),
    [
        ("port", "COLAB_BRIDGE_PORT", ("1001", "1002", "1003", "1004"), 0),
        ("notebook.save_interval_s", "COLAB_BRIDGE_NOTEBOOK__SAVE_INTERVAL_S", ("1.5", "2.5", "3.5", "4.5"), 2.0),
        ("record.keep_days", "COLAB_BRIDGE_RECORD__KEEP_DAYS", ("1", "2", "3", "4"), 14),
    ],
)
def test_the_strongest_place_wins_and_is_named(
    place: Place, given_in: set[str], key: str, variable: str, values: tuple[str, ...], default: float
) -> None:
    text = dict(zip(_LAYERS, values, strict=True))
    if "user" in given_in:
        place.user(f"{key} = {text['user']}\n")
    if "project" in given_in:
        place.own(f"{key} = {text['project']}\n")
    resolved = place.load(
        {variable: text["environment"]} if "environment" in given_in else {},
        {key: text["flag"] if "flag" in given_in else None},
    )
    winner = next((layer for layer in reversed(_LAYERS) if layer in given_in), None)
    assert resolved.value_of(key) == (float(text[winner]) if winner else default)
    expected = {
        None: "default",
        "user": f"user file {place.paths.user_config}",
        "project": f"project file {place.project / 'colab-bridge.toml'}",
        "environment": f"environment variable {variable}",
        "flag": "command line",
    }
    assert resolved.source_of(key) == expected[winner]


def test_places_are_merged_key_by_key(place: Place) -> None:
    place.user("[notebook]\ncollapse_progress = false\nsave_interval_s = 9\n")
    place.own("[notebook]\nsave_interval_s = 3\n")
    notebook = place.load().settings.notebook
    assert (notebook.collapse_progress, notebook.save_interval_s) == (False, 3.0)


def test_pyproject_holds_settings_too(place: Place) -> None:
    place.pyproject("[project]\nname = 'x'\n[tool.colab-bridge]\nport = 7\n")
    resolved = place.load()
    assert resolved.settings.port == 7
    assert resolved.source_of("port").endswith("pyproject.toml [tool.colab-bridge]")


def test_colab_bridge_toml_wins_over_pyproject(place: Place) -> None:
    place.pyproject("[tool.colab-bridge]\nport = 7\nreattach = 'never'\n")
    place.own("port = 8\n")
    resolved = place.load()
    assert (resolved.settings.port, resolved.settings.reattach) == (8, "busy")


def test_a_slip_in_a_pyproject_that_is_not_about_us_stops_nothing(place: Place) -> None:
    place.pyproject("[project\nname = ")
    assert place.load().settings.port == 0


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("prot = 1", "prot", "port"),
        ("max_mb = 1", "max_mb", "record.max_mb"),
        ("[notebook]\nsave_interval = 1", "notebook.save_interval", "notebook.save_interval_s"),
        ("[runtimes.gpu]\nurll = 'x'", "runtimes.gpu.urll", "runtimes.gpu.url"),
        ("Provider = 'x'", "Provider", "provider"),
    ],
)
def test_an_unknown_key_fails_and_the_nearest_one_is_named(place: Place, text: str, key: str, meant: str) -> None:
    place.user(text)
    error = place.refuses()
    assert f"'{key}'" in error.message
    assert str(place.paths.user_config) in error.message
    assert f"Did you mean '{meant}'" in error.hint


@pytest.mark.parametrize(
    "text", ["[notbook]", "notebook = 3", "runtimes = []", "[port]\na = 1", "[runtimes.gpu.url.x]\ny=1"]
)
def test_a_value_in_the_place_of_a_group_fails(place: Place, text: str) -> None:
    place.user(text)
    assert "unknown setting" in place.refuses().message


def test_control_characters_of_a_foreign_file_do_not_reach_the_terminal(place: Place) -> None:
    place.own('"\\u001b[2Jport" = 1')
    assert "\x1b" not in place.refuses().message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("port = 'a'", "integer"),
        ("port = true", "integer"),
        ("port = 70000", "65535"),
        ("port = -1", "0"),
        ("reattach = 'sometimes'", "always"),
        ("restart_window_s = inf", "finite"),
        ("record.max_mb = 0", "1"),
        ("local.python = 3", "string"),
        ("local.isolated = 'yes'", "boolean"),
        ("port = [1]", "integer"),
        ("port = 1979-05-27", "integer"),
        ("provider = 'a b'", "letters"),
        ("runtimes.gpu.url = 'ftp://x'", "address"),
        ("runtimes.gpu.url = 'http://x:99999/'", "not a valid address"),
        ("runtimes.gpu.url = 'http://x/ y'", "spaces"),
        ("runtimes.gpu.url = 'https://me:pw@x/'", "password"),
        ("runtimes.gpu.token_env = 'a b'", "name of an environment variable"),
    ],
)
def test_a_value_of_the_wrong_kind_fails_and_names_file_and_key(place: Place, text: str, what: str) -> None:
    place.user(text)
    error = place.refuses()
    assert what in error.message
    assert text.partition(" ")[0] in error.message
    assert str(place.paths.user_config) in error.message


@pytest.mark.parametrize("name", ["local", "GPU", "a b", "-x", "x" * 42, "ü"])
def test_a_runtime_cannot_have_any_name(place: Place, name: str) -> None:
    place.user(f'[runtimes."{name}"]\nurl = "http://x"\n')
    assert place.refuses().hint


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"port = 1\nreattach = \n", "line 2"),
        (b"port = 1\n\n\nport = 2\n", "line 4"),
        (b"port = 1\nx = 'a\xff'\n", "line 2"),
        (b'port = 1\nprovider = """abc\n', "line 2"),
    ],
)
def test_broken_toml_fails_with_file_line_and_fix(place: Place, data: bytes, line: str) -> None:
    place.paths.user_config.write_bytes(data)
    error = place.refuses()
    assert str(place.paths.user_config) in error.message
    assert line in error.message


@pytest.mark.parametrize("text", ["x = " + "[" * 100_000, "x = " + "9" * 5000])
def test_a_hostile_file_is_refused_like_any_other_broken_one(place: Place, text: str) -> None:
    place.own(text)
    place.refuses()


def test_a_file_that_fills_the_memory_is_refused(place: Place) -> None:
    place.own("#" * (1 << 21))
    assert "larger than 1 MiB" in place.refuses().message


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX")
def test_a_named_pipe_does_not_block_us(place: Place) -> None:
    os.mkfifo(place.project / "colab-bridge.toml")
    assert "not a regular file" in place.refuses().message


def test_a_mark_in_front_and_windows_line_ends_do_not_matter(place: Place) -> None:
    place.paths.user_config.write_bytes(b"\xef\xbb\xbfport = 5\r\n[notebook]\r\ncollapse_progress = false\r\n")
    assert place.load().settings.port == 5


def test_a_token_in_a_project_file_is_refused_without_being_shown(place: Place) -> None:
    place.own("[runtimes.gpu]\nurl = 'http://x'\ntoken = 's3cr3t'\n")
    error = place.refuses()
    assert "s3cr3t" not in error.message + error.hint
    assert "COLAB_BRIDGE_TOKEN_GPU" in error.hint


def test_a_token_hidden_in_an_address_of_a_project_file_is_refused(place: Place) -> None:
    place.own("[runtimes.gpu]\nurl = 'http://x/?token=s3cr3t'\n")
    assert "s3cr3t" not in place.refuses().message


def test_a_project_cannot_ask_for_any_variable_of_the_user(place: Place) -> None:
    place.own("[runtimes.gpu]\nurl = 'http://evil'\ntoken_env = 'AWS_SECRET_ACCESS_KEY'\n")
    assert "AWS_SECRET_ACCESS_KEY" in place.refuses({"AWS_SECRET_ACCESS_KEY": "k3y"}).message


@pytest.mark.parametrize("secret", ["token = 't'", "token_env = 'MY_TOKEN'"])
@pytest.mark.parametrize("text", ["url = 'http://evil'", "verify_tls = false"])
def test_a_project_cannot_send_the_users_token_elsewhere(place: Place, secret: str, text: str) -> None:
    place.user(f"[runtimes.gpu]\nurl = 'https://mine'\n{secret}\n")
    place.own(f"[runtimes.gpu]\n{text}\n")
    assert "your own token" in place.refuses().message


def test_a_users_token_goes_to_the_address_that_a_project_gives_when_the_user_has_set_none(place: Place) -> None:
    place.user("[runtimes.gpu]\ntoken = 't'\n")
    place.own("[runtimes.gpu]\nurl = 'https://team'\n")
    runtime = place.load().settings.runtimes["gpu"]
    assert (runtime.url, runtime.token) == ("https://team", "t")


def test_an_address_from_the_environment_overrides_the_projects(place: Place) -> None:
    place.own("[runtimes.gpu]\nurl = 'https://team'\n")
    environ = {"COLAB_BRIDGE_RUNTIMES__GPU__URL": "https://me", "COLAB_BRIDGE_RUNTIMES__GPU__TOKEN": "t"}
    assert place.load(environ).settings.runtimes["gpu"].url == "https://me"


def test_a_token_comes_from_the_named_variable(place: Place) -> None:
    place.own("[runtimes.gpu-box]\nurl = 'http://x'\ntoken_env = 'COLAB_BRIDGE_TOKEN_GPU_BOX'\n")
    resolved = place.load({"COLAB_BRIDGE_TOKEN_GPU_BOX": "t0k"})
    assert resolved.settings.runtimes["gpu-box"].token == "t0k"
    assert resolved.source_of("runtimes.gpu-box.token") == "environment variable COLAB_BRIDGE_TOKEN_GPU_BOX"


def test_a_token_in_the_users_address_is_taken_apart(place: Place) -> None:
    place.user("[runtimes.gpu]\nurl = 'http://x:8888/lab?token=t0k&a=1'\n")
    resolved = place.load()
    runtime = resolved.settings.runtimes["gpu"]
    assert (runtime.url, runtime.token) == ("http://x:8888/lab?a=1", "t0k")
    assert resolved.shown("runtimes.gpu.token") == "***"


def test_a_token_never_shows_in_the_text_of_the_settings(place: Place) -> None:
    place.user("[runtimes.gpu]\nurl = 'http://x'\ntoken = 's3cr3t'\n")
    assert "s3cr3t" not in repr(place.load().settings)


def test_a_bad_token_is_refused_without_being_shown(place: Place) -> None:
    place.user("[runtimes.gpu]\ntoken = 's3cr3t\\r\\nX-Evil: 1'\n")
    error = place.refuses()
    assert "s3cr3t" not in error.message + error.hint


@pytest.mark.skipif(os.name != "posix", reason="mode bits are POSIX")
@pytest.mark.parametrize(("mode", "text", "notices"), [(0o644, "t", 1), (0o600, "t", 0), (0o644, "", 0)])
def test_a_user_file_with_a_token_that_others_may_read_is_reported(
    place: Place, mode: int, text: str, notices: int
) -> None:
    place.user(f"[runtimes.gpu]\nurl = 'http://x'\ntoken = '{text}'\n")
    place.paths.user_config.chmod(mode)
    assert len(place.load().notices) == notices


@pytest.mark.parametrize("variable", sorted(PROMISED_VARIABLES))
def test_promised_variables_are_no_unknown_keys(place: Place, variable: str) -> None:
    assert place.load({variable: "x"}).sources == {}


def test_the_provider_variable_is_a_setting(place: Place) -> None:
    assert place.load({"COLAB_BRIDGE_PROVIDER": "jupyter"}).settings.provider == "jupyter"


def test_empty_variables_count_as_not_set(place: Place) -> None:
    assert place.load({"COLAB_BRIDGE_PORT": ""}).settings.port == 0


def test_variables_of_others_are_not_looked_at(place: Place) -> None:
    assert place.load({"COLAB_BRIDGER_X": "1", "PORT": "9"}).settings.port == 0


@pytest.mark.parametrize(("text", "value"), [("true", True), ("YES", True), ("1", True), ("off", False), ("0", False)])
def test_words_for_yes_and_no_are_understood_in_variables(place: Place, text: str, value: bool) -> None:
    assert place.load({"COLAB_BRIDGE_LOCAL__ISOLATED": text}).settings.local.isolated is value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("COLAB_BRIDGE_PROT", "1"),
        ("COLAB_BRIDGE_PORT", "x"),
        ("COLAB_BRIDGE_PORT", "9" * 5000),
        ("COLAB_BRIDGE_RESTART_WINDOW_S", "nan"),
        ("COLAB_BRIDGE_RESTART_WINDOW_S", "soon"),
        ("COLAB_BRIDGE_LOCAL__ISOLATED", "maybe"),
    ],
)
def test_a_bad_variable_is_named(place: Place, variable: str, text: str) -> None:
    assert variable in place.refuses({variable: text}).message


def test_a_bad_flag_is_named(place: Place) -> None:
    assert "command line" in place.refuses(flags={"port": "x"}).message


def test_an_interpreter_path_counts_from_the_project(place: Place) -> None:
    place.own("local.python = './.venv/bin/python'\n")
    assert place.load().settings.local.python == os.path.normpath(place.project / ".venv/bin/python")


def test_a_bare_interpreter_name_is_left_for_the_search_path(place: Place) -> None:
    place.user("local.python = 'python3.12'\n")
    assert place.load().settings.local.python == "python3.12"


def test_without_a_project_only_the_user_file_and_the_environment_count(place: Place) -> None:
    place.own("port = 9\n")
    assert load_settings(place.paths, None, {}).settings.port == 0


def test_an_unknown_key_has_no_source(place: Place) -> None:
    with pytest.raises(UserError, match="unknown setting"):
        place.load().source_of("nothing.here")


@given(st.text(max_size=60))
def test_splitting_a_token_off_never_fails_and_leaves_none(text: str) -> None:
    url, token = split_token(f"http://host/?{text}")
    again, nothing = split_token(url)
    assert (again, nothing) == (url, "")
    assert not token or token not in text or f"token={token}" not in url
