"""Where sign-ins and secrets are kept: encrypted file, keychain, the file of accounts, the sealed access tokens."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.errors
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyring.backend import KeyringBackend
from keyring.backends import fail, null

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.access_cache import AccessCache
from colab_bridge.credentials.accounts import Account, AccountBook
from colab_bridge.credentials.sealing import NotOpenedError, derive, open_sealed, seal
from colab_bridge.credentials.secret_box import SecretBox
from colab_bridge.credentials.vault_file import FileVault
from colab_bridge.credentials.vault_keychain import KeychainVault, find_keychain
from colab_bridge.credentials.vaults import Vaults
from colab_bridge.errors import AuthError, UserError
from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken, SecretAnswer
from colab_bridge.model.runtime import Secret

ADA = "ada@example.org"
POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows has no mode bits")


class MemoryKeychain(KeyringBackend):
    """A keychain with the limit of Windows: 2,560 bytes of UTF-16 in one entry."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise keyring.errors.KeyringLocked("locked")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        if len(password.encode("utf-16-le")) > 2560:
            raise OSError("CredWrite: The stub received bad data")
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.entries.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError("not found")


@pytest.fixture
def keychain() -> Iterator[MemoryKeychain]:
    backend = MemoryKeychain()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(fail.Keyring())  # the class above is a backend that keyring would choose by itself


@pytest.fixture
def no_keychain() -> Iterator[None]:
    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(fail.Keyring())  # the class above is a backend that keyring would choose by itself


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / "home")})
    found.ensure()
    return found


def file_vault(folder: Path, passphrase: str | None = None) -> FileVault:
    return FileVault(folder / "vault.json", folder / "key", Secret(passphrase) if passphrase else None)


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_what_is_sealed_opens_with_its_key_and_label_alone(plain: bytes, label: str, other: str) -> None:
    key, wrong = derive("a", "p"), derive("b", "p")
    sealed = seal(key, plain, label)
    assert open_sealed(key, sealed, label) == plain
    with pytest.raises(NotOpenedError):
        open_sealed(wrong, sealed, label)
    if other != label:
        with pytest.raises(NotOpenedError):
            open_sealed(key, sealed, other)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    key = derive("a", "p")
    raw = bytearray(base64.b64decode(seal(key, b"secret", "x")))
    raw[place % len(raw)] ^= change
    with pytest.raises(NotOpenedError):
        open_sealed(key, base64.b64encode(raw).decode(), "x")


@given(st.text(max_size=60) | st.none() | st.integers())
def test_what_was_never_sealed_does_not_open(value: object) -> None:
    with pytest.raises(NotOpenedError):
        open_sealed(derive("a", "p"), value, "x")


def test_a_file_vault_keeps_replaces_and_forgets(tmp_path: Path) -> None:
    vault = file_vault(tmp_path)
    vault.put("a", "one")
    vault.put("b", "two")
    vault.put("a", "three")
    vault.drop("b")
    vault.drop("never")
    again = file_vault(tmp_path)
    assert (again.get("a"), again.get("b")) == ("three", None)


def test_the_files_of_a_vault_hold_no_value(tmp_path: Path) -> None:
    file_vault(tmp_path).put("a", "the secret")
    for file in tmp_path.iterdir():
        assert b"the secret" not in file.read_bytes()
        assert base64.b64encode(b"the secret")[:-3] not in file.read_bytes()


@POSIX
def test_the_files_of_a_vault_are_for_their_owner_alone(tmp_path: Path) -> None:
    file_vault(tmp_path).put("a", "x")
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


@POSIX
def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    vault = file_vault(tmp_path)
    vault.put("a", "x")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(AuthError, match="other users can read the key") as caught:
        vault.get("a")
    assert caught.value.hint == f"close it: chmod 600 {tmp_path / 'key'}"


def test_another_key_opens_nothing_and_overwrites_nothing(tmp_path: Path) -> None:
    file_vault(tmp_path).put("a", "x")
    before = (tmp_path / "vault.json").read_bytes()
    (tmp_path / "key").write_bytes(base64.b64encode(os.urandom(32)))
    with pytest.raises(AuthError, match="does not open"):
        file_vault(tmp_path).get("a")
    with pytest.raises(AuthError, match="does not open"):
        file_vault(tmp_path).put("b", "y")
    assert (tmp_path / "vault.json").read_bytes() == before


def test_without_its_key_a_vault_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    file_vault(tmp_path).put("a", "x")
    (tmp_path / "key").unlink()
    with pytest.raises(AuthError, match="is gone"):
        file_vault(tmp_path).get("a")
    file_vault(tmp_path).put("b", "y")
    assert file_vault(tmp_path).get("b") == "y"
    assert len(list(tmp_path.glob("vault.json.*.locked"))) == 1


def test_a_passphrase_opens_the_file_without_a_key_file(tmp_path: Path) -> None:
    file_vault(tmp_path, "correct horse").put("a", "x")
    assert not (tmp_path / "key").exists()
    assert file_vault(tmp_path, "correct horse").get("a") == "x"
    with pytest.raises(AuthError, match="the passphrase does not open"):
        file_vault(tmp_path, "wrong").get("a")
    with pytest.raises(AuthError, match="is opened by a passphrase"):
        file_vault(tmp_path).get("a")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 9, "items": {}}', '{"schema": 1, "items": 5}'])
