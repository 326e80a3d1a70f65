"""Files of others that are read: OAuth clients, Application Default Credentials, google-colab-cli's sign-in."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from colab_bridge.cli.sign_in import has_browser
from colab_bridge.config.caller import caller_env, without_secrets
from colab_bridge.config.layers import environment_layer, file_layer
from colab_bridge.credentials.adc import adc_files
from colab_bridge.credentials.client_file import parse_client, read_client
from colab_bridge.credentials.foreign import google_colab_cli_file, read_google_colab_cli
from colab_bridge.errors import UserError

GOOD = {"installed": {"client_id": "123-x.apps.googleusercontent.com", "client_secret": "GOCSPX-y"}}


def test_the_file_of_googles_console_is_read() -> None:
    client = parse_client(json.dumps(GOOD).encode(), "client.json")
    assert client.client_id == "123-x.apps.googleusercontent.com"
    assert client.secret.reveal() == "GOCSPX-y"
    assert "GOCSPX" not in repr(client)


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ({"web": GOOD["installed"]}, "of type Web application"),
        ({"type": "service_account", "private_key": "x"}, "key of a service account"),
        ({"installed": {"client_id": "x"}}, "holds no OAuth client of type Desktop app"),
        ({}, "holds no OAuth client"),
        ([], "is not the JSON file"),
        (
            {"installed": {"client_id": "764086051850-x.apps.googleusercontent.com", "client_secret": "y"}},
            "of another product",
        ),
        ({"installed": {"client_id": "1014160490159-x.apps", "client_secret": "y"}}, "of another product"),
    ],
)
def test_any_other_file_is_refused_with_what_it_is(tree: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        parse_client(json.dumps(tree).encode(), "client.json")
    assert "colab-bridge auth login --client FILE" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_client(tmp_path / "nowhere.json")


def test_the_named_credentials_go_before_gclouds() -> None:
    files = adc_files({"GOOGLE_APPLICATION_CREDENTIALS": "/k.json"}, Path("/home/ada"), "linux")
    assert [(str(PurePosixPath(file.path)), file.named) for file in files] == [
        ("/k.json", True),
        ("/home/ada/.config/gcloud/application_default_credentials.json", False),
    ]


@pytest.mark.parametrize(
    ("env", "platform", "folder"),
    [
        ({}, "darwin", "/home/ada/.config/gcloud"),
        ({"APPDATA": "/roaming"}, "win32", "/roaming/gcloud"),
        ({}, "win32", "/home/ada/AppData/Roaming/gcloud"),
        ({"CLOUDSDK_CONFIG": "/g"}, "win32", "/g"),
    ],
)
def test_gclouds_folder_is_found_on_each_system(env: dict[str, str], platform: str, folder: str) -> None:
    (found,) = adc_files(env, Path("/home/ada"), platform)
    assert found.path.as_posix() == f"{folder}/application_default_credentials.json"


def test_the_sign_in_of_google_colab_cli_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "colab-cli" / "token.json"
    path.parent.mkdir(parents=True)
    assert google_colab_cli_file(tmp_path) is None
    members = {"token": "t", "refresh_token": "1//r", "client_id": "c", "client_secret": "s", "scopes": ["email"]}
    path.write_text(json.dumps(members))
    assert google_colab_cli_file(tmp_path) == path
    login = read_google_colab_cli(path)
    assert (login.client.client_id, login.refresh.reveal()) == ("c", "1//r")
    assert "https://www.googleapis.com/auth/userinfo.email" in login.scopes


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_id": "c"}', '{"client_id": "c", "refresh_token": "a b"}'])
def test_a_sign_in_that_lacks_something_is_not_taken_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "token.json").write_text(text)
    with pytest.raises(UserError, match="cannot be taken over"):
        read_google_colab_cli(tmp_path / "token.json")


@pytest.mark.parametrize(
    ("environ", "platform", "there"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "w"}, "linux", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
        ({}, "win32", True),
        ({"BROWSER": "firefox", "SSH_TTY": "x"}, "linux", True),
    ],
)
def test_a_browser_is_opened_only_where_this_person_can_see_it(
    environ: dict[str, str], platform: str, there: bool
) -> None:
    assert has_browser(environ, platform) is there


def test_where_google_credentials_are_goes_with_a_request_and_tokens_are_not_kept() -> None:
    env = caller_env(
        {"COLAB_BRIDGE_ACCESS_TOKEN": "t", "COLAB_BRIDGE_PASSPHRASE": "p", "CLOUDSDK_CONFIG": "/g", "PATH": "/bin"}
    )
    assert set(env) == {"COLAB_BRIDGE_ACCESS_TOKEN", "COLAB_BRIDGE_PASSPHRASE", "CLOUDSDK_CONFIG"}
    assert without_secrets(env) == {"CLOUDSDK_CONFIG": "/g"}


def test_the_passphrase_is_no_setting() -> None:
    assert environment_layer({"COLAB_BRIDGE_PASSPHRASE": "x"}).values == {}


@pytest.mark.parametrize("line", ['oauth_client = "x.json"', 'credential_store = "file"'])
def test_a_project_decides_neither_the_oauth_client_nor_where_secrets_are(tmp_path: Path, line: str) -> None:
    (tmp_path / "colab-bridge.toml").write_text(line)
    with pytest.raises(UserError, match="it is about you, not about the project"):
        file_layer(tmp_path / "colab-bridge.toml", shared=True)


def test_a_project_may_choose_the_account(tmp_path: Path) -> None:
    (tmp_path / "colab-bridge.toml").write_text('account = "ada@example.org"')
    assert file_layer(tmp_path / "colab-bridge.toml", shared=True).values == {"account": "ada@example.org"}
