"""The user's own secrets, such as tokens of model hubs, and which projects may have them.

Values are in the vault. A file beside it says without them what there is and who may have it, so that a list asks no
keychain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from colab_bridge.config.paths import Paths
from colab_bridge.credentials.state_file import StateFile
from colab_bridge.credentials.vault import VaultKind
from colab_bridge.credentials.vaults import Vaults, credentials_dir
from colab_bridge.errors import UserError
from colab_bridge.model.credentials import SecretAnswer
from colab_bridge.model.runtime import Secret

__all__ = ["SecretBox", "SecretEntry", "check_secret_name"]

_SCHEMA: Final = 1
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
#: A key file of a cloud has some 2,400 characters; the keychain of Windows keeps 1,280 in one entry.
_MAX_VALUE: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEntry:
    """A secret, without its value.

    Attributes:
        name: As code asks for it.
        store: Where its value is.
        set_at: Unix seconds.
        projects: Roots of the projects whose code may have it.
    """

    name: str
    store: VaultKind
    set_at: float
    projects: tuple[str, ...] = ()

    def to_json(self, project: str) -> dict[str, Any]:
        """Return the secret as commands and the API show it.

        Args:
            project: Root of the project that ``allowed`` is about.
        """
        return {
            "name": self.name,
            "allowed": project in self.projects,
            "projects": list(self.projects),
            "store": self.store,
            "set_at": self.set_at,
        }


def check_secret_name(name: str) -> str:
    """Return a name that a secret may have.

    Raises:
        UserError: it may not.
    """
    if not _NAME.fullmatch(name):
        shown = "".join(c if c.isprintable() else "?" for c in name[:40])
        raise UserError(
            f"'{shown}' cannot be the name of a secret",
            hint="use letters, digits and '_', as in HF_TOKEN",
            code="CB-USER-076",
        )
    return name


class SecretBox:
    """The :class:`~colab_bridge.ports.secrets.SecretStore` of this machine's user.

    Args:
        paths: Our folders.
        vaults: Where values are kept.
    """

    def __init__(self, paths: Paths, vaults: Vaults) -> None:
        self._paths = paths
        self._vaults = vaults
        self._file = StateFile(credentials_dir(paths) / "secrets.json", _SCHEMA)

    async def get(self, project: str, name: str) -> SecretAnswer:
        """Look a secret up, see :class:`~colab_bridge.ports.secrets.SecretStore`."""
        entry = self._read().get(name)
        if entry is None:
            return SecretAnswer(found=False, allowed=False)
        if project not in entry.projects:
            return SecretAnswer(found=True, allowed=False)
        value = await self._vaults.get(entry.store, _item(name))
        if value is None:
            return SecretAnswer(found=False, allowed=True)
        return SecretAnswer(found=True, allowed=True, value=Secret(value))

    def entries(self) -> list[SecretEntry]:
        """Return what there is, by name.

        Raises:
            UserError: our file of secrets is damaged.
        """
        return [entry for _, entry in sorted(self._read().items())]

    async def put(self, name: str, value: Secret, now: float) -> tuple[VaultKind, str]:
        """Keep a secret, in place of an earlier value; who may have it stays as it is.

        Args:
            name: As code asks for it.
            value: The secret.
            now: Unix seconds.

        Returns:
            Where its value is, and a sentence about why it is not the keychain; empty when it is.

        Raises:
            AuthError: no place takes it.
            UserError: the name may not be used, or the value is empty or too long.
        """
        check_secret_name(name)
        text = value.reveal()
        if not text or len(text) > _MAX_VALUE:
            raise UserError(
                f"the value of {name} is empty" if not text else f"the value of {name} is longer than 64 kB",
                hint=f"give it at the prompt, or in a pipe: colab-bridge secret set {name} < FILE",
                code="CB-USER-077",
            )
        self._paths.ensure()
        self._file.path.parent.mkdir(mode=0o700, exist_ok=True)
        before = self._read().get(name)
        kind, note = await self._vaults.put(_item(name), text)
        if before is not None and before.store != kind:
            await self._vaults.drop(before.store, _item(name))

        def change(tree: dict[str, Any]) -> None:
            found = _members(tree)
            projects = list(before.projects) if before is not None else []
            found[name] = {"store": kind, "set_at": now, "projects": projects}
            tree["secrets"] = found

        self._file.change(change)
        return kind, note

    async def remove(self, name: str) -> None:
        """Forget a secret and who might have it.

        Raises:
            UserError: there is none of that name.
            AuthError: the place where it is cannot be reached; nothing was forgotten then.
        """
        entry = self._required(name)
        await self._vaults.drop(entry.store, _item(name))
        self._file.change(lambda tree: _members(tree).pop(name, None))

    def allow(self, project: str, name: str) -> SecretEntry:
        """Let the code of a project have a secret from now on.

        Args:
            project: Absolute path of its root.
            name: Of the secret.

        Raises:
            UserError: there is none of that name.
        """
        return self._approve(project, name, approved=True)

    def deny(self, project: str, name: str) -> SecretEntry:
        """Let the code of a project have a secret no more. What it was given before it may still hold."""
        return self._approve(project, name, approved=False)

    def _approve(self, project: str, name: str, *, approved: bool) -> SecretEntry:
        self._required(name)

        def change(tree: dict[str, Any]) -> None:
            entry = _members(tree).get(name)
            if isinstance(entry, dict):
                projects = {path for path in entry.get("projects") or () if path != project}
                entry["projects"] = sorted(projects | ({project} if approved else set()))

        self._file.change(change)
        return self._required(name)

    def _required(self, name: str) -> SecretEntry:
        entry = self._read().get(name)
        if entry is None:
            check_secret_name(name)
            raise UserError(f"there is no secret {name}", hint=f"colab-bridge secret set {name}", code="CB-USER-078")
        return entry

    def _read(self) -> dict[str, SecretEntry]:
        return {name: _entry(name, value) for name, value in _members(self._file.read()).items()}


def _item(name: str) -> str:
    return f"secret {name}"


def _members(tree: dict[str, Any]) -> dict[str, Any]:
    found = tree.get("secrets")
    return found if isinstance(found, dict) else {}


def _entry(name: str, value: Any) -> SecretEntry:
    members = value if isinstance(value, dict) else {}
    projects = members.get("projects")
    set_at = members.get("set_at")
    return SecretEntry(
        name=name,
        store="keychain" if members.get("store") == "keychain" else "file",
        set_at=float(set_at) if isinstance(set_at, (int, float)) else 0.0,
        projects=tuple(path for path in projects if isinstance(path, str)) if isinstance(projects, list) else (),
    )
