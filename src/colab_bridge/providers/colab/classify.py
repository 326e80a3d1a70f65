"""What an answer of Colab's control plane means for the next step. Pure.

A refusal comes in four shapes: an HTTP status, an outcome inside a 200, an operation that ended with an error, or no
answer at all. Each becomes one :class:`Verdict`; :func:`to_error` says it to people.

Source: the statuses and outcomes that Google's public clients tell apart, and reports against them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from colab_bridge.errors import AuthError, ColabBridgeError, QuotaError, TransientError, UserError
from colab_bridge.providers.colab.foreign import Fields, one_line

__all__ = ["Failure", "Verdict", "of_operation", "of_outcome", "of_status", "to_error"]


class Verdict(StrEnum):
    """Why something was not done."""

    CAPACITY = "no machine of this kind is free"
    TOO_MANY = "too many runtimes, or refused for usage"
    NOT_ENTITLED = "the account may not have this kind"
    BAD_REQUEST = "the request was not understood"
    QUOTA_KIND = "quota for this kind is used up"
    QUOTA_TIME = "quota for usage time is used up"
    DENYLISTED = "the account is blocked"
    UNAUTHENTICATED = "the access token is refused"
    SCOPE = "the sign-in lacks a scope"
    FORBIDDEN = "the service does not admit this client"
    NOT_FOUND = "there is no such thing"
    RATE_LIMITED = "too many requests"
    SERVER_ERROR = "the service failed"  # it has answered, so nothing is under way any more
    UNREACHABLE = "no connection"  # the request never went out
    UNCERTAIN = "no answer"  # it may have been carried out


#: A later try may succeed without anybody doing anything.
PASSING: Final = frozenset({Verdict.RATE_LIMITED, Verdict.SERVER_ERROR, Verdict.UNREACHABLE, Verdict.UNCERTAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a call did not do what it was to do.

    Attributes:
        verdict: What it means.
        call: Name of the call, such as ``assign``.
        detail: What the service said, one line without a secret; may be empty.
        retry_after_s: Seconds that the service asks for; None when it does not say.
        silent: True when the request went out and nothing at all came back in time.
    """

    verdict: Verdict
    call: str = ""
    detail: str = ""
    retry_after_s: float | None = None
    silent: bool = False


def of_status(
    status: int, body: bytes, *, call: str, creating: bool = False, accelerator: bool = False, retry_after: str = ""
) -> Failure:
    """Judge an answer with an HTTP status of 400 or more.

    Args:
        status: The HTTP status.
        body: The answer's body.
        call: Name of the call.
        creating: Whether a runtime was asked for: then 412 and 503 speak of runtimes.
        accelerator: Whether one was asked for: then 400 means that the account may not have it.
        retry_after: The header of that name.
    """
    seconds = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6 else None
    return Failure(
        verdict=_verdict(status, body, creating=creating, accelerator=accelerator),
        call=call,
        detail=_said(body),
        retry_after_s=seconds,
    )


def _verdict(status: int, body: bytes, *, creating: bool, accelerator: bool) -> Verdict:
    if creating and status in (412, 503):
        return Verdict.TOO_MANY if status == 412 else Verdict.CAPACITY
    if creating and accelerator and status == 400:
        return Verdict.NOT_ENTITLED
    if creating and status == 409:
        return Verdict.UNCERTAIN  # it exists already
    if status == 403:
        return Verdict.SCOPE if _lacks_scope(body) else Verdict.FORBIDDEN
    if status == 408 or status >= 500:
        return Verdict.SERVER_ERROR
    exact = {401: Verdict.UNAUTHENTICATED, 404: Verdict.NOT_FOUND, 429: Verdict.RATE_LIMITED}
    return exact.get(status, Verdict.BAD_REQUEST)


def _lacks_scope(body: bytes) -> bool:
    # Two spellings exist: the session backend's array with a debug entry, and the error model of Google's APIs.
    marks = (b"SCOPE_NOT_PERMITTED", b"insufficient authentication scopes", b"ACCESS_TOKEN_SCOPE_INSUFFICIENT")
    return any(mark in body[:20_000] for mark in marks)


def _said(body: bytes) -> str:
    """Return the sentence with which a service explains a refusal; empty for a page."""
    try:
        value: Any = json.loads(body[:100_000].removeprefix(b")]}'"))
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, list) and len(value) > 1 and isinstance(value[1], str):
        return one_line(value[1])
    if isinstance(value, dict):
        error = value.get("error")
        message = error.get("message") if isinstance(error, dict) else value.get("message")
        return one_line(message) if isinstance(message, str) else ""
    return ""


def of_outcome(outcome: int | None, call: str) -> Failure | None:
    """Judge the outcome inside an answer with status 200; None when it is a success or says nothing."""
    verdict = {
        1: Verdict.QUOTA_KIND,
        2: Verdict.QUOTA_TIME,
        3: Verdict.QUOTA_TIME,  # out of use; once "as 2, with a refund"
        5: Verdict.DENYLISTED,
    }.get(outcome if outcome is not None else 0)
    return Failure(verdict=verdict, call=call) if verdict is not None else None


