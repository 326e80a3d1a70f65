"""What refusals of Colab's control plane mean."""

from __future__ import annotations

import json

import pytest

from colab_bridge.errors import AuthError, ColabBridgeError, QuotaError, TransientError, UserError
from colab_bridge.providers.colab.classify import Failure, Verdict, of_operation, of_outcome, of_status, to_error
from colab_bridge.providers.colab.foreign import parse_document

SCOPE = json.dumps(
    [
        7,
        "Request had insufficient authentication scopes.",
        [["type.googleapis.com/google.rpc.DebugInfo", [[], "x SCOPE_NOT_PERMITTED x"]]],
    ]
).encode()
SERVICE_DISABLED = json.dumps(
    {"error": {"code": 403, "message": "Colab API has not been used", "details": [{"reason": "SERVICE_DISABLED"}]}}
).encode()


@pytest.mark.parametrize(
    ("status", "body", "creating", "accelerator", "verdict"),
    [
        (412, b"", True, True, Verdict.TOO_MANY),
        (412, b"", False, False, Verdict.BAD_REQUEST),
        (503, b"", True, True, Verdict.CAPACITY),
        (503, b"", False, False, Verdict.SERVER_ERROR),
        (400, b"", True, True, Verdict.NOT_ENTITLED),
        (400, b"", True, False, Verdict.BAD_REQUEST),
        (400, b"", False, False, Verdict.BAD_REQUEST),
        (401, b"", True, True, Verdict.UNAUTHENTICATED),
        (403, SCOPE, False, False, Verdict.SCOPE),
        (403, b")]}'\n" + SCOPE, True, True, Verdict.SCOPE),
        (403, SERVICE_DISABLED, False, False, Verdict.FORBIDDEN),
        (403, b"", False, False, Verdict.FORBIDDEN),
        (404, b"", False, False, Verdict.NOT_FOUND),
        (408, b"", False, False, Verdict.SERVER_ERROR),
        (409, b"", True, False, Verdict.UNCERTAIN),
        (429, b"", False, False, Verdict.RATE_LIMITED),
        (500, b"<html>", True, True, Verdict.SERVER_ERROR),
        (502, b"", False, False, Verdict.SERVER_ERROR),
        (302, b"", False, False, Verdict.BAD_REQUEST),
    ],
)
def test_each_status_has_one_meaning(
    status: int, body: bytes, creating: bool, accelerator: bool, verdict: Verdict
) -> None:
    assert of_status(status, body, call="x", creating=creating, accelerator=accelerator).verdict is verdict


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (None, None),
        (0, None),
        (4, None),
        (1, Verdict.QUOTA_KIND),
        (2, Verdict.QUOTA_TIME),
        (3, Verdict.QUOTA_TIME),
        (5, Verdict.DENYLISTED),
        (6, None),
    ],
)
def test_each_outcome_has_one_meaning(outcome: int | None, verdict: Verdict | None) -> None:
    found = of_outcome(outcome, "assign")
    assert (found.verdict if found else None) is verdict


@pytest.mark.parametrize(
    ("code", "reason", "accelerator", "verdict"),
    [
        (9, "TOO_MANY_ACTIVE_RUNTIMES", True, Verdict.TOO_MANY),
        (8, "QUOTA_EXCEEDED_USAGE_TIME", True, Verdict.QUOTA_TIME),
        (7, "DENYLISTED", True, Verdict.DENYLISTED),
        (9, "ACCELERATOR_UNAVAILABLE", True, Verdict.CAPACITY),
        (9, "SOMETHING", False, Verdict.BAD_REQUEST),
        (3, "", True, Verdict.NOT_ENTITLED),
        (14, "", False, Verdict.CAPACITY),
        (13, "", True, Verdict.SERVER_ERROR),
    ],
)
def test_each_error_of_an_operation_has_one_meaning(
    code: int, reason: str, accelerator: bool, verdict: Verdict
) -> None:
    error = {"code": code, "message": "m", "details": [{"@type": "t"}, {"reason": reason}]}
    found = of_operation(parse_document("op", json.dumps(error).encode()), call="create", accelerator=accelerator)
    assert (found.verdict, found.detail) == (verdict, "m")


def test_what_a_service_asks_for_and_says_is_kept_and_a_page_is_not() -> None:
    assert of_status(429, b"", call="x", retry_after="7").retry_after_s == 7
    assert of_status(429, b"", call="x", retry_after="Wed, 21 Oct").retry_after_s is None
    assert of_status(403, SERVICE_DISABLED, call="x").detail == "Colab API has not been used"
    assert of_status(403, SCOPE, call="x").detail == "Request had insufficient authentication scopes."
    assert of_status(500, b"<html>secret page</html>", call="x").detail == ""


CLASSES: dict[Verdict, type[ColabBridgeError]] = {
    Verdict.CAPACITY: QuotaError,
    Verdict.TOO_MANY: QuotaError,
    Verdict.NOT_ENTITLED: UserError,
    Verdict.BAD_REQUEST: UserError,
    Verdict.QUOTA_KIND: QuotaError,
    Verdict.QUOTA_TIME: QuotaError,
    Verdict.DENYLISTED: AuthError,
    Verdict.UNAUTHENTICATED: AuthError,
    Verdict.SCOPE: AuthError,
    Verdict.FORBIDDEN: AuthError,
    Verdict.NOT_FOUND: UserError,
    Verdict.RATE_LIMITED: TransientError,
    Verdict.SERVER_ERROR: TransientError,
    Verdict.UNREACHABLE: TransientError,
    Verdict.UNCERTAIN: TransientError,
}


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_refusal_is_short_has_a_code_of_its_own_and_ends_with_what_to_do(verdict: Verdict) -> None:
    error = to_error(Failure(verdict=verdict, detail="d" * 150), subject="A100")

    assert type(error) is CLASSES[verdict]
    assert "\n" not in error.message + error.hint
    assert error.hint
    assert error.code.startswith("CB-COLAB-0")
    codes = {to_error(Failure(verdict=each)).code for each in Verdict}
    assert len(codes) == len(Verdict)