def test_a_damaged_vault_is_reported_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    (tmp_path / "vault.json").write_text(text)
    for call in (lambda v: v.get("a"), lambda v: v.put("a", "x"), lambda v: v.drop("a")):
        with pytest.raises(AuthError, match="is damaged"):
            call(file_vault(tmp_path))
    assert (tmp_path / "vault.json").read_text() == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5000) | st.none()), max_size=8))
def test_a_keychain_returns_what_was_put_last_whatever_its_size(changes: list[tuple[str, int | None]]) -> None:
    backend = MemoryKeychain()
    vault = KeychainVault(backend, "colab-bridge")
    expected: dict[str, str | None] = {}
    for number, (name, size) in enumerate(changes):
        if size is None:
            vault.drop(name)
            expected[name] = None
        else:
            expected[name] = (f"{number}x" * size)[:size]
            vault.put(name, expected[name] or "")
    for name, value in expected.items():
        assert vault.get(name) == value
    for name in ("a", "b"):
        vault.drop(name)
    assert backend.entries == {}


@given(st.text(st.sampled_from("\x1d0a"), max_size=12))
def test_no_value_is_taken_for_the_beginning_of_a_longer_one(value: str) -> None:
    vault = KeychainVault(MemoryKeychain(), "s")
    vault.put("a", value)
    assert vault.get("a") == value


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_replacement_that_is_cut_off_leaves_the_earlier_value_whole(calls: int) -> None:
    backend = MemoryKeychain()
    vault = KeychainVault(backend, "s")
    vault.put("a", "x" * 3000)
    left = calls

    def check() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise keyring.errors.KeyringLocked("killed")

    backend._check = check
    try:
        vault.put("a", "y" * 3000)
    except AuthError:
        pass
    backend._check = lambda: None
    assert vault.get("a") in ("x" * 3000, "y" * 3000)


@pytest.mark.parametrize("backend", [fail.Keyring(), null.Keyring()])
def test_a_backend_that_keeps_nothing_is_no_keychain(backend: KeyringBackend) -> None:
    keyring.set_keyring(backend)
    try:
        assert find_keychain("s") is None
    finally:
        keyring.set_keyring(fail.Keyring())  # the class above is a backend that keyring would choose by itself


async def test_the_keychain_goes_before_the_file(paths: Paths, keychain: MemoryKeychain) -> None:
    vaults = Vaults(paths, "auto", lambda: None)
    assert await vaults.put("a", "x") == ("keychain", "")
    assert list(keychain.entries.values()) == ["x"]
    assert await vaults.get("keychain", "a") == "x"


async def test_each_home_has_entries_of_its_own(tmp_path: Path, keychain: MemoryKeychain) -> None:
    for name in ("one", "two"):
        home = Paths.from_env({"COLAB_BRIDGE_HOME": str(tmp_path / name)})
        await Vaults(home, "auto", lambda: None).put("a", name)
    assert sorted(keychain.entries.values()) == ["one", "two"]


async def test_a_keychain_that_fails_is_replaced_by_the_file_and_that_is_said(
    paths: Paths, keychain: MemoryKeychain
) -> None:
    keychain.broken = True
    kind, note = await Vaults(paths, "auto", lambda: None).put("a", "x")
    assert kind == "file"
    assert "cannot be used: KeyringLocked; kept in the encrypted file" in note


async def test_without_a_keychain_the_file_is_used_and_that_is_said(paths: Paths, no_keychain: None) -> None:
    kind, note = await Vaults(paths, "auto", lambda: None).put("a", "x")
    assert kind == "file"
    assert note.startswith("this system has no keychain that can be used; kept in the encrypted file")


async def test_who_asks_for_the_keychain_alone_gets_no_file(paths: Paths, no_keychain: None) -> None:
    with pytest.raises(AuthError, match="cannot be reached from here"):
        await Vaults(paths, "keychain", lambda: None).put("a", "x")


async def test_what_is_in_a_keychain_that_is_locked_now_is_reported_with_a_way_out(
    paths: Paths, keychain: MemoryKeychain
) -> None:
    vaults = Vaults(paths, "auto", lambda: None)
    await vaults.put("a", "x")
    keychain.broken = True
    with pytest.raises(AuthError, match="KeyringLocked") as caught:
        await vaults.get("keychain", "a")
    assert "credential_store file" in caught.value.hint


def test_the_book_of_accounts_holds_who_is_signed_in_and_no_secret(tmp_path: Path) -> None:
    book = AccountBook(tmp_path / "accounts.json")
    account = Account(email=ADA, name="work", scopes=COLAB_SCOPES, client_id="me", store="keychain", signed_in_at=5.0)
    book.put(account, current=True)
    book.put(Account(email="bob@example.org"), current=False)
    found = AccountBook(tmp_path / "accounts.json").read()
    assert found.accounts[ADA] == account
    assert found.current == ADA