_REASONS: Final = {
    "TOO_MANY_ACTIVE_RUNTIMES": Verdict.TOO_MANY,
    "DENYLISTED": Verdict.DENYLISTED,
    "QUOTA_EXCEEDED_USAGE_TIME": Verdict.QUOTA_TIME,
}
# google.rpc.Code
_FAILED_PRECONDITION, _PERMISSION_DENIED, _INVALID, _EXHAUSTED, _UNAVAILABLE = 9, 7, 3, 8, 14


def of_operation(error: Fields, *, call: str, accelerator: bool) -> Failure:
    """Judge the error of an operation of the public API.

    Args:
        error: A ``google.rpc.Status``.
        call: Name of the call.
        accelerator: Whether an accelerator was asked for: then a failed precondition means that none is free.
    """
    reasons = {detail.word("reason") for detail in error.each("details")}
    code = error.number("code")
    by_code = {
        _PERMISSION_DENIED: Verdict.FORBIDDEN,
        _EXHAUSTED: Verdict.QUOTA_KIND,
        _UNAVAILABLE: Verdict.CAPACITY,
        _FAILED_PRECONDITION: Verdict.CAPACITY if accelerator else Verdict.BAD_REQUEST,
        _INVALID: Verdict.NOT_ENTITLED if accelerator else Verdict.BAD_REQUEST,
    }
    named = [verdict for reason, verdict in _REASONS.items() if reason in reasons]
    verdict = named[0] if named else by_code.get(int(code or 0), Verdict.SERVER_ERROR)
    return Failure(verdict=verdict, call=call, detail=error.word("message"))


# -- for people ----------------------------------------------------------------------------------------------------

_LOGIN = "colab-bridge auth login"
#: Where Google says what Colab may be used for.
TERMS_URL: Final = "https://research.google.com/colaboratory/faq.html"

_TEXTS: Final[dict[Verdict, tuple[type[ColabBridgeError], str, str, str]]] = {
    Verdict.CAPACITY: (
        QuotaError,
        "CB-COLAB-001",
        "Colab has no such machine free now",
        "wait for one with --wait 2h, or name others too: --gpu A100,L4,T4",
    ),
    Verdict.TOO_MANY: (
        QuotaError,
        "CB-COLAB-002",
        "Colab gives this account no further runtime now",
        "see them with: colab-bridge ps --all; end one with: colab-bridge stop ID",
    ),
    Verdict.NOT_ENTITLED: (
        UserError,
        "CB-COLAB-003",
        "this account may not have such a machine",
        "see what it may have: colab-bridge gpus",
    ),
    Verdict.BAD_REQUEST: (
        UserError,
        "CB-COLAB-004",
        "Colab does not accept the request",
        "leave out --runtime-version if you gave it; else: colab-bridge doctor",
    ),
    Verdict.QUOTA_KIND: (
        QuotaError,
        "CB-COLAB-005",
        "the account's quota for this kind of machine is used up",
        "use another kind, or see what is left: colab-bridge usage",
    ),
    Verdict.QUOTA_TIME: (
        QuotaError,
        "CB-COLAB-006",
        "the account's usage time is used up",
        "see what is left: colab-bridge usage; it grows again with time, or with compute units",
    ),
    Verdict.DENYLISTED: (
        AuthError,
        "CB-COLAB-007",
        "Google has blocked this account from Colab; it is not tried again",
        f"read {TERMS_URL}, or use another account: colab-bridge auth use EMAIL",
    ),
    Verdict.UNAUTHENTICATED: (AuthError, "CB-COLAB-008", "Google refuses the sign-in", _LOGIN),
    Verdict.SCOPE: (
        AuthError,
        "CB-COLAB-009",
        "the sign-in does not allow Colab: a box was not ticked",
        f"{_LOGIN}, and leave all boxes ticked",
    ),
    Verdict.FORBIDDEN: (
        AuthError,
        "CB-COLAB-010",
        "this Colab service does not admit the sign-in's project",
        "use the other interface: colab-bridge config set runtimes.NAME.api v1; or: " + _LOGIN,
    ),
    Verdict.NOT_FOUND: (UserError, "CB-COLAB-011", "Colab does not know it", "see: colab-bridge ps --all"),
    Verdict.RATE_LIMITED: (TransientError, "CB-COLAB-012", "Colab asks for fewer requests", "try again in a minute"),
    Verdict.SERVER_ERROR: (TransientError, "CB-COLAB-013", "Colab's service failed", "try again in a minute"),
    Verdict.UNREACHABLE: (
        TransientError,
        "CB-COLAB-014",
        "Colab cannot be reached",
        "check this machine's network and HTTPS_PROXY: colab-bridge doctor",
    ),
    Verdict.UNCERTAIN: (
        TransientError,
        "CB-COLAB-015",
        "Colab did not answer",
        "try again; nothing is asked for twice. What runs is in: colab-bridge ps --all",
    ),
}


def to_error(failure: Failure, *, subject: str = "", hint: str = "") -> ColabBridgeError:
    """Say a failure to people.

    Args:
        failure: What went wrong.
        subject: What was wanted, such as ``A100``; put in front.
        hint: Replaces the usual next step.
    """
    kind, code, sentence, usual = _TEXTS[failure.verdict]
    said = f" ({failure.detail})" if failure.detail else ""
    message = f"{subject}: {sentence}{said}" if subject else f"{sentence}{said}"
    if kind is TransientError:
        return TransientError(message, hint=hint or usual, code=code, retry_after_s=failure.retry_after_s)
    return kind(message, hint=hint or usual, code=code)
