"""Secrets in the keychain of the system: macOS Keychain, Windows Credential Locker, Secret Service, KWallet."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from colab_bridge.credentials.vault import VaultKind, unreadable

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

__all__ = ["KeychainVault", "find_keychain"]

#: Characters in one entry. Windows keeps at most 2,560 bytes in UTF-16 (CRED_MAX_CREDENTIAL_BLOB_SIZE).
_PIECE: Final = 1200
_MAX_PIECES: Final = 64
#: In the first entry, before the number of further ones, before their mark and before its text. No token begins so.
_MORE: Final = "\x1d"


def find_keychain(service: str) -> KeychainVault | None:
    """Return the keychain of this system; None where there is none that keeps secrets.

    Which one it is decides keyring: the variable ``PYTHON_KEYRING_BACKEND``, its own settings file, else the best.

    Args:
        service: Name under which entries are kept.
    """
    import keyring.core  # here, because it takes 70 ms that few processes need
    from keyring.backends import fail, null

    try:
        backend = keyring.core.get_keyring()
    # Plug-ins and the settings file of keyring are foreign: whatever they raise, there is no keychain then.
    except Exception:  # noqa: BLE001
        return None
    if isinstance(backend, (fail.Keyring, null.Keyring)) or backend.priority <= 0:
        return None
    # keyrings.alt keeps plain text, or asks for a password on a terminal that a daemon does not have.
    if type(backend).__module__.partition(".")[0] == "keyrings":
        return None
    return KeychainVault(backend, service)


class KeychainVault:
    """The keychain of the system.

    Args:
        backend: A backend of keyring.
        service: Name under which entries are kept.
    """

    def __init__(self, backend: KeyringBackend, service: str) -> None:
        self._backend = backend
        self._service = service

    @property
    def kind(self) -> VaultKind:
        """Which kind it is."""
        return "keychain"

    @property
    def place(self) -> str:
        """Which keychain it is, as keyring calls it."""
        return f"keychain of this system ({self._backend.name}), entry {self._service}"

    def get(self, name: str) -> str | None:
        """Return what is kept under a name, see :class:`~colab_bridge.credentials.vault.Vault`."""
        first = self._get(name)
        if first is None or not first.startswith(_MORE):
            return first
        text = first.split(_MORE, 3)[-1]
        pieces = [self._get(piece) for piece in _further(name, first)]
        if any(piece is None for piece in pieces):
            return None  # another process is removing it right now
        return text + "".join(piece for piece in pieces if piece is not None)

    def put(self, name: str, value: str) -> None:
        """Keep a text, see :class:`~colab_bridge.credentials.vault.Vault`."""
        pieces = [value[at : at + _PIECE] for at in range(0, len(value), _PIECE)] or [""]
        if len(pieces) > _MAX_PIECES:
            raise unreadable("the value is too long for the keychain", "keep it in a file of the project instead")
        before = self._get(name)
        first = pieces[0]
        if len(pieces) > 1 or value.startswith(_MORE):
            # Entries of their own for this value: one that is cut off half way leaves the earlier value whole.
            first = f"{_MORE}{len(pieces) - 1}{_MORE}{secrets.token_hex(4)}{_MORE}{first}"
            for place, piece in zip(_further(name, first), pieces[1:], strict=True):
                self._set(place, piece)
        self._set(name, first)
        self._delete_all(_further(name, before))

    def drop(self, name: str) -> None:
        """Forget a text, see :class:`~colab_bridge.credentials.vault.Vault`."""
        first = self._get(name)
        if first is not None:
            self._delete_all([name, *_further(name, first)])

    def _delete_all(self, names: list[str]) -> None:
        for name in names:
            self._delete(name)

    # -- one entry; whatever a backend raises, only this call has failed ----------------------------------------

    def _get(self, name: str) -> str | None:
        try:
            return self._backend.get_password(self._service, name)
        except Exception as error:
            raise self._failed(error) from error

    def _set(self, name: str, value: str) -> None:
        try:
            self._backend.set_password(self._service, name, value)
        except Exception as error:  # noqa: BLE001  # a foreign edge, see above
            # Without its cause: the text of a foreign error may quote what was to be kept.
            raise self._failed(error) from None

    def _delete(self, name: str) -> None:
        from keyring.errors import PasswordDeleteError

        try:
            self._backend.delete_password(self._service, name)
        except PasswordDeleteError:
            return  # it has gone already
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        return unreadable(
            f"the keychain of this system ({self._backend.name}) cannot be used: {type(error).__name__}",
            "unlock it and try again, or keep an encrypted file instead: "
            "colab-bridge config set credential_store file, then sign in again",
        )


def _further(name: str, first: str | None) -> list[str]:
    """Return the names of the entries that go on from the first one of a text."""
    if first is None or not first.startswith(_MORE):
        return []
    _, count, mark, _ = first.split(_MORE, 3) if first.count(_MORE) >= 3 else ("", "0", "", "")
    number = min(int(count), _MAX_PIECES) if count.isdecimal() and len(count) <= 3 else 0
    return [f"{name} {mark} {place}" for place in range(1, number + 1)]
