"""What code on an emulated T4 asks of its user's machine, through daemon and agent, and without an agent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.manager import Credentials
from colab_bridge.credentials.secret_box import SecretBox
from colab_bridge.model.runtime import Secret
from colab_emulated import Emulated
from daemon_home import DaemonHome, Seen, eventually, open_home

DRIVE = "from google.colab import drive\ndrive.mount('/content/drive'{})\n"
VALUE = "hf_4f9c8e7d6b5a"


class User:
    """A person with a T4, who sees what is printed and can open pages."""

    def __init__(self, home: DaemonHome, colab: Emulated, transport: str) -> None:
        account = f"{transport}@example.com"
        token = colab.call("POST", "/access-tokens", {"account": account})["access_token"]
        self.home = home
        self.colab = colab
        self.account = account
        env = {**colab.env, "COLAB_BRIDGE_ACCESS_TOKEN": token, "COLAB_BRIDGE_TRANSPORT": transport}
        self.machine = {"options": {"gpu": "T4"}, "env": env}

    def code(self, code: str) -> Seen:
        return self.home.code(code, **self.machine)

    def start(self, code: str) -> str:
        return str(self.home.start("code", code=code, **self.machine)["id"])

    def consent(self, run_id: str) -> None:
        """Open the page that a running cell shows."""

        def page() -> Any:
            return re.search(r"^http\S+consent\S+$", self.home.record(run_id).text("stderr"), re.MULTILINE)

        found = eventually(page, "the page is shown", timeout_s=30)
        with httpx2.Client(trust_env=False) as browser:
            assert browser.get(found[0]).status_code == 200

    def propagated(self) -> dict[str, str]:
        (mine,) = [each for each in self.colab.state()["runtimes"] if each["account"] == self.account]
        return dict(mine["propagated"])


@pytest.fixture(scope="module", params=["tunnel", "websocket"])
def user(request: pytest.FixtureRequest, colab: Emulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with pytest.MonkeyPatch.context() as patch, open_home(tmp_path_factory.mktemp("user")) as home:
        for name, value in colab.env.items():
            patch.setenv(name, value)
        made = User(home, colab, request.param)
        seen = made.code("import os; os.environ['USE_AUTH_EPHEM'] = '1'; print('ready')")
        assert (seen.status, seen.text()) == ("ok", "ready\n"), seen.events
        assert home.client().get("/v1/sessions")["sessions"][0]["kernels"][0]["transport"] == request.param
        yield made


@pytest.fixture(scope="module")
def secrets(user: User) -> SecretBox:
    paths = Paths.from_env({"COLAB_BRIDGE_HOME": str(user.home.home)})
    return SecretBox(paths, Credentials(paths, dict(os.environ), store="file").vaults)


def test_a_drive_that_nobody_agreed_to_is_refused_within_the_kernels_own_time(user: User) -> None:
    seen = user.code(
        "import time; start = time.monotonic()\n"
        "try:\n    from google.colab import drive; drive.mount('/content/drive', timeout_ms=3000)\n"
        "except ValueError as error: print(error, time.monotonic() - start < 20)"
    )
    assert (seen.status, seen.text()) == ("ok", "mount failed True\n")
    assert f"open this page as {user.account} and tick every box" in seen.text("stderr")
    assert user.propagated() == {}


def test_a_drive_is_mounted_when_the_page_was_agreed_to_and_the_next_time_at_once(user: User) -> None:
    run_id = user.start(DRIVE.format(""))
    user.consent(run_id)
    seen = user.home.follow(run_id)
    assert (seen.status, seen.text()) == ("ok", "Mounted at /content/drive\n")
    assert user.propagated() == {"dfs_ephemeral": user.account}
    again = user.code(DRIVE.format(", force_remount=True") + "import os; print(os.listdir('/content/drive'))")
    assert (again.status, again.text()) == ("ok", "Mounted at /content/drive\n['MyDrive']\n")
    assert "open this page" not in again.text("stderr")


def test_the_user_is_authenticated_after_their_consent(user: User) -> None:
    run_id = user.start(
        "from google.colab import auth; auth.authenticate_user()\n"
        "import os; print(os.path.basename(os.environ['GOOGLE_APPLICATION_CREDENTIALS']))"
    )
    user.consent(run_id)
    seen = user.home.follow(run_id)
    assert (seen.status, seen.text()) == ("ok", "application_default_credentials.json\n")
    assert user.propagated()["auth_user_ephemeral"] == user.account


def test_a_secret_goes_to_an_approved_project_and_into_no_output_and_no_file(user: User, secrets: SecretBox) -> None:
    anyio.run(secrets.put, "HF_TOKEN", Secret(VALUE), 0.0)
    ask = (
        "from google.colab import userdata\nvalue = userdata.get('HF_TOKEN')\nprint('it is', value, len(value))\nvalue"
    )
    refused = user.code(ask)
    assert refused.finished["status"] == "error"
    assert "NotebookAccessError" in str(refused.of("error"))
    assert "colab-bridge secret allow HF_TOKEN" in refused.text("stderr")
    secrets.allow(str(user.home.project), "HF_TOKEN")
    given = user.code(ask)
    assert given.status == "ok"
    assert given.text() == f"it is [secret hidden by colab-bridge] {len(VALUE)}\n"
    failed = user.code("raise ValueError('with ' + value)")
    assert VALUE not in str(given.events) + str(failed.events)
    assert holding(user.home.folder, VALUE) == []


def test_a_secret_is_hidden_in_a_notebook_too(user: User, secrets: SecretBox) -> None:
    path = user.home.project / "a.ipynb"
    path.write_text(NOTEBOOK)
    seen = user.home.run("notebook", notebook={"path": str(path)}, **user.machine)
    assert seen.status == "ok"
    assert "got [secret hidden by colab-bridge]" in path.read_text()
    assert holding(user.home.folder, VALUE) == []


NOTEBOOK = (
    '{"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": null, "source": '
    "\"from google.colab import userdata\\nprint('got', userdata.get('HF_TOKEN'))\"}], "
    '"metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
)


def holding(folder: Path, text: str) -> list[str]:
    """Return the files below a folder that hold a text."""
    return [str(file) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_a_secret_that_does_not_exist_is_named_with_the_command_that_makes_it(user: User) -> None:
    seen = user.code("from google.colab import userdata\nuserdata.get('NOT_THERE')")
    assert "SecretNotFoundError" in str(seen.of("error"))
    assert "colab-bridge secret set NOT_THERE" in seen.text("stderr")


def test_files_that_are_downloaded_land_in_their_folder_and_replace_none(user: User) -> None:
    code = "from google.colab import files\nopen('/content/model.bin', 'wb').write(b'x' * 2_500_000)\n"
    folder = user.home.project / "downloads"

    def sizes() -> list[int]:
        return [file.stat().st_size for file in folder.iterdir()] if folder.is_dir() else []

    for count in (1, 2):
        assert user.code(code + "files.download('/content/model.bin')").status == "ok"
        # A name is reserved before the whole file takes its place.
        eventually(lambda count=count: sizes() == [2_500_000] * count, "the file is here")
    assert {file.name for file in folder.iterdir()} == {"model.bin", "model (1).bin"}


def test_javascript_fails_at_once_with_the_way_to_a_page(user: User) -> None:
    seen = user.code("from google.colab import output\noutput.eval_js('document.title')")
    assert seen.status == "error"
    assert "this call needs a page in a browser" in str(seen.of("error"))


def test_an_upload_in_a_run_without_input_fails_at_once(user: User) -> None:
    seen = user.code("from google.colab import files\nfiles.upload()")
    assert seen.status == "error"
    assert "needs somebody who names a file" in str(seen.of("error"))
