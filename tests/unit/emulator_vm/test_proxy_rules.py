"""What the emulator's runtime proxy decides about one request."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.testing.colab.vm import proxy_rules as rules
from colab_bridge.testing.colab.vm.contracts import TokenVerdict

TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/api/kernels", "/api/kernels"),
        ("//api/kernels?x=1", "/api/kernels"),
        ("/api/contents/%2Fcontent%2Fa%20b.txt", "/api/contents/%2Fcontent%2Fa%20b.txt"),
        ("/api/contents/content//a", "/api/contents/content//a"),
        ("http://host:1/api?x=1", "/api"),
        ("http://host:1", "/"),
        ("*", "/*"),
        ("", "/"),
    ],
)
def test_a_path_keeps_its_encoding_and_has_one_slash_at_its_start(raw: str, path: str) -> None:
    assert rules.parse_target(raw).path == path


def test_the_server_behind_sees_only_the_parameters_that_are_for_it() -> None:
    own = "authuser=0&colab-runtime-proxy-token=t&token=t&colab-client-agent=web"
    target = rules.parse_target(f"/api/contents/a?content=0&{own}&type=file&empty=")
    assert target.upstream() == "/api/contents/a?content=0&type=file&empty="


@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_every_token_is_found_in_every_carrier(header: str, query: str, bearer: str, plain: str) -> None:
    headers = [(rules.TOKEN_HEADER, header), ("authorization", f"Bearer {bearer}"), ("authorization", "Basic x")]
    target = rules.parse_target(f"/a?colab-runtime-proxy-token={quote(query)}&token={quote(plain)}")
    assert rules.token_candidates(headers, target) == tuple(dict.fromkeys([header, query, bearer, plain]))


@given(st.lists(st.sampled_from(TokenVerdict), min_size=1, max_size=5), st.sampled_from([404, 401]))
def test_one_valid_token_lets_pass_and_without_one_the_answer_is_no_json(
    verdicts: list[TokenVerdict], status: int
) -> None:
    refused = rules.refusal(verdicts, status)
    if TokenVerdict.VALID in verdicts:
        assert refused is None
        return
    assert refused is not None
    assert refused[0] == (404 if TokenVerdict.UNASSIGNED in verdicts else status)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(refused[1])


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ([], False),
        ([("host", "127.0.0.1:5000")], False),
        ([("host", "localhost:5000")], True),
        ([("origin", "http://127.0.0.1:5000")], False),
        ([("origin", "http://127.0.0.1:5001")], True),
        ([("origin", "null")], True),
        ([("referer", "http://127.0.0.1:5000/some/page?x")], False),
        ([("host", "127.0.0.1:5000"), ("referer", "http://localhost:3000/")], True),
    ],
)
def test_a_page_of_another_origin_is_foreign(headers: list[tuple[str, str]], foreign: bool) -> None:
    assert rules.is_foreign(headers, "127.0.0.1:5000") is foreign


@given(TOKENS)
def test_the_server_behind_never_sees_the_proxys_token(token: str) -> None:
    headers = [
        (rules.TOKEN_HEADER, token),
        ("authorization", f"Bearer {token}"),
        ("connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
        ("x-own", "value"),
    ]
    sent = rules.forwarded_headers(headers, tokens=[token], added=[("host", "h")], replaced=frozenset({"origin"}))
    assert sent == [("transfer-encoding", "chunked"), ("x-own", "value"), ("host", "h")]


def test_another_authorization_passes_where_it_is_not_replaced() -> None:
    headers = [("authorization", "Bearer of-my-own-app"), ("origin", "x")]
    assert rules.forwarded_headers(headers, tokens=["t"], added=(), replaced=frozenset()) == headers


def test_guarded_json_is_json_behind_five_bytes() -> None:
    text = rules.guarded_json({"a": 1.5})
    assert text[:5] == b")]}'\n"
    assert json.loads(text[5:]) == {"a": 1.5}
