"""What Drive's answers mean. Pure.

Source: Drive API v3, "Resolve errors"; ``google.rpc`` error details in its JSON bodies.
"""

from __future__ import annotations

import json
from typing import Any, Final

from colab_bridge.errors import AuthError, ColabBridgeError, QuotaError, TransientError, UserError

__all__ = ["error_of", "reasons_of", "worth_a_retry"]

_SLOW_DOWN: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"})
_NOT_ENABLED: Final = frozenset({"accessNotConfigured", "SERVICE_DISABLED"})
_NO_SCOPE: Final = frozenset({"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"})
_NO_PROJECT: Final = frozenset({"USER_PROJECT_DENIED", "CONSUMER_INVALID"})
_MAX_DETAIL: Final = 200


def reasons_of(body: bytes) -> frozenset[str]:
    """Return every reason that an error body names; none for a body that is no such thing."""
    error = _error(body)
    found: set[object] = {entry.get("reason") for entry in _objects(error.get("errors"))}
    found |= {entry.get("reason") for entry in _objects(error.get("details"))}
    return frozenset(reason for reason in found if isinstance(reason, str))


def worth_a_retry(status: int, reasons: frozenset[str]) -> bool:
    """Whether the same call may succeed a little later."""
    return status in (408, 429) or status >= 500 or (status == 403 and bool(reasons & _SLOW_DOWN))


def error_of(status: int, body: bytes, *, doing: str) -> ColabBridgeError:
    """Say in our own errors why a call to Drive failed.

    Args:
        status: HTTP status.
        body: Body of the answer; hostile.
        doing: What was tried, such as ``upload of analysis.ipynb``.
    """
    reasons = reasons_of(body)
    if status == 401:
        return AuthError(f"Google refused the sign-in ({doing})", hint="colab-bridge auth login", code="CB-DRIVE-001")
    if worth_a_retry(status, reasons):
        return TransientError(
            f"Google Drive did not take the {doing} (status {status})", hint="try again", code="CB-DRIVE-002"
        )
    if reasons & _NO_SCOPE:
        return AuthError(
            f"the sign-in does not include Drive ({doing})",
            hint="colab-bridge auth login --drive",
            code="CB-DRIVE-003",
        )
    if reasons & _NOT_ENABLED:
        return UserError(
            "the Google Drive API is not enabled in the project of your OAuth client",
            hint="enable it at https://console.cloud.google.com/apis/library/drive.googleapis.com",
            code="CB-DRIVE-004",
        )
    if reasons & _NO_PROJECT:
        return UserError(
            "Drive needs a quota project for this kind of sign-in",
            hint="gcloud auth application-default set-quota-project PROJECT",
            code="CB-DRIVE-005",
        )
    if "storageQuotaExceeded" in reasons:
        return QuotaError("there is no room left in Google Drive", hint="free some space there", code="CB-DRIVE-006")
    detail = _one_line(_error(body).get("message"))
    return UserError(
        f"Google Drive refused the {doing} (status {status}{f': {detail}' if detail else ''})",
        hint="colab-bridge whoami shows the account in use",
        code="CB-DRIVE-007",
    )


def _error(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _one_line(value: object) -> str:
    text = " ".join(str(value or "").split())[:_MAX_DETAIL]
    return "".join(letter for letter in text if letter.isprintable())
