"""The question to the user on Google's page, and the answer that comes back. Pure but for its random numbers.

Source: RFC 6749, 4.1 (authorization code), RFC 7636 (PKCE), RFC 8252 (native apps); Google's guide for desktop apps.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

__all__ = ["Answer", "AnswerKind", "Question", "read_pasted", "read_redirect"]

_MAX_CODE: Final = 2048
# Google's are some 70 characters long; a shorter word is a slip.
_BARE_CODE: Final = re.compile(r"[A-Za-z0-9/._~%+-]{20,2048}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One sign-in that is under way.

    Attributes:
        client_id: Who asks.
        redirect_uri: Where the browser is sent with the answer; the same text goes with the exchange.
        scopes: What is asked for.
        login_hint: E-mail address of the account that is meant; empty for any.
        state: Random; comes back with the answer.
        verifier: Random; shows at the exchange that we are who has asked.
    """

    client_id: str
    redirect_uri: str
    scopes: frozenset[str]
    login_hint: str = ""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(64), repr=False)

    @property
    def challenge(self) -> str:
        """The S256 challenge of the verifier, RFC 7636, 4.2."""
        digest = hashlib.sha256(self.verifier.encode("ascii")).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")

    def url(self, auth_uri: str) -> str:
        """Return the address of the page on which the user answers.

        Args:
            auth_uri: Google's page, without a query.
        """
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(sorted(self.scopes)),
            "state": self.state,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            # Both are needed for a refresh token whenever the account has agreed before.
            "access_type": "offline",
            "prompt": "consent",
            # What was allowed for another feature stays allowed.
            "include_granted_scopes": "true",
        }
        if self.login_hint:
            query["login_hint"] = self.login_hint
        return f"{auth_uri}?{urlencode(query)}"


class AnswerKind(StrEnum):
    """What came back."""

    CODE = "code"
    REFUSED = "refused"
    FOREIGN = "foreign"
    NONSENSE = "nonsense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the browser, or the user by hand, has brought back.

    Attributes:
        kind: What it is; ``foreign`` answers another question than ours.
        code: What is exchanged for tokens; only with kind ``code``.
        reason: Google's word for a refusal, such as ``access_denied``.
    """

    kind: AnswerKind
    code: str = field(default="", repr=False)
    reason: str = ""


def read_redirect(query: str, state: str) -> Answer:
    """Read the query of the address that the browser was sent to.

    Args:
        query: What stands behind ``?``; hostile.
        state: Of the question.
    """
    try:
        members = parse_qs(query, keep_blank_values=True, max_num_fields=32)
    except ValueError:
        return Answer(kind=AnswerKind.NONSENSE)
    if any(len(members.get(name, ())) > 1 for name in ("state", "code", "error")):
        return Answer(kind=AnswerKind.NONSENSE)
    code, error = _only(members, "code"), _only(members, "error")
    if not code and not error:
        return Answer(kind=AnswerKind.NONSENSE)
    if not hmac.compare_digest(_only(members, "state").encode(), state.encode()):
        return Answer(kind=AnswerKind.FOREIGN)
    if error:
        return Answer(kind=AnswerKind.REFUSED, reason=_word(error))
    return _code(code)


def read_pasted(text: str, state: str) -> Answer:
    """Read what the user has pasted: the whole address that the browser could not open, its query, or the code alone.

    A code alone comes without the state. PKCE still ties it to our question.

    Args:
        text: One line; hostile.
        state: Of the question.
    """
    line = text.strip().strip("\"'<>")
    try:
        query = urlsplit(line).query if "://" in line or line.startswith("/") else line.lstrip("?")
    except ValueError:
        return Answer(kind=AnswerKind.NONSENSE)
    if "=" in query and "&" in query:
        return read_redirect(query, state)
    return _code(line) if _BARE_CODE.fullmatch(line) else Answer(kind=AnswerKind.NONSENSE)


def _code(code: str) -> Answer:
    if not 1 <= len(code) <= _MAX_CODE or not code.isascii() or not code.isprintable() or " " in code:
        return Answer(kind=AnswerKind.NONSENSE)
    return Answer(kind=AnswerKind.CODE, code=code)


def _only(members: dict[str, list[str]], name: str) -> str:
    return next(iter(members.get(name, ())), "")


def _word(text: str) -> str:
    return "".join(c for c in text[:60] if c.isascii() and (c.isalnum() or c in "_-."))
