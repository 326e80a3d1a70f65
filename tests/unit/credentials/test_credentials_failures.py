"""What refusals mean, and which box is missing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.credentials.failures import FailureKind, classify, failure_error, missing_error
from colab_bridge.credentials.grants import is_usable, needs_refresh, read_grant
from colab_bridge.credentials.scopes import box_names, missing_scopes, parse_scopes
from colab_bridge.errors import AuthError, ColabBridgeError, TransientError
from colab_bridge.model.credentials import (
    COLAB_SCOPES,
    DRIVE_SCOPES,
    SCOPE_COLAB,
    SCOPE_DRIVE_FILE,
    SCOPE_EMAIL,
    AccessToken,
)
from colab_bridge.model.runtime import Secret

ADA = "ada@example.org"


def body(error: str, **more: str) -> bytes:
    return json.dumps({"error": error, **more}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, body("invalid_grant"), FailureKind.REVOKED),
        (400, body("invalid_grant", error_subtype="invalid_rapt"), FailureKind.REAUTH),
        (401, body("invalid_client"), FailureKind.CLIENT),
        (400, body("unauthorized_client"), FailureKind.CLIENT),
        (401, b"", FailureKind.CLIENT),
        (400, body("invalid_scope"), FailureKind.SCOPE),
        (500, body("invalid_grant"), FailureKind.TEMPORARY),
        (503, b"<html>", FailureKind.TEMPORARY),
        (429, b"", FailureKind.TEMPORARY),
        (400, b"[]", FailureKind.TEMPORARY),
        (400, b"{" * 9000, FailureKind.TEMPORARY),
        (403, body("something_new"), FailureKind.TEMPORARY),
    ],
)
def test_a_refusal_of_a_refresh_is_told_apart(status: int, answer: bytes, kind: FailureKind) -> None:
    assert classify(status, answer).kind is kind


def test_a_code_that_is_used_up_does_not_count_as_a_revoked_sign_in() -> None:
    assert classify(400, body("invalid_grant"), exchange=True).kind is FailureKind.CODE


@given(st.integers(400, 599), st.binary(max_size=200) | st.builds(body, st.text(max_size=20)))
def test_only_the_words_for_it_end_a_sign_in(status: int, answer: bytes) -> None:
    if classify(status, answer).kind in (FailureKind.REVOKED, FailureKind.REAUTH):
        assert b"invalid_grant" in answer
        assert status < 500


def test_what_the_service_says_becomes_one_bounded_line() -> None:
    failure = classify(400, body("x", error_description="a\nb\x1b[31m" + "c" * 5000))
    assert "\n" not in failure.text
    assert "\x1b" not in failure.text
    assert len(failure.text) <= 200


@pytest.mark.parametrize("kind", FailureKind)
def test_every_refusal_ends_with_the_next_thing_to_do(kind: FailureKind) -> None:
    error = failure_error(classify(400, b"{}").__class__(kind=kind, status=400, text="why"), ADA)
    assert isinstance(error, ColabBridgeError)
    assert error.hint
    assert "\n" not in error.message + error.hint
    assert isinstance(error, TransientError) == (kind is FailureKind.TEMPORARY)


def test_a_revoked_sign_in_is_one_line_with_the_exact_command() -> None:
    error = failure_error(classify(400, body("invalid_grant")), ADA)
    assert error.message == f"the sign-in of {ADA} has expired or was revoked"
    assert error.hint == f"colab-bridge auth login --account {ADA}"


def test_the_box_that_is_missing_is_named() -> None:
    error = missing_error("", frozenset({SCOPE_COLAB}), source="login", fresh=True)
    assert "the box for Google Colab was not ticked" in error.message
    assert "colaboratory" in error.message


def test_for_drive_alone_the_command_asks_for_drive() -> None:
    error = missing_error(ADA, frozenset({SCOPE_DRIVE_FILE}), source="login")
    assert error.hint.startswith(f"colab-bridge auth login --account {ADA} --drive")
    assert error.code == "CB-AUTH-021"


def test_for_application_default_credentials_the_scopes_are_spelled_out() -> None:
    error = missing_error("", frozenset({SCOPE_COLAB}), source="adc")
    assert "gcloud auth application-default login --scopes=openid,https://www.googleapis.com/auth/cloud-platform" in (
        error.hint
    )
    assert SCOPE_COLAB in error.hint


def test_partial_consent_that_is_enough_misses_nothing() -> None:
    granted = parse_scopes(f"openid email {SCOPE_COLAB}")
    assert missing_scopes(granted, COLAB_SCOPES) == frozenset()
    assert missing_scopes(granted, DRIVE_SCOPES) == {SCOPE_DRIVE_FILE}


def test_the_whole_drive_includes_its_files() -> None:
    granted = parse_scopes(f"{SCOPE_COLAB} {SCOPE_EMAIL} https://www.googleapis.com/auth/drive")
    assert missing_scopes(granted, DRIVE_SCOPES) == frozenset()


def test_unknown_scopes_miss_nothing() -> None:
    assert missing_scopes(frozenset(), DRIVE_SCOPES) == frozenset()


@given(st.frozensets(st.sampled_from(sorted(DRIVE_SCOPES))), st.frozensets(st.sampled_from(sorted(DRIVE_SCOPES))))
def test_what_is_missing_was_wanted_and_not_granted(granted: frozenset[str], wanted: frozenset[str]) -> None:
    missing = missing_scopes(granted, wanted)
    assert missing == (wanted - granted if granted else frozenset())
    assert bool(box_names(missing)) == bool(missing)


@given(st.text() | st.none() | st.integers() | st.lists(st.text()))
def test_any_scope_member_is_read(value: object) -> None:
    assert len(parse_scopes(value)) <= 66


def test_a_grant_is_read_with_numbers_as_text_and_without_what_is_optional() -> None:
    grant = read_grant({"access_token": "ya29.x", "expires_in": "3599"})
    assert (grant.access.reveal(), grant.life_s, grant.scopes, grant.refresh) == ("ya29.x", 3599.0, frozenset(), None)


@pytest.mark.parametrize("answer", [{}, [], None, {"access_token": 5}, {"access_token": "a\nb"}, {"access_token": ""}])
def test_an_answer_without_a_token_is_a_change_of_the_protocol(answer: object) -> None:
    with pytest.raises(TransientError, match=r"protocol changed: token\.access_token"):
        read_grant(answer)


@given(
    st.dictionaries(
        st.sampled_from(["access_token", "expires_in", "scope", "refresh_token"]),
        st.none() | st.text(max_size=30) | st.floats() | st.booleans() | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_any_answer_is_a_grant_or_a_change_of_the_protocol(answer: dict[str, object]) -> None:
    try:
        grant = read_grant(answer)
    except TransientError:
        return
    assert grant.access.reveal() == answer["access_token"]
    assert grant.life_s is None or 0 < grant.life_s <= 86400


def token(value: str = "t", expires_at: float | None = 1000.0) -> AccessToken:
    return AccessToken(value=Secret(value), expires_at=expires_at)


@given(st.floats(0, 2000))
def test_a_token_is_renewed_five_minutes_ahead(now: float) -> None:
    assert needs_refresh(token(), now, None) == (1000.0 - now < 300)
    assert not needs_refresh(token(expires_at=None), now, None)


@given(st.floats(0, 2000))
def test_a_token_that_was_refused_is_never_used_again(now: float) -> None:
    assert needs_refresh(token(), now, token())
    assert not is_usable(token(), now, token())


@given(st.floats(0, 690))
def test_a_token_that_somebody_renewed_meanwhile_needs_no_refresh(now: float) -> None:
    assert not needs_refresh(token("new"), now, token("old"))


def test_the_errors_hold_no_secret() -> None:
    error = failure_error(classify(400, body("invalid_grant", refresh_token="1//secret")), ADA)
    assert isinstance(error, AuthError)
    assert "1//secret" not in repr(error.to_problem())
