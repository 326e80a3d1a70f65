"""A certificate that this machine does not know is said by whatever talks to Google, and can be made good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from colab_bridge.config.services import ServiceUrls
from colab_bridge.credentials.service import SignInService
from colab_bridge.drive.client import DriveClient
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.model.credentials import COLAB_SCOPES, AccessToken
from colab_bridge.model.runtime import Secret
from colab_bridge.providers.colab.http import GoogleHttp, Request
from tls_server import answering, self_signed

pytestmark = pytest.mark.anyio

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"id": "a-file"}'
TOKEN = AccessToken(value=Secret("ya29.very-secret"), account="me@example.com")


class Tokens:
    """Gives one token."""

    async def token(
        self, *, account: str = "", scopes: frozenset[str] = COLAB_SCOPES, stale: AccessToken | None = None
    ) -> AccessToken:
        return TOKEN


async def ask_colab(url: str) -> None:
    http = GoogleHttp(Tokens())
    try:
        await http.document(Request(call="assign", method="GET", url=url, query={}, headers={}), "")
    finally:
        await http.aclose()


async def ask_drive(url: str) -> None:
    await DriveClient(Tokens(), ServiceUrls(drive=url)).share("a-file", [])


async def ask_sign_in(url: str) -> None:
    await SignInService(ServiceUrls(oauth=url)).inspect(TOKEN.value)


SERVICES = pytest.mark.parametrize("ask", [ask_colab, ask_drive, ask_sign_in])


@SERVICES
async def test_an_unknown_certificate_is_said_with_the_way_to_trust_it(
    ask: Callable[[str], Awaitable[None]], tmp_path: Path
) -> None:
    async with answering(ANSWER, self_signed(tmp_path)) as port:
        with pytest.raises(UserError, match=r"certificate of 127\.0\.0\.1 is not trusted") as caught:
            await ask(f"https://127.0.0.1:{port}")
    assert "SSL_CERT_FILE" in caught.value.hint
    assert "very-secret" not in caught.value.message + repr(caught.value.__cause__)


@SERVICES
async def test_ssl_cert_file_makes_the_certificate_good(
    ask: Callable[[str], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with answering(ANSWER, self_signed(tmp_path)) as port:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        await ask(f"https://127.0.0.1:{port}")


@SERVICES
async def test_a_file_without_certificates_is_said(
    ask: Callable[[str], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none.pem").write_text("nothing")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(ColabBridgeError, match="SSL_CERT_FILE names cannot be used"):
        await ask("https://127.0.0.1:9")
