"""Any Jupyter server that somebody else runs: a lab on a GPU box, a JupyterHub user server, a Kernel Gateway.

Nothing here opens a connection: whether the server answers and takes the token is asked by whoever uses the endpoint.

Options: ``url`` (as copied from the address bar), ``token``, ``token_env`` (name of an environment variable that holds
it), ``verify_tls`` (bool), ``headers`` (more request headers, such as a gateway wants).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from colab_bridge.errors import AuthError, RuntimeLostError, UserError
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest, Secret

__all__ = ["JupyterProvider", "parse_server_url"]

_EXAMPLE = "give it as the browser shows it, for example http://localhost:8888/lab?token=..."

# First path segments of what a server's pages are called; before them is the server's own prefix.
# Source: jupyter_server, JupyterLab, Notebook 7, nbclassic and RetroLab route tables.
_PAGES = frozenset(
    {"api", "console", "consoles", "doc", "edit", "files", "lab", "login", "logout", "nbclassic", "nbconvert"}
    | {"notebooks", "retro", "terminals", "tree", "view"}
)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, "token"


def parse_server_url(url: str) -> tuple[str, str | None]:
    """Take apart the address of a Jupyter server as people copy it.

    Pure. Pages (``/lab/tree/x.ipynb``, ``/notebooks/x.ipynb``), other query members and the fragment are left out, a
    prefix such as JupyterHub's ``/user/name/`` stays.

    Args:
        url: Absolute address, ``http`` or ``https``.

    Returns:
        The base URL without a slash at its end, and the value of ``?token=`` if there is one.

    Raises:
        UserError: it is no such address.
    """
    text = url.strip()
    parts = _split(text)
    if parts.username is not None or parts.password is not None:
        raise UserError(
            "the server's address holds a user name", hint="leave out what stands before the @; use a token"
        )
    token = next(iter(parse_qs(parts.query).get("token", [])), None)
    if token is not None:
        _require_printable(token, "token")
    prefix = "".join(f"/{segment}" for segment in _prefix_segments(parts))
    return f"{parts.scheme}://{parts.netloc}{prefix}", token


def _split(text: str) -> SplitResult:
    # Blanks inside and letters beyond ASCII must be escaped in a URL, and urlsplit would drop line ends silently.
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise UserError("this is not the address of a server", hint=_EXAMPLE)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise UserError(f"this is not the address of a server: {error}", hint=_EXAMPLE) from error
    if not usable or "\\" in parts.netloc or parts.netloc.endswith(":"):
        raise UserError("the server's address must start with http:// or https:// and name a host", hint=_EXAMPLE)
    return parts


def _prefix_segments(parts: SplitResult) -> list[str]:
    segments = [segment for segment in parts.path.split("/") if segment]
    if any(segment in (".", "..") for segment in segments):
        raise UserError("the server's address holds dots instead of names", hint=_EXAMPLE)
    kept: list[str] = []
    for number, segment in enumerate(segments):
        # Holds here: a segment after `user` is a name of JupyterHub, whatever it is.
        is_user = number > 0 and segments[number - 1] == "user"
        if segment == "hub" and not is_user:
            base = "".join(f"/{part}" for part in kept)
            raise UserError(
                "this is an address of JupyterHub itself, not of your server",
                hint=f"use {parts.scheme}://{parts.netloc}{base}/user/YOUR-NAME/ and a token from {base}/hub/token",
            )
        if segment in _PAGES and not is_user:
            break
        kept.append(segment)
    return kept


class JupyterProvider:
    """Uses servers that run already; never starts or stops one.

    Args:
        folder: Not used; this provider keeps no files.
        environ: Where ``token_env`` is looked up; the process's own environment when omitted.
    """

    name = "jupyter"

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    async def acquire(self, request: RuntimeRequest) -> RuntimeHandle:
        """Read the options; no connection is made.

        Raises:
            UserError: an option is missing or does not fit.
        """
        options = request.options
        url = options.get("url")
        if not isinstance(url, str) or not url.strip():
            raise UserError("the provider `jupyter` needs the address of a server", hint="give --url, and " + _EXAMPLE)
        base_url, url_token = parse_server_url(url)
        verify_tls = options.get("verify_tls", True)
        if not isinstance(verify_tls, bool):
            raise UserError("verify_tls must be true or false", hint="set verify_tls = true")
        data = {
            "url": base_url,
            "token": self._token(options) or url_token or "",
            "token_env": str(options.get("token_env") or ""),
            "verify_tls": verify_tls,
            "headers": _headers(options.get("headers")),
        }
        # A label is what people see: scheme and token are no part of it.
        return RuntimeHandle(provider=self.name, id=base_url, data=data, label=base_url.partition("://")[2])

    def _token(self, options: Mapping[str, Any]) -> str:
        token = str(options.get("token") or "").strip()
        variable = str(options.get("token_env") or "")
        if not token and variable:
            token = self._environ.get(variable, "").strip()
            if not token:
                raise UserError(f"the environment variable {variable} is not set", hint=f"set {variable} to the token")
        _require_printable(token, "token")
        return token

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        """Return the way in; it is the same each time, so a stale one is returned again.

        Raises:
            RuntimeLostError: what is stored about the server is damaged.
            AuthError: the variable that holds the token now holds something that cannot be one.
        """
        data = handle.data
        url, headers = data.get("url"), data.get("headers", {})
        if not isinstance(url, str) or not isinstance(headers, Mapping):
            raise RuntimeLostError(
                f"what is stored about the server {handle.label} is damaged",
                hint="stop the session and start a new one",
            )
        # The variable may have a newer value; where it is gone (another shell), the one that was stored is used.
        token = self._environ.get(str(data.get("token_env") or ""), "").strip() or str(data.get("token") or "")
        try:
            _require_printable(token, "token")
        except UserError as error:
            raise AuthError(error.message, hint=error.hint) from error
        secret = {str(name): Secret(str(value)) for name, value in headers.items()}
        if token:
            secret = {name: value for name, value in secret.items() if name.lower() != "authorization"}
            secret["Authorization"] = Secret(f"token {token}")
        return Endpoint(base_url=url, headers=secret, verify_tls=data.get("verify_tls") is not False)

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        """Do nothing: how long the server lives is its owner's business."""

    async def release(self, handle: RuntimeHandle) -> None:
        """Do nothing: the server is not ours, and kernels are ended by whoever started them."""


def _headers(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError("headers must be a table of names and values", hint='write headers = { "X-Name" = "value" }')
    headers = {}
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str) or not _HEADER_NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is no request header", hint="use letters, digits and dashes, and a text as its value"
            )
        _require_printable(text, f"header {name}")
        headers[name] = text
    return headers


def _require_printable(text: str, what: str) -> None:
    # A line end here would let a copied text add headers of its own.
    if not text.isascii() or not (text.isprintable() or not text):
        raise UserError(
            f"the {what} holds characters that cannot be sent", hint=f"copy the {what} again, without line ends"
        )
