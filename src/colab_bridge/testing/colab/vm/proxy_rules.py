"""What the runtime proxy decides about one request. Pure.

Source: the runtime proxy as Google's own clients see it: any carrier of the token will do, a bad token and a machine
that is gone look the same (404 with a body that is not Jupyter's), and pages of another origin get 404 on forwarded
ports.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from colab_bridge.testing.colab.vm.contracts import TokenVerdict

__all__ = [
    "JUPYTER_PORT",
    "XSSI_PREFIX",
    "Headers",
    "Target",
    "forwarded_headers",
    "guarded_json",
    "is_foreign",
    "parse_target",
    "refusal",
    "response_headers",
    "token_candidates",
]

#: The port whose URL the assignment carries.
JUPYTER_PORT: Final = 8080
#: Four characters and a line end before JSON, so that no page can load it as a script.
XSSI_PREFIX: Final = b")]}'\n"

TOKEN_HEADER: Final = "x-colab-runtime-proxy-token"  # noqa: S105 - a name
_TOKEN_QUERY: Final = "colab-runtime-proxy-token"  # noqa: S105 - a name
#: Query parameters that are for the proxy, not for the server behind it.
_OWN_QUERY: Final = frozenset({_TOKEN_QUERY, "token", "authuser", "colab-client-agent"})
# RFC 9110 section 7.6.1, but the transfer coding stays: each hop chunks anew what came in chunks. The upgrade is added
# again where it is carried on.
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect"})
_OUR_HEADERS: Final = frozenset({TOKEN_HEADER, "x-colab-client-agent"})

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target of a request.

    Attributes:
        path: Path as it came, percent-encoded, but with one slash at its start.
        query: Parameters, in order.
    """

    path: str
    query: tuple[tuple[str, str], ...]

    def upstream(self) -> str:
        """Return the target for the server behind the proxy: without what was for the proxy."""
        left = [(name, value) for name, value in self.query if name not in _OWN_QUERY]
        return f"{self.path}?{urlencode(left)}" if left else self.path


def parse_target(raw: str) -> Target:
    """Read the target of a request line.

    Args:
        raw: Origin form (``/path?query``) or absolute form. A client that joins a base URL with its slash and a path
            sends two at the start; they count as one.
    """
    path, _, query = raw.partition("?")
    if not path.startswith("/"):
        path = urlsplit(path).path
    return Target(path="/" + path.lstrip("/"), query=tuple(parse_qsl(query, keep_blank_values=True)))


def token_candidates(headers: Headers, target: Target) -> tuple[str, ...]:
    """Return every token that a request carries, each once: one valid among them is enough."""
    found = [value for name, value in headers if name == TOKEN_HEADER]
    found += [value for name, value in target.query if name == _TOKEN_QUERY]
    for name, value in headers:
        scheme, _, rest = value.partition(" ")
        if name == "authorization" and scheme.lower() == "bearer":
            found.append(rest.strip())
    found += [value for name, value in target.query if name == "token"]
    return tuple(dict.fromkeys(found))


def refusal(verdicts: Iterable[TokenVerdict], expired_status: int) -> tuple[int, bytes] | None:
    """Decide about a request by its tokens.

    Args:
        verdicts: One for each token that it carries.
        expired_status: Status for a token that is no good, 404 or 401.

    Returns:
        None when it may pass, else status and body; a body like the front end's own error page, never Jupyter's JSON.
    """
    found = set(verdicts)
    if TokenVerdict.VALID in found:
        return None
    status = 404 if TokenVerdict.UNASSIGNED in found else expired_status
    title = "404 (Not Found)" if status == 404 else f"{status} (Unauthorized)"
    text = f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {title}!!1</title>\n<p><b>{status}.</b> That's an error.\n"
    return status, text.encode("ascii")


def is_foreign(headers: Headers, authority: str) -> bool:
    """Whether a request for a forwarded port comes from a page of another origin, or under another host's name.

    Args:
        headers: Names in lower case.
        authority: Host and port that the proxy is reached by.
    """
    for name, value in headers:
        if name == "host" and value != authority:
            return True
        if name in ("origin", "referer") and urlsplit(value).netloc != authority:
            return True
    return False


def forwarded_headers(headers: Headers, *, tokens: Iterable[str], added: Headers, replaced: frozenset[str]) -> Headers:
    """Return the headers for the server behind the proxy.

    Args:
        headers: Those of the client, names in lower case.
        tokens: Proxy tokens, which the server must not see, in whatever header they are.
        added: Headers to add.
        replaced: Names to leave out besides those that concern one hop only.
    """
    secret = set(tokens)
    left_out = _HOP_BY_HOP | _OUR_HEADERS | replaced
    kept = [(n, v) for n, v in headers if n not in left_out and v.partition(" ")[2].strip() not in secret]
    return [*kept, *added]


def response_headers(headers: Headers) -> Headers:
    """Return the headers of an answer for the client."""
    return [(name, value) for name, value in headers if name not in _HOP_BY_HOP]


def guarded_json(value: Any) -> bytes:
    """Return JSON behind the guard that Colab's own pages have."""
    return XSSI_PREFIX + json.dumps(value).encode("ascii")
