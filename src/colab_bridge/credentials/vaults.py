"""Which place for secrets is used: the keychain where there is a real one, else the encrypted file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

import anyio
import anyio.to_thread

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.vault import Vault, VaultKind, unreadable
from colab_bridge.credentials.vault_file import PASSPHRASE_VARIABLE, FileVault
from colab_bridge.credentials.vault_keychain import find_keychain
from colab_bridge.errors import AuthError, TransientError
from colab_bridge.model.runtime import Secret

__all__ = ["PASSPHRASE_VARIABLE", "StoreChoice", "Vaults", "credentials_dir"]

StoreChoice = Literal["auto", "keychain", "file"]
#: A person may have to find and type the keychain's password.
_ANSWER_S: Final = 60.0
_T = TypeVar("_T")


def credentials_dir(paths: Paths) -> Path:
    """Return the folder that holds everything of this package but the key of the encrypted file."""
    return paths.state_dir / "credentials"


class Vaults:
    """Both places.

    Args:
        paths: Our folders. Each home has entries of its own in the keychain.
        choice: Which one new secrets go to.
        passphrase: Returns the passphrase of the encrypted file; None when the key file is used.
    """

    def __init__(self, paths: Paths, choice: StoreChoice, passphrase: Callable[[], Secret | None]) -> None:
        self._paths = paths
        self._choice = choice
        self._passphrase = passphrase
        self._searched = False
        self._keychain_found: Vault | None = None
        self._limiter: anyio.CapacityLimiter | None = None

    async def get(self, kind: VaultKind, name: str) -> str | None:
        """Return what is kept under a name in one of the places; None when there is nothing.

        Raises:
            AuthError: that place cannot be read from here.
            TransientError: the keychain does not answer.
        """
        return await self._call(lambda: self._vault(kind).get(name))

    async def put(self, name: str, value: str) -> tuple[VaultKind, str]:
        """Keep a text in the place for new secrets.

        Returns:
            The place, and one sentence about why it is not the keychain; empty when it is.

        Raises:
            AuthError: no place takes it.
            TransientError: the keychain does not answer.
        """
        return await self._call(partial(self._put, name, value))

    async def drop(self, kind: VaultKind, name: str) -> None:
        """Forget what is kept under a name in one of the places."""
        await self._call(lambda: self._vault(kind).drop(name))

    async def place(self) -> tuple[VaultKind, str]:
        """Return the place for new secrets, and a sentence that describes it."""
        vault = await self._call(lambda: self._preferred()[0])
        return vault.kind, vault.place

    def _put(self, name: str, value: str) -> tuple[VaultKind, str]:
        vault, why = self._preferred()
        self._paths.ensure()
        credentials_dir(self._paths).mkdir(mode=0o700, exist_ok=True)
        try:
            vault.put(name, value)
        except AuthError as error:
            if vault.kind == "file" or self._choice == "keychain":
                raise
            vault, why = self._file(), error.message
            vault.put(name, value)
        return vault.kind, f"{why}; kept in the {vault.place}" if why else ""

    def _preferred(self) -> tuple[Vault, str]:
        if self._choice == "file":
            return self._file(), ""
        keychain = self._keychain()
        if keychain is not None:
            return keychain, ""
        if self._choice == "keychain":
            raise _no_keychain()
        return self._file(), "this system has no keychain that can be used"

    def _vault(self, kind: VaultKind) -> Vault:
        if kind == "file":
            return self._file()
        keychain = self._keychain()
        if keychain is None:
            raise _no_keychain()
        return keychain

    def _keychain(self) -> Vault | None:
        if not self._searched:
            self._keychain_found = find_keychain(_service(self._paths))
            self._searched = True
        return self._keychain_found

    def _file(self) -> Vault:
        folder = credentials_dir(self._paths)
        return FileVault(folder / "vault.json", self._paths.config_dir / "credentials.key", self._passphrase())

    async def _call(self, call: Callable[[], _T]) -> _T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(2)  # a keychain that waits for a person must not hold other work up
        try:
            with anyio.fail_after(_ANSWER_S):
                return await anyio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)
        except TimeoutError:
            raise TransientError(
                f"the keychain of this system has not answered for {_ANSWER_S:.0f} s",
                hint="is it asking for its password on the screen? unlock it and try again",
                code="CB-TRANSIENT-AUTH",
            ) from None


def _service(paths: Paths) -> str:
    if paths.home is None:
        return "colab-bridge"
    return f"colab-bridge {hashlib.sha256(str(paths.home).encode()).hexdigest()[:8]}"


def _no_keychain() -> AuthError:
    return unreadable(
        "the keychain of this system cannot be reached from here",
        "run this in your desktop session, or keep a file: colab-bridge config set credential_store file, "
        "then sign in again",
    )
