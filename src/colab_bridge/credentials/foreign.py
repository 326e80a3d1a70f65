"""Sign-ins that the user has made with other tools. They are only read, and only when the user has said so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colab_bridge.credentials.client_file import OAuthClient
from colab_bridge.credentials.scopes import parse_scopes
from colab_bridge.errors import UserError
from colab_bridge.model.runtime import Secret

__all__ = ["ForeignLogin", "google_colab_cli_file", "read_google_colab_cli"]

_MAX_FILE: Final = 64 * 1024
_WORD: Final = re.compile(r"[!-~]{1,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLogin:
    """A sign-in of another tool.

    Attributes:
        tool: Its name.
        client: The OAuth client that it was made with.
        refresh: Its refresh token.
        scopes: What it was made for; empty when the tool did not note it.
    """

    tool: str
    client: OAuthClient
    refresh: Secret
    scopes: frozenset[str]


def google_colab_cli_file(home: Path) -> Path | None:
    """Return where google-colab-cli keeps its sign-in; None when there is none.

    Args:
        home: The user's home folder.
    """
    path = home / ".config" / "colab-cli" / "token.json"
    return path if path.is_file() else None


def read_google_colab_cli(path: Path) -> ForeignLogin:
    """Read the sign-in of google-colab-cli, in the form of google-auth's ``Credentials.to_json``.

    Raises:
        UserError: it cannot be read, or lacks something.
    """
    try:
        with path.open("rb") as file:
            tree: Any = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError, RecursionError) as error:
        raise _unusable(path, type(error).__name__) from error
    members = tree if isinstance(tree, dict) else {}
    values = {name: members.get(name) for name in ("client_id", "refresh_token")}
    for name, value in values.items():
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise _unusable(path, f"it has no {name}")
    scopes = members.get("scopes")
    return ForeignLogin(
        tool="google-colab-cli",
        client=OAuthClient(client_id=str(values["client_id"]), secret=Secret(str(members.get("client_secret") or ""))),
        refresh=Secret(str(values["refresh_token"])),
        scopes=parse_scopes(" ".join(map(str, scopes)) if isinstance(scopes, list) else scopes),
    )


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(
        f"the sign-in in {path} cannot be taken over: {reason}",
        hint="sign in with your own OAuth client: colab-bridge auth login --client FILE",
        code="CB-USER-075",
    )
