"""The HTTP parser and its little helpers, without sockets."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.client.http import (
    MAX_HEAD_BYTES,
    HttpProtocolError,
    LineSplitter,
    ResponseParser,
    quote,
    request_bytes,
)


def parse(data: bytes) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser()
    body = parser.feed(data)
    return parser, body


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def chunked(pieces: list[bytes]) -> bytes:
    coded = b"".join(f"{len(piece):X};x=1\r\n".encode() + piece + b"\r\n" for piece in pieces if piece)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + coded + b"0\r\nTrailer: 1\r\n\r\n"


@given(pieces=st.lists(st.binary(max_size=50), max_size=6), places=st.lists(st.integers(0, 500), max_size=8))
def test_a_chunked_body_is_the_same_however_it_arrives(pieces: list[bytes], places: list[int]) -> None:
    parser = ResponseParser()
    body = b"".join(parser.feed(part) for part in cut(chunked(pieces), places))
    assert (body, parser.done, parser.status) == (b"".join(pieces), True, 200)


@given(body=st.binary(max_size=100), places=st.lists(st.integers(0, 300), max_size=8))
def test_a_body_with_a_length_is_the_same_however_it_arrives(body: bytes, places: list[int]) -> None:
    data = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    parser = ResponseParser()
    assert b"".join(parser.feed(part) for part in cut(data, places)) == body
    assert parser.done


@given(data=st.binary(max_size=300))
def test_any_bytes_either_parse_or_raise_the_one_error(data: bytes) -> None:
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        parser = ResponseParser()
        try:
            parser.feed(prefix + data)
            parser.finish()
        except HttpProtocolError:
            pass


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser, body = parse(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert (body, parser.done) == (b"abc", False)
    parser.finish()
    assert parser.done


def test_an_answer_without_content_is_complete_at_once() -> None:
    assert parse(b"HTTP/1.1 204 No Content\r\n\r\n")[0].done


def test_an_interim_answer_is_skipped() -> None:
    parser, body = parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    assert (parser.status, body) == (200, b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * MAX_HEAD_BYTES,
    ],
)
def test_damaged_answers_are_refused(data: bytes) -> None:
    with pytest.raises(HttpProtocolError):
        parse(data)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", chunked([b"abc"])[:-2]])
def test_an_answer_that_ends_too_early_is_an_error(data: bytes) -> None:
    parser, _ = parse(data)
    with pytest.raises(HttpProtocolError):
        parser.finish()


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=6),
    places=st.lists(st.integers(0, 200)),
)
def test_lines_are_the_same_however_they_arrive(lines: list[bytes], places: list[int]) -> None:
    splitter = LineSplitter()
    found = [line for part in cut(b"".join(line + b"\n" for line in lines), places) for line in splitter.feed(part)]
    assert found == [line for line in lines if line.strip()]
    assert not splitter.pending


def test_a_line_beyond_the_limit_is_refused() -> None:
    splitter = LineSplitter(limit=10)
    with pytest.raises(HttpProtocolError):
        splitter.feed(b"x" * 11)


@given(text=st.text(max_size=30))
def test_no_name_can_leave_its_segment_of_the_path(text: str) -> None:
    assert not set(quote(text.encode("utf-8", "replace").decode())) & set("/?#& \r\n")


def test_a_request_carries_token_host_body_and_query() -> None:
    body = json.dumps({"a": 1}).encode()
    data = request_bytes(
        "POST", "/v1/runs", {"follow": True, "x": None, "q": "a b"}, host="127.0.0.1:9", token="T", body=body
    )
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/runs?follow=1&q=a%20b HTTP/1.1"
    assert {"Host: 127.0.0.1:9", "Authorization: Bearer T", "Content-Length: 8"} <= set(lines)
    assert rest == body


def test_a_path_that_would_end_the_request_line_is_refused() -> None:
    with pytest.raises(ValueError, match="not a request path"):
        request_bytes("GET", "/v1/x\r\nEvil: 1", {}, host="h", token="t")
