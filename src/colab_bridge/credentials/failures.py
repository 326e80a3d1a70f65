"""What the sign-in service means when it refuses, and what the user can do about it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from colab_bridge.credentials.scopes import box_names, short_scope
from colab_bridge.errors import AuthError, ColabBridgeError, TransientError
from colab_bridge.model.credentials import SCOPE_DRIVE_FILE

__all__ = [
    "Failure",
    "FailureKind",
    "adc_error",
    "classify",
    "ended_error",
    "failure_error",
    "missing_error",
    "nobody_error",
    "unknown_account_error",
]

LOGIN: Final = "colab-bridge auth login"
_MAX_TEXT: Final = 200


class FailureKind(StrEnum):
    """Why a token was refused."""

    REVOKED = "revoked"
    REAUTH = "reauth"
    CLIENT = "client"
    SCOPE = "scope"
    CODE = "code"
    TEMPORARY = "temporary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A refusal.

    Attributes:
        kind: What it amounts to.
        status: HTTP status.
        text: What the service said, one bounded line without control characters; may be empty.
    """

    kind: FailureKind
    status: int
    text: str = ""


# Source: RFC 6749, 5.2 (errors of the token endpoint); Google's documentation of `invalid_rapt`, which a policy of
# a Workspace domain causes that asks again after some hours.
_CLIENT_ERRORS: Final = frozenset(
    {"invalid_client", "unauthorized_client", "deleted_client", "disabled_client", "redirect_uri_mismatch"}
)
_KINDS: Final = {"invalid_grant": FailureKind.REVOKED, "invalid_scope": FailureKind.SCOPE}


def classify(status: int, body: bytes, *, exchange: bool = False) -> Failure:
    """Tell what a refusal of the token endpoint means.

    Args:
        status: HTTP status, not a 2xx.
        body: Whatever was sent with it.
        exchange: Whether a code was exchanged, and not a sign-in refreshed: ``invalid_grant`` then says that the code
            is used up or wrong.
    """
    members = _members(body)
    name = members.get("error")
    error = name if isinstance(name, str) else ""
    text = _line(members.get("error_description")) or _line(error)
    if status == 429 or status >= 500:
        return Failure(kind=FailureKind.TEMPORARY, status=status, text=text)
    if error == "invalid_grant" and members.get("error_subtype") == "invalid_rapt":
        return Failure(kind=FailureKind.REAUTH, status=status, text=text)
    if error == "invalid_grant" and exchange:
        return Failure(kind=FailureKind.CODE, status=status, text=text)
    if error in _CLIENT_ERRORS or (status == 401 and error not in _KINDS):
        return Failure(kind=FailureKind.CLIENT, status=status, text=text)
    # Anything else that is not ours to understand must not end a sign-in that may be sound.
    return Failure(kind=_KINDS.get(error, FailureKind.TEMPORARY), status=status, text=text)


def _members(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _line(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return " ".join("".join(c if c.isprintable() else " " for c in value[:_MAX_TEXT]).split())


def login_command(account: str) -> str:
    """Return the command that signs an account in again."""
    return f"{LOGIN} --account {account}" if account else LOGIN


def failure_error(failure: Failure, account: str) -> ColabBridgeError:
    """Return the error for a refusal.

    Args:
        failure: What was refused.
        account: Whose sign-in it was; empty when a new one was being made.
    """
    said = f" ({failure.text})" if failure.text else ""
    if failure.kind in (FailureKind.REVOKED, FailureKind.REAUTH):
        return ended_error(account, failure.kind)
    if failure.kind is FailureKind.CLIENT:
        return AuthError(
            f"Google does not accept this OAuth client{said}",
            hint=f"is it of type Desktop and does it still exist? then: {LOGIN} --client FILE",
            code="CB-AUTH-018",
        )
    if failure.kind is FailureKind.SCOPE:
        return AuthError(
            f"Google does not grant this sign-in what was asked for{said}",
            hint=login_command(account),
            code="CB-AUTH-013",
        )
    if failure.kind is FailureKind.CODE:
        return AuthError(f"Google did not accept the code{said}", hint=f"try again: {LOGIN}", code="CB-AUTH-016")
    return TransientError(
        f"Google's sign-in service answered with status {failure.status}{said}",
        hint="try again in a minute",
        code="CB-TRANSIENT-AUTH",
    )


def ended_error(account: str, kind: str) -> AuthError:
    """Return the error for a sign-in that has ended.

    Args:
        account: Whose it was.
        kind: Value of :class:`FailureKind`.
    """
    whose = f" of {account}" if account else ""
    if kind == FailureKind.REAUTH:
        return AuthError(
            f"the policy of your organisation asks for a new sign-in{whose}",
            hint=login_command(account),
            code="CB-AUTH-012",
        )
    return AuthError(f"the sign-in{whose} has expired or was revoked", hint=login_command(account), code="CB-AUTH-011")


def nobody_error() -> AuthError:
    """Return the error for when there is nothing to sign in with."""
    return AuthError("nobody is signed in to Google", hint=LOGIN, code="CB-AUTH-010")


def unknown_account_error(account: str, known: Iterable[str]) -> AuthError:
    """Return the error for an account that was asked for and is not signed in."""
    names = ", ".join(sorted(known)) or "nobody"
    return AuthError(
        f"{account[:80]} is not signed in (signed in: {names})", hint=login_command(account[:80]), code="CB-AUTH-015"
    )


def adc_error(reason: str) -> AuthError:
    """Return the error for Application Default Credentials that give no token."""
    return AuthError(
        f"not signed in, and the Application Default Credentials give no token: {_line(reason)}",
        hint=f"{LOGIN}, or: gcloud auth application-default login --scopes={ADC_SCOPES}",
        code="CB-AUTH-019",
    )


def missing_error(account: str, missing: frozenset[str], *, source: str, fresh: bool = False) -> AuthError:
    """Return the error for a token that lacks a scope.

    Args:
        account: Whose it is; empty when unknown.
        missing: What it lacks, not empty.
        source: Where the token came from: ``login``, ``adc`` or ``given``.
        fresh: Whether the consent page has just been filled in.
    """
    boxes = box_names(missing)
    scopes = ", ".join(short_scope(scope) for scope in sorted(missing))
    if source == "login":
        drive = " --drive" if missing == {SCOPE_DRIVE_FILE} else ""
        message = (
            f"the box for {boxes} was not ticked on Google's page (scope {scopes})"
            if fresh
            else f"{account or 'this sign-in'} has not allowed {boxes} (scope {scopes})"
        )
        hint = f"{login_command(account)}{drive}, and tick it" + (" this time" if fresh else "")
        return AuthError(message, hint=hint, code="CB-AUTH-021" if drive else "CB-AUTH-013")
    if source == "adc":
        return AuthError(
            f"not signed in, and the Application Default Credentials lack {boxes} (scope {scopes})",
            hint=f"{LOGIN}, or: gcloud auth application-default login --scopes={ADC_SCOPES}",
            code="CB-AUTH-013",
        )
    return AuthError(
        f"the token in COLAB_BRIDGE_ACCESS_TOKEN lacks {boxes} (scope {scopes})",
        hint="give one with that scope, or unset the variable and sign in: colab-bridge auth login",
        code="CB-AUTH-013",
    )


#: What `gcloud` must ask for; it insists on cloud-platform.
ADC_SCOPES: Final = ",".join(
    [
        "openid",
        *(
            f"https://www.googleapis.com/auth/{name}"
            for name in ("cloud-platform", "userinfo.email", "colaboratory", "drive.file")
        ),
    ]
)
