"""The REST side of one Jupyter server: its kernelspecs and the life of its kernels.

Works with jupyter_server 1.24 and later, JupyterHub user servers, Kernel Gateway and Enterprise Gateway: only calls
that all of them answer are used.

Source: Jupyter Server REST API, ``/api``, ``/api/kernelspecs`` and ``/api/kernels``.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import anyio
import httpx2

from colab_bridge.errors import AuthError, ColabBridgeError, RuntimeLostError, TransientError, UserError
from colab_bridge.kernels.netloc import address_of, has_credentials, is_loopback, tls_context, translate
from colab_bridge.kernels.renewal import refused_by_proxy, still_refused, wants_renewal
from colab_bridge.model.runtime import Endpoint

__all__ = ["JupyterServer", "KernelInfo", "KernelSpecInfo", "KernelSpecs"]

CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 30.0
#: A first start may load a conda environment from a slow disk; jupyter_server itself gives up after 60 s.
START_TIMEOUT_S = 60.0
#: Kernelspec lists are the largest answers, a few kB each; more than this is no Jupyter server or an attack.
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_SPECS = 1_000

_T = TypeVar("_T")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpecInfo:
    """What a server tells about one kernelspec.

    Attributes:
        display_name: Name for people.
        language: Language, lower case; empty when the server does not say.
        interrupt_mode: ``signal`` or ``message``.
    """

    display_name: str
    language: str
    interrupt_mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpecs:
    """The kernelspecs of a server.

    Attributes:
        default: Name that the server uses when none is asked for; empty when it does not say.
        specs: All of them by name.
    """

    default: str
    specs: Mapping[str, KernelSpecInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """What a server tells about one of its kernels.

    Attributes:
        id: The server's id of it.
        name: Kernelspec name.
        execution_state: ``starting``, ``idle``, ``busy``, ``dead`` ...; empty when the server does not say.
        connections: Open WebSockets to it.
        last_activity: ISO 8601 time, as the server wrote it.
    """

    id: str
    name: str
    execution_state: str = ""
    connections: int = 0
    last_activity: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    headers: httpx2.Headers

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class JupyterServer:
    """Calls one Jupyter server; every call has a deadline and raises only errors of :mod:`colab_bridge.errors`.

    All calls raise ``TransientError`` when the server does not answer or fails itself, ``AuthError`` when it refuses
    our credentials, and ``UserError`` when what answers is no Jupyter server or its certificate is not trusted.

    Args:
        endpoint: The way in.

    Raises:
        UserError: the URL, ``SSL_CERT_FILE`` or the proxy settings of the environment cannot be used.
        AuthError: the token holds characters that no header may hold.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._address = address_of(endpoint)
        self._base = endpoint.base_url.rstrip("/")
        self._client = _make_client(endpoint)
        self._renewing = anyio.Lock()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def check(self) -> None:
        """Find out whether a Jupyter server answers here and accepts our credentials."""
        answer = await self._call("GET", "/api")
        if answer.status == 404:
            raise self._no_jupyter()
        self._json(answer, dict)
        await self.kernelspecs()

    async def kernelspecs(self) -> KernelSpecs:
        """Return the server's kernelspecs; malformed ones are left out."""
        answer = await self._call("GET", "/api/kernelspecs")
        if answer.status == 404:
            raise self._no_jupyter()
        body = self._json(answer, dict)
        entries = body.get("kernelspecs")
        if not isinstance(entries, dict):
            raise self._no_jupyter()
        specs = {str(name): spec for name, entry in list(entries.items())[:MAX_SPECS] if (spec := _spec(name, entry))}
        return KernelSpecs(default=_text(body.get("default")), specs=specs)

    async def list_kernels(self) -> list[KernelInfo]:
        """Return the kernels that run on the server."""
        body = self._json(await self._call("GET", "/api/kernels"), list)
        return [kernel for entry in body if (kernel := _kernel(entry)) is not None]

    async def kernel(self, kernel_id: str) -> KernelInfo | None:
        """Return one kernel, None when the server does not have it."""
        answer = await self._call("GET", self._kernel_path(kernel_id))
        if answer.status == 404:
            if answer.json() is None:
                raise self._no_jupyter()  # a proxy's own page says nothing about the kernel
            return None
        kernel = _kernel(self._json(answer, dict))
        if kernel is None:
            raise self._no_jupyter()
        return kernel

    async def start_kernel(self, name: str | None = None, path: str | None = None) -> str:
        """Start a kernel.

        Args:
            name: Kernelspec name; the server's default when None.
            path: Working folder, relative to the server's root, with forward slashes; None for the server's choice.

        Returns:
            The server's id of the kernel.

        Raises:
            UserError: there is no such kernelspec; the hint names those that exist.
        """
        wish = {key: value for key, value in (("name", name), ("path", path)) if value is not None}
        answer = await self._call("POST", "/api/kernels", wish, timeout_s=START_TIMEOUT_S)
        if answer.status >= 400:
            raise await self._start_error(name, answer)
        kernel = _kernel(self._json(answer, dict))
        if kernel is None:
            raise self._no_jupyter()
        return kernel.id

    async def interrupt_kernel(self, kernel_id: str) -> None:
        """Interrupt what the kernel executes.

        Raises:
            RuntimeLostError: there is no such kernel.
        """
        await self._act(kernel_id, "interrupt", CALL_TIMEOUT_S)

    async def restart_kernel(self, kernel_id: str) -> None:
        """Start the kernel anew under the same id.

        Raises:
            RuntimeLostError: there is no such kernel.
        """
        await self._act(kernel_id, "restart", START_TIMEOUT_S)

    async def delete_kernel(self, kernel_id: str) -> None:
        """End a kernel; one that is gone already is no error."""
        answer = await self._call("DELETE", self._kernel_path(kernel_id))
        if answer.status != 404:
            self._raise_for_status(answer)

    # -- one call --------------------------------------------------------------------------------------------

    async def _act(self, kernel_id: str, action: str, timeout_s: float) -> None:
        answer = await self._call("POST", f"{self._kernel_path(kernel_id)}/{action}", {}, timeout_s=timeout_s)
        if answer.status == 404:
            raise RuntimeLostError(
                f"the kernel does not exist on {self._address} any more", hint="start the session's kernel anew"
            )
        self._raise_for_status(answer)

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, most_bytes: int = MAX_BODY_BYTES
    ) -> tuple[int, Any]:
        """Make a call of the server's API for which there is no method here.

        Args:
            method: HTTP method.
            path: Below the server's base URL, quoted, with a leading ``/``.
            body: JSON.
            most_bytes: Longer answers are refused.

        Returns:
            Status and decoded JSON; None where the answer is none.
        """
        answer = await self._call(method, path, body, timeout_s=START_TIMEOUT_S, most_bytes=most_bytes)
        return answer.status, answer.json()

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        most_bytes: int = MAX_BODY_BYTES,
    ) -> _Answer:
        """Make one call and return any answer but a refusal of our credentials or a move to elsewhere."""
        answer = await self._once(method, path, body, timeout_s, most_bytes)
        if wants_renewal(self._endpoint, answer.status, answer.headers, answer.body):
            await self._renew()
            answer = await self._once(method, path, body, timeout_s, most_bytes)
            if refused_by_proxy(answer.status, answer.headers, answer.body):
                raise still_refused(self._address)
        self._raise_for_access(answer)
        return answer

    async def _renew(self) -> None:
        """Get another way in; one renewal serves all calls that met the same refusal."""
        used = self._endpoint
        async with self._renewing:
            if self._endpoint == used and used.renew is not None:
                self.use(await used.renew())

    def use(self, endpoint: Endpoint) -> None:
        """Take another way in to the same server from the next call on.

        Args:
            endpoint: Differs in address and headers only.
        """
        self._endpoint = endpoint
        self._address = address_of(endpoint)
        self._base = endpoint.base_url.rstrip("/")
        self._client.headers.update(endpoint.plain_headers())

    async def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout_s: float, most_bytes: int
    ) -> _Answer:
        headers = {} if method == "GET" or has_credentials(self._endpoint) else _xsrf_headers()
        timeout = httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            with anyio.fail_after(timeout_s):
                async with self._client.stream(
                    method, self._base + path, json=body, headers=headers, timeout=timeout
                ) as response:
                    return _Answer(response.status_code, await self._read(response, most_bytes), response.headers)
        except httpx2.LocalProtocolError as error:
            raise translate(error, self._endpoint) from None  # its text quotes the header, which holds the token
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise translate(error, self._endpoint) from error

    async def _read(self, response: httpx2.Response, most_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > most_bytes:
                raise UserError(
                    f"{self._address} answered with more than {most_bytes // 2**20} MiB",
                    hint="check that the URL is that of a Jupyter server",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _kernel_path(self, kernel_id: str) -> str:
        return f"/api/kernels/{quote(kernel_id, safe='')}"

    # -- judging answers -------------------------------------------------------------------------------------

    def _raise_for_access(self, answer: _Answer) -> None:
        if answer.status == 401 or (answer.status == 403 and _refuses_token(answer)):
            raise AuthError(
                f"the Jupyter server at {self._address} refuses our token",
                hint="copy the token from the server again (`jupyter server list`), and give it with the URL",
            )
        if answer.status in _MOVED:
            raise self._moved(answer.headers.get("location", ""))

    def _moved(self, location: str) -> ColabBridgeError:
        """Judge a redirect; none is followed, because our token would follow it."""
        target = urlsplit(urljoin(self._base + "/", location))
        if re.search(r"login|oauth|signin|sso|auth", target.path, re.IGNORECASE):
            return AuthError(
                f"the server at {self._address} wants a sign-in instead of our token",
                hint="give a token that is valid for this server; for JupyterHub make one on its token page",
            )
        return UserError(
            f"the server at {self._address} redirects to {target.scheme}://{target.netloc.rpartition('@')[2]}",
            hint="use the address it redirects to, if you trust it, as the URL of the runtime",
        )

    def _raise_for_status(self, answer: _Answer) -> None:
        if answer.status < 400:
            return
        if answer.status == 404:
            raise self._no_jupyter()
        detail = _server_text(answer)
        said = f": {detail}" if detail else ""
        if answer.status in (408, 424, 425, 429) or answer.status >= 500:
            hint = (
                "start your server on the hub's page, then try again"
                if answer.status == 424
                else "try again; if it stays, look at the server's log"
            )
            raise TransientError(
                f"the Jupyter server at {self._address} failed with status {answer.status}{said}", hint=hint
            )
        raise UserError(
            f"the Jupyter server at {self._address} refused the request with status {answer.status}{said}",
            hint="check the URL and the server's version",
        )

    def _json(self, answer: _Answer, kind: type[_T]) -> _T:
        self._raise_for_status(answer)
        body = answer.json()
        if not isinstance(body, kind):
            raise self._no_jupyter()
        return body

    def _no_jupyter(self) -> UserError:
        return UserError(
            f"what answers at {self._address} is no Jupyter server",
            hint="check host, port and path of the URL; it is the part before /lab, /tree or /api",
            code="CB-USER-NOJUPYTER",
        )

    async def _start_error(self, name: str | None, answer: _Answer) -> ColabBridgeError:
        """Find out why a kernel did not start: servers answer an unknown name with 500, 404 or 400 and free text."""
        specs = await self.kernelspecs()
        if name is not None and name not in specs.specs:
            return UserError(
                f"there is no kernelspec {name!r} on {self._address}",
                hint=f"use one of: {', '.join(sorted(specs.specs)) or 'none is installed there'}",
                code="CB-USER-KERNELSPEC",
            )
        try:
            self._raise_for_status(answer)
        except ColabBridgeError as error:
            return error
        return self._no_jupyter()


def _make_client(endpoint: Endpoint) -> httpx2.AsyncClient:
    context = tls_context(endpoint)
    try:
        return httpx2.AsyncClient(
            headers={"Accept": "application/json", **endpoint.plain_headers()},
            # Without TLS no certificate is looked at; a context of its own would only cost time.
            verify=context if context is not None else not is_loopback(endpoint),
            trust_env=not is_loopback(endpoint),
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=10, max_keepalive_connections=4),
        )
    except (ImportError, ValueError, UnicodeEncodeError) as error:
        if isinstance(error, UnicodeEncodeError):
            raise translate(error, endpoint) from None  # its text quotes the token
        raise translate(ImportError(str(error)), endpoint) from error


def _xsrf_headers() -> dict[str, str]:
    """Return what lets a server without a token accept a POST: it compares cookie and header, whatever they hold."""
    token = secrets.token_hex(16)
    return {"Cookie": f"_xsrf={token}", "X-XSRFToken": token}


def _spec(name: object, entry: object) -> KernelSpecInfo | None:
    spec = entry.get("spec") if isinstance(entry, dict) else None
    if not isinstance(spec, dict):
        return None
    return KernelSpecInfo(
        display_name=_text(spec.get("display_name")) or str(name),
        language=_text(spec.get("language")).lower(),
        interrupt_mode=_text(spec.get("interrupt_mode")) or "signal",
    )


def _kernel(entry: object) -> KernelInfo | None:
    if not isinstance(entry, dict):
        return None
    kernel_id = _text(entry.get("id"))
    if not _ID.fullmatch(kernel_id):
        return None
    connections = entry.get("connections")
    return KernelInfo(
        id=kernel_id,
        name=_text(entry.get("name")),
        execution_state=_text(entry.get("execution_state")),
        connections=connections if isinstance(connections, int) else 0,
        last_activity=_text(entry.get("last_activity")),
    )


def _text(value: object) -> str:
    return value[:1_000] if isinstance(value, str) else ""


def _refuses_token(answer: _Answer) -> bool:
    """Whether a 403 is about our credentials: the server then says no more than the name of the status.

    Others speak of something that a signed-in client may not do: a Gateway's limit of kernels, a hidden file, a missing
    XSRF token.
    """
    said = _server_text(answer)
    return not said or said.rstrip(".").lower() in ("forbidden", "not authenticated", "unauthorized")


def _server_text(answer: _Answer) -> str:
    """Return the one line with which a server explains a failure; empty when it sent a page or nothing."""
    body = answer.json()
    if not isinstance(body, dict):
        return ""
    text = _text(body.get("message")) or _text(body.get("reason"))
    return text.splitlines()[0][:300] if text.strip() else ""
