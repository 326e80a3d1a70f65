"""The question on Google's page and the answer to it."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.credentials.consent import AnswerKind, Question, read_pasted, read_redirect
from colab_bridge.credentials.redirect import answer_request
from colab_bridge.model.credentials import COLAB_SCOPES

STATE = "s" * 43
CODE = "4/0AbCdEf-gh_ijklmnop"
PORT = 40123


def question(**members: str) -> Question:
    return Question(client_id="me.apps", redirect_uri=f"http://127.0.0.1:{PORT}", scopes=COLAB_SCOPES, **members)


def asked(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def head(target: str, *, method: str = "GET", host: str = f"127.0.0.1:{PORT}") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x".encode()


def test_the_question_asks_for_a_code_with_pkce_and_for_offline_access() -> None:
    one = question()
    found = asked(one.url("https://accounts.google.com/o/oauth2/v2/auth"))
    digest = hashlib.sha256(one.verifier.encode()).digest()
    assert found["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert found["code_challenge_method"] == "S256"
    assert found["access_type"] == "offline"
    assert found["include_granted_scopes"] == "true"
    assert found["state"] == one.state
    assert set(found["scope"].split()) == COLAB_SCOPES
    assert "login_hint" not in found


def test_the_account_that_is_meant_goes_with_the_question() -> None:
    assert asked(question(login_hint="ada@example.org").url("https://x/"))["login_hint"] == "ada@example.org"


def test_each_question_has_a_state_and_a_verifier_of_its_own() -> None:
    one, other = question(), question()
    assert one.state != other.state
    assert one.verifier != other.verifier
    assert re.fullmatch(r"[A-Za-z0-9_-]{43,128}", one.verifier)


def test_what_is_secret_about_a_question_is_not_shown() -> None:
    one = question()
    assert one.verifier not in repr(one)
    assert one.state not in repr(one)


def test_the_code_of_our_own_question_is_taken() -> None:
    answer = read_redirect(urlencode({"state": STATE, "code": CODE, "scope": "x"}), STATE)
    assert (answer.kind, answer.code) == (AnswerKind.CODE, CODE)
    assert CODE not in repr(answer)


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        (f"state=other&code={CODE}", AnswerKind.FOREIGN),
        (f"code={CODE}", AnswerKind.FOREIGN),
        (f"state={STATE}&error=access_denied", AnswerKind.REFUSED),
        ("state=other&error=access_denied", AnswerKind.FOREIGN),
        (f"state={STATE}", AnswerKind.NONSENSE),
        (f"state={STATE}&state={STATE}&code={CODE}", AnswerKind.NONSENSE),
        (f"state={STATE}&code=a%20b%20c%20d%20e", AnswerKind.NONSENSE),
        ("&" * 1000, AnswerKind.NONSENSE),
        ("", AnswerKind.NONSENSE),
    ],
)
def test_no_other_answer_is_taken_for_a_code(query: str, kind: AnswerKind) -> None:
    assert read_redirect(query, STATE).kind is kind


@given(st.text(max_size=300))
def test_no_query_without_our_state_ends_the_wait(query: str) -> None:
    if STATE not in query:
        assert read_redirect(query, STATE).kind in (AnswerKind.FOREIGN, AnswerKind.NONSENSE)


@pytest.mark.parametrize(
    "text",
    [
        f"http://127.0.0.1:{PORT}/?state={STATE}&code={CODE}&scope=email",
        f"  'http://127.0.0.1:{PORT}/?state={STATE}&code={CODE}'  ",
        f"?state={STATE}&code={CODE}",
        CODE,
    ],
)
def test_a_pasted_address_and_a_pasted_code_are_read(text: str) -> None:
    answer = read_pasted(text, STATE)
    assert (answer.kind, answer.code) == (AnswerKind.CODE, CODE)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"http://127.0.0.1:{PORT}/?state=other&code={CODE}", AnswerKind.FOREIGN),
        ("http://127.0.0.1:1/", AnswerKind.NONSENSE),
        ("https://accounts.google.com/o/oauth2/v2/auth", AnswerKind.NONSENSE),
        ("yes", AnswerKind.NONSENSE),
        ("certainly", AnswerKind.NONSENSE),
        ("", AnswerKind.NONSENSE),
        ("http://[::1", AnswerKind.NONSENSE),
    ],
)
def test_other_pasted_text_is_not(text: str, kind: AnswerKind) -> None:
    assert read_pasted(text, STATE).kind is kind


@given(st.text(max_size=400))
def test_any_pasted_text_is_answered_without_an_exception(text: str) -> None:
    assert read_pasted(text, STATE).kind in AnswerKind


def test_the_browser_that_brings_the_code_sees_a_page_that_says_so() -> None:
    reply = answer_request(head(f"/?state={STATE}&code={CODE}"), PORT, STATE)
    assert reply.status == 200
    assert reply.answer is not None
    assert reply.answer.code == CODE
    assert "this window can be closed" in reply.body
    assert CODE not in reply.body


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("/favicon.ico"), 204),
        (head("/other"), 404),
        (head(f"/?state={STATE}&code={CODE}", method="POST"), 405),
        (head("/", method="HEAD"), 405),
        (head(f"/?state=wrong&code={CODE}"), 400),
        (head(f"/?state={STATE}&code={CODE}", host="evil.example"), 400),
        (head(f"/?state={STATE}&code={CODE}", host="127.0.0.1:1"), 400),
        (b"GET /?x HTTP/1.1", 400),
        (b"nonsense", 400),
        (b"", 400),
    ],
)
def test_nothing_else_is_taken_for_the_answer(request_head: bytes, status: int) -> None:
    reply = answer_request(request_head, PORT, STATE)
    assert reply.status == status
    assert reply.answer is None


@given(st.binary(max_size=500))
def test_any_bytes_from_the_browser_are_answered(data: bytes) -> None:
    reply = answer_request(data, PORT, STATE)
    assert reply.answer is None
    assert reply.to_bytes().startswith(b"HTTP/1.1 ")
