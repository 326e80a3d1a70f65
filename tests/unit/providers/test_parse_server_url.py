"""Addresses of Jupyter servers as people copy them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colab_bridge.errors import UserError
from colab_bridge.providers.jupyter import parse_server_url

ORIGINS = st.sampled_from(
    ["http://localhost:8888", "http://127.0.0.1:1", "https://hub.example.org", "https://[::1]:65535", "http://box"]
)
NAMES = st.text("abcdefgh0123456789_-%40", min_size=1, max_size=8).filter(lambda name: name not in ("hub", "user"))
PREFIXES = st.one_of(
    st.just(""),
    st.builds("/{}".format, NAMES),
    st.builds("/user/{}".format, NAMES),
    st.builds("/jupyter/user/{}/proxy/{}".format, NAMES, st.integers(1, 65535)),
)
PAGES = st.sampled_from(
    [
        "",
        "/",
        "/lab",
        "/lab/",
        "/tree",
        "/lab/tree/a/b.ipynb",
        "/notebooks/x.ipynb",
        "/lab/workspaces/auto-x",
        "/api",
        "/login",
    ]
)
TOKENS = st.text("abcdefABCDEF0123456789-_.", min_size=1, max_size=64)


@pytest.mark.parametrize(
    ("url", "base", "token"),
    [
        ("http://localhost:8888/?token=abc", "http://localhost:8888", "abc"),
        ("http://localhost:8888/lab?token=abc", "http://localhost:8888", "abc"),
        ("http://localhost:8888/tree?token=abc&redirects=1", "http://localhost:8888", "abc"),
        ("  http://localhost:8888/notebooks/my%20work/x.ipynb  ", "http://localhost:8888", None),
        ("https://hub.example.org/user/ann/lab", "https://hub.example.org/user/ann", None),
        ("https://hub.example.org/user/lab/lab/tree/x.ipynb", "https://hub.example.org/user/lab", None),
        ("https://hub.example.org/user/hub/tree", "https://hub.example.org/user/hub", None),
        ("https://hub.example.org/jupyter/user/ann/gpu/?token=t", "https://hub.example.org/jupyter/user/ann/gpu", "t"),
        ("https://host/user/na%40me/lab#frag", "https://host/user/na%40me", None),
        ("http://[::1]:8888/lab", "http://[::1]:8888", None),
        ("http://gateway:9999/api/kernels", "http://gateway:9999", None),
        ("http://host/?token=", "http://host", None),
    ],
)
def test_an_address_is_taken_apart_into_base_and_token(url: str, base: str, token: str | None) -> None:
    assert parse_server_url(url) == (base, token)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8888",
        "ftp://host/",
        "ws://host/",
        "http://",
        "http://host:99999/",
        "http://host:0/",
        "http://host:/",
        "http://host:x/",
        "http://[::1/",
        "http://ann:pw@host/",
        "http://host/a b",
        "http://host/\nlab",
        "http://host/../x",
        "http://höst/",
        "http://host/?token=a%0d%0aX-Evil:1",
    ],
)
def test_what_is_no_address_is_refused_with_a_hint(url: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_server_url(url)
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("path", ["/hub/user-redirect/lab", "/hub/home", "/hub"])
def test_an_address_of_the_hub_itself_is_answered_with_the_right_one(path: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_server_url(f"https://host/jupyter{path}")
    assert "https://host/jupyter/user/YOUR-NAME/" in caught.value.hint


@given(origin=ORIGINS, prefix=PREFIXES, page=PAGES, token=TOKENS)
def test_base_and_token_survive_any_page_that_is_copied(origin: str, prefix: str, page: str, token: str) -> None:
    assert parse_server_url(f"{origin}{prefix}{page}?token={token}") == (f"{origin}{prefix}", token)


@given(origin=ORIGINS, prefix=PREFIXES, page=PAGES)
def test_parsing_a_base_again_changes_nothing(origin: str, prefix: str, page: str) -> None:
    base, _ = parse_server_url(f"{origin}{prefix}{page}")
    assert parse_server_url(base) == (base, None)


@given(text=st.one_of(st.text(), st.text().map("http://{}".format), st.text().map("http://host/{}".format)))
def test_any_text_gives_a_usable_base_or_a_user_error(text: str) -> None:
    try:
        base, token = parse_server_url(text)
    except UserError:
        return
    assert base.startswith(("http://", "https://"))
    assert not base.endswith("/")
    assert "?" not in base and "#" not in base and "@" not in base.partition("://")[2].partition("/")[0]
    assert token is None or token.isprintable()