def test_signing_out_of_the_account_in_use_leaves_another_in_use(tmp_path: Path) -> None:
    book = AccountBook(tmp_path / "accounts.json")
    for email in (ADA, "bob@example.org"):
        book.put(Account(email=email), current=True)
    book.drop("bob@example.org")
    assert book.read().current == ADA
    book.drop(ADA)
    assert (book.read().current, book.read().accounts) == ("", {})


def test_the_end_of_an_old_sign_in_does_not_end_a_newer_one(tmp_path: Path) -> None:
    book = AccountBook(tmp_path / "accounts.json")
    book.put(Account(email=ADA, signed_in_at=2.0), current=True)
    book.end(ADA, "revoked", 1.0)
    assert book.read().accounts[ADA].ended == ""
    book.end(ADA, "revoked", 2.0)
    assert book.read().accounts[ADA].ended == "revoked"


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    book, other = AccountBook(tmp_path / "accounts.json"), AccountBook(tmp_path / "accounts.json")
    assert book.read().accounts == {}
    other.put(Account(email=ADA), current=True)
    assert book.read().current == ADA


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema": 2}', '{"accounts": {}}'])
def test_a_damaged_book_is_reported_and_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(text)
    with pytest.raises(UserError):
        AccountBook(path).read()
    with pytest.raises(UserError):
        AccountBook(path).put(Account(email=ADA), current=True)
    assert path.read_text() == text


def test_members_of_a_foreign_kind_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "accounts.json"
    path.write_text(json.dumps({"schema": 1, "current": 5, "accounts": {ADA: {"scopes": 7, "store": "x"}, "b": 1}}))
    found = AccountBook(path).read()
    assert found.accounts == {ADA: Account(email=ADA)}
    assert found.current == ""


def test_an_access_token_on_the_disk_opens_with_its_refresh_token_alone(tmp_path: Path) -> None:
    cache = AccessCache(tmp_path)
    token = AccessToken(value=Secret("ya29.x"), account=ADA, expires_at=9.0, scopes=COLAB_SCOPES, source="signed in")
    cache.put(token, Secret("1//r"))
    assert cache.get(ADA, Secret("1//r")) == token
    assert cache.get(ADA, Secret("1//other")) is None
    assert b"ya29" not in next(tmp_path.iterdir()).read_bytes()
    cache.drop(ADA)
    assert cache.get(ADA, Secret("1//r")) is None


async def test_a_secret_goes_only_to_projects_that_were_allowed(paths: Paths, keychain: MemoryKeychain) -> None:
    box = SecretBox(paths, Vaults(paths, "auto", lambda: None))
    await box.put("HF_TOKEN", Secret("hf_x"), 1.0)
    assert await box.get("/p", "HF_TOKEN") == SecretAnswer(found=True, allowed=False)
    box.allow("/p", "HF_TOKEN")
    assert await box.get("/p", "HF_TOKEN") == SecretAnswer(found=True, allowed=True, value=Secret("hf_x"))
    assert await box.get("/p/sub", "HF_TOKEN") == SecretAnswer(found=True, allowed=False)
    box.deny("/p", "HF_TOKEN")
    assert await box.get("/p", "HF_TOKEN") == SecretAnswer(found=True, allowed=False)


async def test_a_new_value_keeps_who_may_have_it(paths: Paths, keychain: MemoryKeychain) -> None:
    box = SecretBox(paths, Vaults(paths, "auto", lambda: None))
    await box.put("A", Secret("one"), 1.0)
    box.allow("/p", "A")
    await box.put("A", Secret("two"), 2.0)
    assert (await box.get("/p", "A")).value == Secret("two")


async def test_a_removed_secret_is_gone_with_its_approvals(paths: Paths, keychain: MemoryKeychain) -> None:
    box = SecretBox(paths, Vaults(paths, "auto", lambda: None))
    await box.put("A", Secret("x" * 5000), 1.0)
    box.allow("/p", "A")
    await box.remove("A")
    assert keychain.entries == {}
    assert await box.get("/p", "A") == SecretAnswer(found=False, allowed=False)
    with pytest.raises(UserError, match="there is no secret A"):
        box.allow("/p", "A")


async def test_a_list_of_secrets_asks_no_keychain(paths: Paths, keychain: MemoryKeychain) -> None:
    box = SecretBox(paths, Vaults(paths, "auto", lambda: None))
    await box.put("A", Secret("x"), 1.0)
    keychain.broken = True
    assert [entry.name for entry in box.entries()] == ["A"]


@given(st.text(max_size=200))
async def test_any_name_that_code_asks_for_is_answered(name: str) -> None:
    box = SecretBox(Paths.from_env({"COLAB_BRIDGE_HOME": "/nonexistent"}), None)  # type: ignore[arg-type]
    assert await box.get("/p", name) == SecretAnswer(found=False, allowed=False)


@pytest.mark.parametrize("name", ["", "a b", "9A", "a\nb", "ä", "x" * 200, "-x"])
async def test_a_name_that_shells_and_code_would_trip_over_is_refused(paths: Paths, name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a secret"):
        await SecretBox(paths, Vaults(paths, "file", lambda: None)).put(name, Secret("x"), 1.0)
