"""Clock, faults, tokens, record, routes, sign-ins and Drive's little languages."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.drive_query import BadQueryError, matcher, select
from colab_bridge.testing.colab.drive_upload import (
    CHUNK_BYTES,
    Upload,
    content_range,
    multipart_related,
)
from colab_bridge.testing.colab.faults import Fault, Switchboard, drifted
from colab_bridge.testing.colab.http import Route
from colab_bridge.testing.colab.identity import SCOPE_COLAB, SCOPE_EMAIL, Code, Identity, normal_scopes
from colab_bridge.testing.colab.record import Recorder, masked_headers, masked_query
from colab_bridge.testing.colab.refused import RefusedValueError
from colab_bridge.testing.colab.service_account import jwt_claims, new_key_file
from colab_bridge.testing.colab.tokens import ProxyTokens
from colab_bridge.testing.colab.vm.contracts import TokenVerdict


class HeldClock(EmulatorClock):
    """Does not run by itself."""

    def time(self) -> float:
        return 1_800_000_000.0 + self.offset_s


# -- clock


def test_the_clock_only_goes_forward_and_tells_each_jump() -> None:
    clock, heard = HeldClock(), []
    unsubscribe = clock.subscribe(lambda: heard.append(clock.offset_s))
    clock.advance(10)
    clock.advance(0.5)
    unsubscribe()
    clock.advance(1)
    assert heard == [10, 10.5]
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    assert clock.time() == 1_800_000_011.5


# -- faults


def test_a_fault_hits_as_often_as_it_says_after_those_it_skips() -> None:
    board = Switchboard()
    board.add(kind="status", method="POST", path="/tun/m/*", skip=1, count=2)
    hits = [len(board.take("colab", "POST", "/tun/m/assign")) for _ in range(5)]
    assert hits == [0, 1, 1, 0, 0]
    assert board.pending() == []


def test_a_fault_hits_only_what_it_names() -> None:
    board = Switchboard()
    board.add(kind="status", service="gapi", method="GET", path="/v1/assignments", count=None)
    asked = [
        ("gapi", "GET", "/v1/assignments"),
        ("colab", "GET", "/v1/assignments"),
        ("gapi", "POST", "/v1/assignments"),
    ]
    assert [len(board.take(*each)) for each in asked] == [1, 0, 0]


def test_a_fault_may_be_meant_for_one_runtime() -> None:
    board = Switchboard()
    board.add(kind="close", endpoint="gpu-*", count=None)
    assert board.take("data", "GET", "/api", endpoint="gpu-1") != []
    assert board.take("data", "GET", "/api", endpoint="m-1") == []
    assert board.take("colab", "GET", "/tun/m/gpu-1/keep-alive/") != []
    assert board.take("colab", "GET", "/tun/m/assignments") == []


def test_a_fault_is_cleared_by_its_id_and_all_without_one() -> None:
    board = Switchboard()
    first, second = board.add(kind="hang"), board.add(kind="close")
    board.clear(first)
    assert [entry.id for entry in board.pending()] == [second]
    board.clear()
    assert board.pending() == []


def test_a_drifted_answer_has_other_members_and_the_original_is_kept() -> None:
    document = {"assignments": [{"variant": 1, "accelerator": "T4"}, {"variant": 0, "accelerator": "NONE"}]}
    fault = Fault(
        kind="drift",
        set={"assignments.0.variant": 9, "assignments.*.news": True, "more.deep": 1},
        remove=("assignments.1.accelerator", "nothing.here"),
    )
    assert drifted(document, fault) == {
        "assignments": [{"variant": 9, "accelerator": "T4", "news": True}, {"variant": 0, "news": True}]
    }
    assert document["assignments"][0]["variant"] == 1


# -- tokens


def test_a_token_is_good_for_one_endpoint_one_port_and_its_life() -> None:
    clock = HeldClock()
    tokens = ProxyTokens(clock, 60)
    token = tokens.mint("e", 8080)
    assert tokens.check("e", 8080, token.value) is TokenVerdict.VALID
    assert tokens.check("e", 7860, token.value) is TokenVerdict.WRONG
    assert tokens.check("f", 8080, token.value) is TokenVerdict.WRONG
    clock.advance(59)
    assert tokens.check("e", 8080, token.value) is TokenVerdict.VALID
    clock.advance(1)
    assert tokens.check("e", 8080, token.value) is TokenVerdict.EXPIRED


def test_tokens_look_like_those_of_production_and_no_two_are_alike() -> None:
    tokens = ProxyTokens(HeldClock(), 3600)
    one, two = tokens.mint("gpu-t4-s-x", 8080), tokens.mint("gpu-t4-s-x", 8080)
    assert one.value != two.value
    claims = json.loads(base64.urlsafe_b64decode(one.value.split(".")[1] + "=="))
    assert claims == {"aud": "gpu-t4-s-x", "exp": 1_800_003_600, "port": 8080}
    assert (one.ttl_s, one.expires_at) == (3600, 1_800_003_600)


def test_expiring_all_tokens_spares_those_of_later() -> None:
    tokens = ProxyTokens(HeldClock(), 60)
    before = tokens.mint("e", 8080)
    tokens.expire_all()
    assert tokens.check("e", 8080, before.value) is TokenVerdict.EXPIRED
    assert tokens.check("e", 8080, tokens.mint("e", 8080).value) is TokenVerdict.VALID


@given(junk=st.text(max_size=60), place=st.integers(0, 200))
def test_no_other_text_is_a_token(junk: str, place: int) -> None:
    tokens = ProxyTokens(HeldClock(), 60)
    good = tokens.mint("e", 8080).value
    changed = good[:place] + junk + good[place:]
    expected = TokenVerdict.VALID if changed == good else TokenVerdict.WRONG
    assert tokens.check("e", 8080, changed) is expected
    assert tokens.check("e", 8080, junk) is TokenVerdict.WRONG


# -- record


def test_secrets_are_fingerprints_in_the_record_and_equal_ones_stay_equal() -> None:
    headers = masked_headers({"Authorization": "Bearer abc", "X-Colab-Client-Agent": "me"})
    assert headers["x-colab-client-agent"] == "me"
    assert headers["authorization"].startswith("Bearer sha256:")
    assert "abc" not in str(headers)
    query = dict(masked_query([("access_token", "abc"), ("nbh", "n")]))
    assert headers["authorization"].removeprefix("Bearer ") == query["access_token"]
    assert query["nbh"] == "n"


def test_a_violation_names_its_request_and_what_was_expected() -> None:
    recorder = Recorder(HeldClock())
    recorder.request("colab", "GET", "/a")
    record = recorder.request("gapi", "POST", "/b")
    recorder.violation(record, "no header", "a header")
    assert str(recorder.violations[0]) == "gapi POST /b: no header; expected a header"
    assert recorder.violations[0].request == 2


# -- routes


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("/tun/m/assign", "/tun/m/assign", {}),
        ("/tun/m/assign", "/tun/m/assign/", None),
        ("/tun/m/{endpoint}/keep-alive/", "/tun/m/e-1/keep-alive/", {"endpoint": "e-1"}),
        ("/tun/m/{endpoint}/keep-alive/", "/tun/m/e-1/keep-alive", None),
        ("/tun/m/{endpoint}/keep-alive/", "/tun/m//keep-alive/", None),
        ("/v1beta/runtimes/{id}", "/v1beta/runtimes/a/b", None),
    ],
)
def test_a_path_is_matched_exactly(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    async def nothing(_call: Any) -> Any: ...

    assert Route(method="GET", path=pattern, handler=nothing).match(path) == parts


# -- sign-ins


def a_code(**changes: Any) -> Code:
    members = {
        "client_id": "c",
        "redirect_uri": "http://127.0.0.1:1",
        "account": "a@example.com",
        "scopes": frozenset({SCOPE_COLAB}),
        # RFC 7636, appendix B
        "challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "offline": True,
        "expires_at": 1_800_000_600.0,
    }
    return Code(**members | changes)


VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"


@pytest.mark.parametrize(
    ("changes", "advance_s"),
    [
        ({"verifier": "x" * 43}, 0),
        ({"verifier": ""}, 0),
        ({"redirect_uri": "http://127.0.0.1:2"}, 0),
        ({"client_id": "d"}, 0),
        ({}, 601),
    ],
)
def test_a_code_is_only_for_who_asked_for_it(changes: dict[str, str], advance_s: float) -> None:
    clock = HeldClock()
    identity = Identity(clock, 3599)
    value = identity.code(a_code())
    clock.advance(advance_s)
    said = {"client_id": "c", "redirect_uri": "http://127.0.0.1:1", "verifier": VERIFIER} | changes
    assert identity.redeem(value, **said) is None


def test_a_code_works_once() -> None:
    identity = Identity(HeldClock(), 3599)
    value = identity.code(a_code())
    said = {"client_id": "c", "redirect_uri": "http://127.0.0.1:1", "verifier": VERIFIER}
    assert identity.redeem(value, **said) is not None
    assert identity.redeem(value, **said) is None


def test_revoking_any_token_ends_the_whole_consent() -> None:
    identity = Identity(HeldClock(), 3599)
    refresh = identity.refresh_token(client_id="c", account="a@example.com", scopes=frozenset())
    one = identity.access_token(account="a@example.com", refresh=refresh.value)
    two = identity.access_token(account="a@example.com", refresh=refresh.value)
    other = identity.access_token(account="b@example.com")
    assert identity.revoke(one.value)
    assert identity.valid(two.value) is None
    assert refresh.broken == ("invalid_grant", "")
    assert identity.valid(other.value) is other
    assert not identity.revoke("unknown")


def test_short_scope_names_are_the_long_ones() -> None:
    assert normal_scopes("email  openid") == {SCOPE_EMAIL, "openid"}


def test_only_the_issuer_can_sign() -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    file, public = new_key_file("robot@example.com", "http://127.0.0.1:1/token")
    signed = f"{part({'alg': 'RS256'})}.{part({'iss': 'robot@example.com'})}"
    key = serialization.load_pem_private_key(file["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    token = f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    keys = {"robot@example.com": public}
    assert jwt_claims(token, keys) == {"iss": "robot@example.com"}
    assert jwt_claims(token, {"other@example.com": public}) is None
    assert jwt_claims(token, {"robot@example.com": new_key_file("x", "y")[1]}) is None
    assert jwt_claims(f"{part({'alg': 'none'})}.{part({'iss': 'robot@example.com'})}.", keys) is None
    assert jwt_claims("a.b.c", keys) is None


# -- Drive

FILE = {
    "name": "Report final.csv",
    "parents": ["p1"],
    "trashed": False,
    "mimeType": "text/csv",
    "modifiedTime": "2026-02-01T00:00:00.000Z",
    "appProperties": {"run": "it's 1"},
    "properties": {},
}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("name = 'Report final.csv'", True),
        ("name='other'", False),
        ("name contains 'fin'", True),
        ("name contains 'inal'", False),
        ("'p1' in parents and trashed = false", True),
        ("'p2' in parents and trashed=false", False),
        ("trashed != false", False),
        ("mimeType != 'application/vnd.google-apps.folder'", True),
        ("modifiedTime > '2026-01-01T00:00:00.000Z' and modifiedTime <= '2026-03-01'", True),
        (r"appProperties has { key='run' and value='it\'s 1' }", True),
        ("properties has { key='run' and value='1' }", False),
    ],
)
def test_a_search_finds_what_it_describes(query: str, found: bool) -> None:
    assert matcher(query)(FILE) is found


@pytest.mark.parametrize(
    "query",
    ["name", "name == 'a'", "name > 'a'", "fullText contains 'a'", "trashed = false or name = 'a'", "name = 'a"],
)
def test_a_search_that_is_not_understood_is_refused(query: str) -> None:
    with pytest.raises(BadQueryError):
        matcher(query)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("*", {"a": 1, "b": [{"c": 2, "d": 3}], "e": {"f": {"g": 4}}}),
        ("a", {"a": 1}),
        ("b(c)", {"b": [{"c": 2}]}),
        ("b/d,e/f", {"b": [{"d": 3}], "e": {"f": {"g": 4}}}),
        ("e(f(g)),zzz", {"e": {"f": {"g": 4}}}),
    ],
)
def test_a_field_mask_selects(mask: str, expected: dict[str, Any]) -> None:
    assert select({"a": 1, "b": [{"c": 2, "d": 3}], "e": {"f": {"g": 4}}}, mask) == expected


@pytest.mark.parametrize("mask", ["a(", "a)", "a,,b", "a(b", "(a)", "a b"])
def test_a_malformed_field_mask_is_refused(mask: str) -> None:
    with pytest.raises(BadQueryError):
        select({}, mask)


def an_upload(total: int | None = None) -> Upload:
    return Upload(metadata={}, file_id="", mime_type="", total=total, account="a@example.com", app="c", expires_at=0.0)


@given(size=st.integers(1, 5), tail=st.integers(0, 1000))
def test_chunks_of_the_right_size_make_the_file_again(size: int, tail: int) -> None:
    content = bytes(range(256)) * (CHUNK_BYTES * size // 256) + b"x" * tail
    upload, at, done = an_upload(), 0, False
    while not done:
        data = content[at : at + CHUNK_BYTES]
        last = at + len(data) == len(content)
        total = len(content) if last else "*"
        done = upload.take(content_range(f"bytes {at}-{at + len(data) - 1}/{total}", len(data)), data)
        at += len(data)
    assert bytes(upload.content) == content


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ("bytes 0-99/1000000", b"x" * 100),
        (f"bytes 1-{CHUNK_BYTES}/1000000", b"x" * CHUNK_BYTES),
        (f"bytes 0-{CHUNK_BYTES}/1000000", b"x" * CHUNK_BYTES),
        ("bytes 0-99/50", b"x" * 100),
        ("bytes 0-99/2000000", b"x" * 100),
        ("bytes */1000000", b"x"),
        ("bytes 5-1/10", b"x"),
        ("0-1/10", b"xx"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused(header: str, data: bytes) -> None:
    with pytest.raises(RefusedValueError) as caught:
        an_upload(1_000_000).take(content_range(header, len(data)), data)
    assert caught.value.expected


@given(content=st.binary(max_size=500))
def test_a_file_sent_with_its_description_arrives_byte_by_byte(content: bytes) -> None:
    body = (
        b'--b1\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{"name":"a"}\r\n'
        b"--b1\r\nContent-Type: image/png\r\n\r\n" + content + b"\r\n--b1--\r\n"
    )
    if b"\r\n--b1" in content:
        return
    parts = multipart_related('multipart/related; boundary="b1"', body)
    assert parts == (b'{"name":"a"}', "image/png", content)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=b", b""),
        ("multipart/related", b""),
        ("multipart/related; boundary=b", b"--b\r\n\r\n{}\r\n--b--"),
        ("multipart/related; boundary=b", b"--b\r\n\r\n{}\r\n--b\r\nno blank line\r\n--b--"),
    ],
)
def test_a_malformed_multipart_body_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(RefusedValueError):
        multipart_related(kind, body)
