"""Who is signed in and which secrets there are, over the daemon's API."""

from __future__ import annotations

import anyio
import pytest

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.accounts import Account, AccountBook
from colab_bridge.credentials.secret_box import SecretBox
from colab_bridge.credentials.vaults import Vaults, credentials_dir
from colab_bridge.errors import AuthError, UserError
from colab_bridge.model.credentials import COLAB_SCOPES
from colab_bridge.model.runtime import Secret
from daemon_home import DaemonHome


@pytest.fixture
def home(daemon_home: DaemonHome) -> DaemonHome:
    daemon_home.paths.ensure()
    credentials_dir(daemon_home.paths).mkdir()
    return daemon_home


def box(paths: Paths) -> SecretBox:
    return SecretBox(paths, Vaults(paths, "file", lambda: None))


def test_who_is_signed_in_is_told_and_an_account_is_chosen(home: DaemonHome) -> None:
    client = home.client()
    assert client.get("/v1/auth")["source"] is None
    book = AccountBook(credentials_dir(home.paths) / "accounts.json")
    for email in ("ada@example.org", "bob@example.org"):
        book.put(Account(email=email, scopes=COLAB_SCOPES), current=True)
    found = client.get("/v1/auth")
    assert (found["source"], found["account"]) == ("login", "bob@example.org")
    assert client.post("/v1/auth/use", {"account": "ada"})["current"] is True
    assert client.get("/v1/auth")["account"] == "ada@example.org"
    with pytest.raises(AuthError, match="is not signed in"):
        client.post("/v1/auth/use", {"account": "eve"})


def test_secrets_are_listed_and_allowed_and_their_values_never_told(home: DaemonHome) -> None:
    anyio.run(box(home.paths).put, "HF_TOKEN", Secret("hf_very_secret"), 1.0)
    client, project = home.client(), str(home.project)
    assert client.get("/v1/secrets", project=project)["secrets"][0]["allowed"] is False
    assert client.post("/v1/secrets/HF_TOKEN/allow", {"project": project})["allowed"] is True
    assert client.get("/v1/secrets", project=project)["secrets"][0]["projects"] == [project]
    assert client.post("/v1/secrets/HF_TOKEN/deny", {"project": project})["allowed"] is False
    assert "hf_very_secret" not in repr(client.get("/v1/secrets"))
    with pytest.raises(UserError, match="there is no secret NONE"):
        client.post("/v1/secrets/NONE/allow", {"project": project})
    with pytest.raises(UserError):
        client.post("/v1/secrets/HF_TOKEN/allow", {"project": "relative"})
