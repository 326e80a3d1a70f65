"""What was granted, what is needed, and which box of the consent page makes the difference. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from colab_bridge.model.credentials import SCOPE_COLAB, SCOPE_DRIVE_FILE, SCOPE_EMAIL

__all__ = ["box_names", "missing_scopes", "parse_scopes", "short_scope"]

# Short names and wide scopes with what each of them amounts to. Source: Google's list of OAuth 2.0 scopes.
_AMOUNTS_TO: Final = {
    "email": SCOPE_EMAIL,
    "https://www.googleapis.com/auth/drive": SCOPE_DRIVE_FILE,
}
_BOXES: Final = {
    SCOPE_COLAB: "Google Colab",
    SCOPE_EMAIL: "your e-mail address",
    SCOPE_DRIVE_FILE: "Google Drive files of this app",
}
_PREFIX: Final = "https://www.googleapis.com/auth/"
# Google sends about ten; a hostile answer must not fill our files.
_MAX_SCOPES: Final = 64


def parse_scopes(text: object) -> frozenset[str]:
    """Return the scopes in the ``scope`` member of an answer, with what they amount to; empty when it names none."""
    words = text.split() if isinstance(text, str) else []
    found = {word for word in words[:_MAX_SCOPES] if len(word) <= 200 and word.isprintable()}
    return frozenset(found | {_AMOUNTS_TO[word] for word in found if word in _AMOUNTS_TO})


def missing_scopes(granted: frozenset[str], wanted: Iterable[str]) -> frozenset[str]:
    """Return what is wanted and was not granted.

    Args:
        granted: Empty when nobody knows, and then nothing counts as missing: the service itself will say.
        wanted: What a call needs.
    """
    return frozenset(wanted) - granted if granted else frozenset()


def short_scope(scope: str) -> str:
    """Return a scope as people see it: without the address in front that Google's own all share."""
    return scope.removeprefix(_PREFIX)


def box_names(scopes: Iterable[str]) -> str:
    """Return the lines of the consent page that stand for scopes, for a sentence."""
    names = [_BOXES.get(scope, short_scope(scope)) for scope in sorted(scopes)]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
