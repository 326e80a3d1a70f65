"""Addresses of Google's services, and what may replace them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.config.services import SERVICE_VARIABLES, ServiceUrls, require_same_services, service_urls
from colab_bridge.errors import UserError


def test_without_variables_the_services_are_googles_own() -> None:
    urls = service_urls({"COLAB_BRIDGE_COLAB_URL": " "})

    assert urls == ServiceUrls()
    assert urls.auth_uri == "https://accounts.google.com/o/oauth2/v2/auth"
    assert urls.token_uri == "https://oauth2.googleapis.com/token"
    assert urls.userinfo_uri == "https://www.googleapis.com/oauth2/v2/userinfo"


def test_each_variable_replaces_its_service_and_a_slash_at_the_end_is_no_matter() -> None:
    environ = {name: f"http://127.0.0.1:{port}/" for port, name in enumerate(SERVICE_VARIABLES, start=5001)}

    urls = service_urls(environ)

    assert {field: getattr(urls, field) for field in SERVICE_VARIABLES.values()} == {
        field: environ[name].rstrip("/") for name, field in SERVICE_VARIABLES.items()
    }


def test_one_sign_in_host_stands_for_all_of_googles() -> None:
    urls = service_urls({"COLAB_BRIDGE_OAUTH_URL": "http://localhost:9000"})

    uris = [urls.auth_uri, urls.token_uri, urls.revoke_uri, urls.tokeninfo_uri, urls.userinfo_uri]

    assert [uri.removeprefix("http://localhost:9000") for uri in uris] == [
        "/o/oauth2/v2/auth",
        "/token",
        "/revoke",
        "/tokeninfo",
        "/oauth2/v2/userinfo",
    ]


@pytest.mark.parametrize(
    "loopback", ["http://127.0.0.1:1", "http://127.8.9.1:1", "http://localhost:1", "http://[::1]:1"]
)
def test_loopback_needs_no_encryption(loopback: str) -> None:
    assert service_urls({"COLAB_BRIDGE_GAPI_URL": loopback}).gapi == loopback


@pytest.mark.parametrize(
    "url",
    [
        "http://colab.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://127.0.0.1",
        "colab.example",
        "https://",
        "https://host:0",
        "https://host:999999",
        "https://user:pass@host",
        "https://host/path",
        "https://host?x=1",
        "https://host#x",
        "https://ho st",
        "https://hóst",
        "https://host\nX: 1",
    ],
)
def test_an_address_that_could_leak_or_mislead_is_refused_and_the_variable_named(url: str) -> None:
    with pytest.raises(UserError, match="COLAB_BRIDGE_COLAB_URL") as caught:
        service_urls({"COLAB_BRIDGE_COLAB_URL": url})
    assert url not in caught.value.message  # it may hold a password
    assert "COLAB_BRIDGE_COLAB_URL" in caught.value.hint


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_makes_anything_but_an_address_or_a_user_error(text: str) -> None:
    try:
        urls = service_urls({"COLAB_BRIDGE_DRIVE_URL": text})
    except UserError:
        return
    assert urls.drive.startswith(("https://", "http://"))


def test_a_caller_that_names_other_services_than_ours_is_refused_and_one_that_names_none_is_not() -> None:
    own = service_urls({"COLAB_BRIDGE_COLAB_URL": "http://127.0.0.1:1"})
    require_same_services(own, {})
    require_same_services(own, {"COLAB_BRIDGE_COLAB_URL": "http://127.0.0.1:1/"})
    with pytest.raises(UserError, match="other addresses") as caught:
        require_same_services(own, {"COLAB_BRIDGE_COLAB_URL": "http://127.0.0.1:2"})
    assert "daemon restart" in caught.value.hint
