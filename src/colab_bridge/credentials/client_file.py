"""The user's own OAuth client, as Google's console hands it out in a JSON file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colab_bridge.errors import UserError
from colab_bridge.model.runtime import Secret

__all__ = ["OAuthClient", "is_foreign", "parse_client", "read_client"]

# Such a file has about 400 bytes.
_MAX_FILE_BYTES: Final = 64 * 1024
# Numbers of the Google projects behind the clients of the Cloud SDK and of Google's Colab extension. Their ids are in
# public source, but the consent page would show another product's name, and Google forbids it.
_FOREIGN_PROJECTS: Final = frozenset({"764086051850", "32555940559", "1014160490159"})
_STEPS = "make one of type Desktop app and give its file: colab-bridge auth login --client FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """An OAuth client of type Desktop.

    Attributes:
        client_id: Its public name.
        secret: What Google calls its secret; for a desktop program it is none (RFC 8252, 8.5), but it is kept like one.
    """

    client_id: str
    secret: Secret


def is_foreign(client_id: str) -> bool:
    """Return whether a client belongs to another product."""
    return client_id.partition("-")[0] in _FOREIGN_PROJECTS


def read_client(path: Path) -> OAuthClient:
    """Read a client's file.

    Raises:
        UserError: it cannot be read, or it is no client of type Desktop.
    """
    shown = os.path.basename(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="give the path of the JSON file that Google's console offers: colab-bridge auth login --client FILE",
            code="CB-USER-071",
        ) from error
    return parse_client(data, shown)


def parse_client(data: bytes, name: str) -> OAuthClient:
    """Read the content of a client's file.

    Args:
        data: The content.
        name: Of the file, for messages.

    Raises:
        UserError: it is no client of type Desktop, or one of another product.
    """
    try:
        tree: Any = json.loads(data) if len(data) <= _MAX_FILE_BYTES else None
    except (ValueError, RecursionError):
        tree = None
    if not isinstance(tree, dict):
        raise _unusable(f"{name} is not the JSON file of an OAuth client")
    if "web" in tree:
        raise _unusable(f"{name} is an OAuth client of type Web application")
    if tree.get("type") == "service_account":
        raise _unusable(f"{name} is the key of a service account, not an OAuth client")
    members = tree.get("installed")
    members = members if isinstance(members, dict) else {}
    client_id, secret = members.get("client_id"), members.get("client_secret")
    if not _is_word(client_id) or not _is_word(secret):
        raise _unusable(f"{name} holds no OAuth client of type Desktop app")
    if is_foreign(str(client_id)):
        raise _unusable(f"{name} is the OAuth client of another product")
    return OAuthClient(client_id=str(client_id), secret=Secret(str(secret)))


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 512 and value.isascii() and value.isprintable()


def _unusable(message: str) -> UserError:
    return UserError(message, hint=_STEPS, code="CB-USER-071")
