"""What the provider for foreign servers makes of its options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from colab_bridge.errors import AuthError, RuntimeLostError, UserError
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.providers.jupyter import JupyterProvider

pytestmark = pytest.mark.anyio
URL = "https://host:8443/user/ann/lab"


async def _endpoint(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Endpoint:
    provider = JupyterProvider(Path("unused"), environ or {})
    return await provider.attach(await provider.acquire(_request(options)))


def _request(options: Mapping[str, Any]) -> RuntimeRequest:
    return RuntimeRequest(session="s", project="/p", options=options)


async def test_the_token_of_the_address_goes_into_the_header_and_nowhere_else() -> None:
    provider = JupyterProvider(Path("unused"), {})
    handle = await provider.acquire(_request({"url": URL + "?token=geheim"}))
    endpoint = await provider.attach(handle)
    assert endpoint.plain_headers() == {"Authorization": "token geheim"}
    assert handle.label == "host:8443/user/ann"
    assert "geheim" not in f"{handle.label} {handle.id} {endpoint!r}"


async def test_an_explicit_token_wins_over_that_of_the_address() -> None:
    endpoint = await _endpoint({"url": URL + "?token=old", "token": " new\n"})
    assert endpoint.plain_headers()["Authorization"] == "token new"


async def test_a_token_is_read_from_the_named_variable() -> None:
    endpoint = await _endpoint({"url": URL, "token_env": "MY_TOKEN"}, {"MY_TOKEN": "fromenv"})
    assert endpoint.plain_headers()["Authorization"] == "token fromenv"


async def test_a_newer_value_of_the_variable_is_used_when_attaching() -> None:
    handle = await JupyterProvider(Path(), {"T": "first"}).acquire(_request({"url": URL, "token_env": "T"}))
    endpoint = await JupyterProvider(Path(), {"T": "second"}).attach(handle)
    assert endpoint.plain_headers()["Authorization"] == "token second"


async def test_the_stored_token_is_used_where_the_variable_is_gone() -> None:
    handle = await JupyterProvider(Path(), {"T": "first"}).acquire(_request({"url": URL, "token_env": "T"}))
    endpoint = await JupyterProvider(Path(), {}).attach(handle)
    assert endpoint.plain_headers()["Authorization"] == "token first"


async def test_a_broken_value_of_the_variable_is_an_auth_error() -> None:
    handle = await JupyterProvider(Path(), {"T": "first"}).acquire(_request({"url": URL, "token_env": "T"}))
    with pytest.raises(AuthError):
        await JupyterProvider(Path(), {"T": "a\r\nX-Evil: 1"}).attach(handle)


async def test_own_headers_are_sent_and_the_token_wins_over_an_authorization_of_theirs() -> None:
    headers = {"X-Gateway": "7", "authorization": "Basic eA=="}
    assert (await _endpoint({"url": URL, "headers": headers})).plain_headers() == headers
    both = await _endpoint({"url": URL, "headers": headers, "token": "t"})
    assert both.plain_headers() == {"X-Gateway": "7", "Authorization": "token t"}


async def test_tls_is_verified_unless_the_options_say_otherwise() -> None:
    assert (await _endpoint({"url": URL})).verify_tls
    assert not (await _endpoint({"url": URL, "verify_tls": False})).verify_tls


async def test_output_of_a_foreign_server_is_not_taken_for_unlimited() -> None:
    assert not (await _endpoint({"url": URL})).unlimited_output


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": ""},
        {"url": 7},
        {"url": URL, "token_env": "NOT_SET"},
        {"url": URL, "token": "a\nb"},
        {"url": URL, "verify_tls": "no"},
        {"url": URL, "headers": "X: 1"},
        {"url": URL, "headers": {"X Y": "1"}},
        {"url": URL, "headers": {"X": "1\r\nY: 2"}},
        {"url": URL, "headers": {"X": 1}},
    ],
)
async def test_an_option_that_does_not_fit_is_a_user_error_with_a_hint(options: Mapping[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        await JupyterProvider(Path(), {}).acquire(_request(options))
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


async def test_a_damaged_handle_means_that_the_runtime_is_lost() -> None:
    with pytest.raises(RuntimeLostError):
        await JupyterProvider(Path(), {}).attach(RuntimeHandle(provider="jupyter", id="x", data={"url": None}))
