"""Secrets in an encrypted file, for machines without a keychain.

The file holds each secret sealed with AES-256-GCM. The key is random and lies in a file of its own among the settings,
so that a copy of the state alone opens nothing, or it follows from the passphrase in ``COLAB_BRIDGE_PASSPHRASE``.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from colab_bridge._util.atomic import write_atomic
from colab_bridge.credentials.file_lock import held
from colab_bridge.credentials.sealing import (
    KEY_BYTES,
    SCRYPT_N,
    NotOpenedError,
    from_passphrase,
    open_sealed,
    seal,
)
from colab_bridge.credentials.vault import VaultKind, unreadable
from colab_bridge.model.runtime import Secret

__all__ = ["PASSPHRASE_VARIABLE", "FileVault"]

PASSPHRASE_VARIABLE: Final = "COLAB_BRIDGE_PASSPHRASE"  # noqa: S105  # the name of a variable
_SCHEMA: Final = 1
_MAX_FILE: Final = 32 * 1024 * 1024
# A hostile file must not make us compute for ever.
_MAX_SCRYPT_N: Final = 2**20


@dataclass(slots=True)
class _Content:
    items: dict[str, str] = field(default_factory=dict)
    salt: bytes = b""
    n: int = SCRYPT_N


class FileVault:
    """An encrypted file.

    Args:
        file: The file; its folder must exist.
        key_file: Where the random key is, or is to be.
        passphrase: Used in place of the key file, when given.
    """

    def __init__(self, file: Path, key_file: Path, passphrase: Secret | None = None) -> None:
        self._file = file
        self._key_file = key_file
        self._passphrase = passphrase
        self._derived: dict[tuple[bytes, int], bytes] = {}

    @property
    def kind(self) -> VaultKind:
        """Which kind it is."""
        return "file"

    @property
    def place(self) -> str:
        """Where it is and what opens it."""
        key = "your passphrase" if self._passphrase is not None else f"the key in {self._key_file}"
        return f"encrypted file {self._file}, opened by {key}"

    def get(self, name: str) -> str | None:
        """Return what is kept under a name, see :class:`~colab_bridge.credentials.vault.Vault`."""
        content = self._read()
        if name not in content.items:
            return None
        key = self._key(content, make=False)
        try:
            return open_sealed(key, content.items[name], _label(name)).decode()
        except (NotOpenedError, UnicodeDecodeError) as error:
            raise self._wrong_key(content) from error

    def put(self, name: str, value: str) -> None:
        """Keep a text, see :class:`~colab_bridge.credentials.vault.Vault`."""
        with held(self._file):
            content = self._read()
            content = self._fitting(content)
            key = self._key(content, make=True)
            content.items[name] = seal(key, value.encode(), _label(name))
            self._write(content)

    def drop(self, name: str) -> None:
        """Forget a text, see :class:`~colab_bridge.credentials.vault.Vault`."""
        with held(self._file):
            content = self._read()
            if content.items.pop(name, None) is not None:
                self._write(content)

    # -- the file --------------------------------------------------------------------------------------------

    def _read(self) -> _Content:
        try:
            with self._file.open("rb") as file:
                tree: Any = json.loads(file.read(_MAX_FILE))
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise unreadable(
                f"{self._file} cannot be read: {error.strerror or error}", f"make it yours: chmod 600 {self._file}"
            ) from error
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict) or tree.get("schema") != _SCHEMA or not isinstance(tree.get("items"), dict):
            raise unreadable(
                f"{self._file} is damaged, or of a newer Colab Bridge",
                "move it away and sign in again: colab-bridge auth login",
            )
        items = {str(name): value for name, value in tree["items"].items() if isinstance(value, str)}
        salt, n = _scrypt_members(tree.get("scrypt"))
        return _Content(items=items, salt=salt, n=n)

    def _write(self, content: _Content) -> None:
        tree: dict[str, Any] = {"schema": _SCHEMA, "items": content.items}
        if content.salt:
            tree["scrypt"] = {"salt": base64.b64encode(content.salt).decode("ascii"), "n": content.n}
        write_atomic(self._file, json.dumps(tree, indent=1).encode(), mode=0o600)

    # -- the key ---------------------------------------------------------------------------------------------

    def _fitting(self, content: _Content) -> _Content:
        """Return content that the key at hand may be used with; what it does not open is set aside, never overwritten.

        Holds here: the lock is held.
        """
        if not content.items:
            return _Content(salt=os.urandom(16) if self._passphrase is not None else b"")
        name, sealed = next(iter(content.items.items()))
        if not content.salt and self._passphrase is None and not self._key_file.exists():
            aside = self._file.with_name(f"{self._file.name}.{time.time_ns()}.locked")
            self._file.replace(aside)
            return _Content()
        try:
            open_sealed(self._key(content, make=False), sealed, _label(name))
        except NotOpenedError as error:
            raise self._wrong_key(content) from error
        return content

    def _key(self, content: _Content, *, make: bool) -> bytes:
        if content.salt:
            return self._from_passphrase(content.salt, content.n)
        try:
            key = self._read_key()
        except FileNotFoundError:
            if not make:
                raise unreadable(
                    f"the key {self._key_file} is gone, so what {self._file.name} holds cannot be read",
                    "bring the key back, or sign in again: colab-bridge auth login",
                ) from None
            key = os.urandom(KEY_BYTES)
            write_atomic(self._key_file, base64.b64encode(key) + b"\n", mode=0o600)
        return key

    def _from_passphrase(self, salt: bytes, n: int) -> bytes:
        if self._passphrase is None:
            raise unreadable(f"{self._file} is opened by a passphrase", f"set {PASSPHRASE_VARIABLE} and try again")
        if (salt, n) not in self._derived:
            self._derived[salt, n] = from_passphrase(self._passphrase.reveal(), salt, n)
        return self._derived[salt, n]

    def _read_key(self) -> bytes:
        with self._key_file.open("rb") as file:
            # On Windows the profile folder's access list keeps others out; there are no mode bits.
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise unreadable(
                    f"other users can read the key {self._key_file}", f"close it: chmod 600 {self._key_file}"
                )
            raw = file.read(256)
        try:
            key = base64.b64decode(raw.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise unreadable(f"{self._key_file} is no key of ours", "move it away, or bring the right one back")
        return key

    def _wrong_key(self, content: _Content) -> Exception:
        what = "the passphrase" if content.salt else f"the key {self._key_file}"
        fix = f"set {PASSPHRASE_VARIABLE} to the right one" if content.salt else "bring the right key back"
        return unreadable(f"{what} does not open {self._file}", f"{fix}, or move that file away and sign in again")


def _label(name: str) -> str:
    return f"colab-bridge vault {_SCHEMA} {name}"


def _scrypt_members(value: object) -> tuple[bytes, int]:
    if not isinstance(value, dict):
        return b"", SCRYPT_N
    n = value.get("n")
    if not isinstance(n, int) or not 2**14 <= n <= _MAX_SCRYPT_N or n & (n - 1):
        n = SCRYPT_N
    try:
        return base64.b64decode(str(value.get("salt")), validate=True), n
    except ValueError:
        return b"", n
