"""Who is signed in: a file without secrets that says for each account where its secrets are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from colab_bridge.credentials.state_file import StateFile
from colab_bridge.credentials.vault import VaultKind

__all__ = ["Account", "AccountBook", "AccountList"]

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A signed in account.

    Attributes:
        email: Its address, lower case.
        name: Short name that the user gave it; may be empty.
        scopes: What it allowed.
        client_id: OAuth client that it allowed it to.
        store: Where its refresh token is.
        signed_in_at: Unix seconds.
        ended: Why it has ended, a value of :class:`~colab_bridge.credentials.failures.FailureKind`; empty while it has
            not.
        origin: ``login``, or the name of the tool that it was taken over from.
    """

    email: str
    name: str = ""
    scopes: frozenset[str] = frozenset()
    client_id: str = ""
    store: VaultKind = "file"
    signed_in_at: float = 0.0
    ended: str = ""
    origin: str = "login"

    @property
    def item(self) -> str:
        """Name of its secrets in the vault."""
        return f"account {self.email}"

    def to_json(self, current: str) -> dict[str, Any]:
        """Return the account as commands and the API show it.

        Args:
            current: Address of the account in use.
        """
        return {
            "account": self.email,
            "name": self.name,
            "current": self.email == current,
            "scopes": sorted(self.scopes),
            "state": self.ended or "ok",
            "store": self.store,
            "signed_in_at": self.signed_in_at,
            "origin": self.origin,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountList:
    """Everyone who is signed in.

    Attributes:
        accounts: By address, in the order of signing in.
        current: Address of the account in use; empty when there is none.
        client_id: The user's own OAuth client; empty when none was given yet.
        client_store: Where its secret is.
    """

    accounts: dict[str, Account] = dataclasses.field(default_factory=dict)
    current: str = ""
    client_id: str = ""
    client_store: VaultKind = "file"

    def names(self) -> dict[str, str]:
        """Return the short name of each address."""
        return {email: account.name for email, account in self.accounts.items()}


class AccountBook:
    """The file.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path, _SCHEMA)
        self._seen: tuple[object, AccountList] | None = None

    def read(self) -> AccountList:
        """Return what it says now; cheap while it has not changed.

        Raises:
            UserError: it is damaged, or of a newer kind.
        """
        stamp = self._file.stamp()
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, _list_of(self._file.read()))
        return self._seen[1]

    def put(self, account: Account, *, current: bool) -> None:
        """Keep an account, in place of an earlier sign-in of it.

        Args:
            account: It.
            current: Whether it is the one in use from now on; the first one always is.
        """

        def change(tree: dict[str, Any]) -> None:
            found = _members(tree, "accounts")
            found[account.email] = _members_of(account)
            tree["accounts"] = found
            if current or tree.get("current") not in found:
                tree["current"] = account.email

        self._file.change(change)

    def end(self, email: str, reason: str, signed_in_at: float) -> None:
        """Note that a sign-in has ended, unless there is a newer one."""

        def change(tree: dict[str, Any]) -> None:
            found = _members(tree, "accounts").get(email)
            if isinstance(found, dict) and found.get("signed_in_at") == signed_in_at:
                found["ended"] = reason

        self._file.change(change)

    def drop(self, email: str) -> None:
        """Forget an account. If it was in use, the one that signed in last is."""

        def change(tree: dict[str, Any]) -> None:
            found = _members(tree, "accounts")
            found.pop(email, None)
            if tree.get("current") not in found:
                tree["current"] = next(reversed(found), "")

        self._file.change(change)

    def use(self, email: str) -> None:
        """Make an account the one in use."""
        self._file.change(lambda tree: tree.update(current=email))

    def remember_client(self, client_id: str, store: VaultKind) -> None:
        """Keep which OAuth client is the user's own."""
        self._file.change(lambda tree: tree.update(client={"client_id": client_id, "store": store}))


def _members(tree: dict[str, Any], name: str) -> dict[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


def _members_of(account: Account) -> dict[str, Any]:
    members = dataclasses.asdict(account)
    members["scopes"] = sorted(account.scopes)
    del members["email"]
    return members


def _list_of(tree: dict[str, Any]) -> AccountList:
    accounts = {
        email: _account_of(email, value)
        for email, value in _members(tree, "accounts").items()
        if isinstance(value, dict)
    }
    client = _members(tree, "client")
    return AccountList(
        accounts=accounts,
        current=_text(tree.get("current")),
        client_id=_text(client.get("client_id")),
        client_store=_kind(client.get("store")),
    )


def _account_of(email: str, value: dict[str, Any]) -> Account:
    scopes = value.get("scopes")
    at = value.get("signed_in_at")
    return Account(
        email=email,
        name=_text(value.get("name")),
        scopes=frozenset(scope for scope in scopes if isinstance(scope, str))
        if isinstance(scopes, list)
        else frozenset(),
        client_id=_text(value.get("client_id")),
        store=_kind(value.get("store")),
        signed_in_at=float(at) if isinstance(at, (int, float)) else 0.0,
        ended=_text(value.get("ended")),
        origin=_text(value.get("origin")) or "login",
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _kind(value: object) -> VaultKind:
    return cast("VaultKind", value) if value in get_args(VaultKind) else "file"
