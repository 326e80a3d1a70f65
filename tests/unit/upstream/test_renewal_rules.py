"""Who has refused us: a proxy before the server, or the server itself."""

from __future__ import annotations

import pytest

from colab_bridge.kernels.renewal import refused_by_proxy, wants_renewal
from colab_bridge.model.runtime import Endpoint

JSON = {"Content-Type": "application/json"}
CSP = {"content-security-policy": "frame-ancestors 'self'; report-uri /api/security/csp-report; default-src 'none'"}


@pytest.mark.parametrize(
    ("status", "headers", "body", "refused"),
    [
        (404, {"content-type": "text/html"}, b"<html>404", True),
        (401, {}, b"", True),
        (403, {"Server": "ESF"}, b"forbidden", True),
        (404, JSON, b'{"error": "not found"}', True),
        (404, JSON, b"", True),
        (404, JSON, b"[]", True),
        (404, JSON, b'{"message": "Kernel does not exist: x", "reason": null}', False),
        (404, JSON, b"No such file or directory: x", False),  # jupyter_server 2.21
        (404, {"Content-Type": "text/html", **CSP}, b"<html>", False),
        (404, {"server": "TornadoServer/6.5"}, b"", False),
        (401, {"Server": "TornadoServer/6.5"}, b"", False),
        (500, {}, b"", False),
        (200, {}, b"", False),
        (302, {}, b"", False),
    ],
)
def test_who_refused_is_seen_in_headers_and_body(
    status: int, headers: dict[str, str], body: bytes, refused: bool
) -> None:
    assert refused_by_proxy(status, headers, body) is refused


def test_a_way_in_that_does_not_expire_is_never_renewed() -> None:
    async def renew() -> Endpoint:
        raise AssertionError

    plain = Endpoint(base_url="https://h")
    renewable = Endpoint(base_url="https://h", renew=renew)
    assert not wants_renewal(plain, 404, {}, b"")
    assert wants_renewal(renewable, 404, {}, b"")
    assert plain == renewable  # what can be renewed is the same way in
