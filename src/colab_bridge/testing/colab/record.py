"""What the emulator has seen: every request, and everything that a client must not do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from colab_bridge.testing.colab.clock import EmulatorClock

__all__ = ["Recorder", "RequestRecord", "Violation", "masked_headers", "masked_query"]

_SECRET_HEADERS = frozenset({"authorization", "x-colab-runtime-proxy-token", "cookie", "x-goog-api-key"})
_SECRET_QUERY = frozenset({"access_token", "token", "colab-runtime-proxy-token", "key", "code"})


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One request that arrived.

    Attributes:
        number: Counts from 1.
        at: Unix seconds of the emulator's clock.
        service: ``colab``, ``gapi``, ``public_api``, ``drive``, ``oauth`` or ``data`` (the runtime proxy).
        method: HTTP method; ``WS`` for a WebSocket upgrade.
        path: Path without the query.
        query: Query parameters in their order, secrets replaced by a fingerprint.
        headers: Headers with lower-case names, secrets replaced by a fingerprint.
        account: E-mail address of the bearer; empty when unknown.
        status: Status of the answer; 0 while there is none, and for a connection that was reset.
        fault: Kinds of the faults that hit it.
        endpoint: Runtime that the request is for; empty where there is none.
    """

    number: int
    at: float
    service: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    account: str = ""
    status: int = 0
    fault: tuple[str, ...] = ()
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that a client did and the protocol does not know.

    Attributes:
        request: Number of the request.
        at: Unix seconds of the emulator's clock.
        service: As in :class:`RequestRecord`.
        route: Method and path.
        what: What was wrong, one line.
        expected: What would have been right, one line.
    """

    request: int
    at: float
    service: str
    route: str
    what: str
    expected: str

    def __str__(self) -> str:
        return f"{self.service} {self.route}: {self.what}; expected {self.expected}"


class Recorder:
    """Keeps requests and violations. May be used from any thread.

    Attributes:
        requests: All requests, oldest first.
        violations: All violations, oldest first.
    """

    def __init__(self, clock: EmulatorClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.requests: list[RequestRecord] = []
        self.violations: list[Violation] = []

    def request(
        self,
        service: str,
        method: str,
        path: str,
        *,
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        endpoint: str = "",
    ) -> RequestRecord:
        """Note a request that has arrived; the caller fills in what becomes of it."""
        with self._lock:
            record = RequestRecord(
                number=len(self.requests) + 1,
                at=self._clock.time(),
                service=service,
                method=method,
                path=path,
                query=masked_query(query),
                headers=masked_headers(headers or {}),
                endpoint=endpoint,
            )
            self.requests.append(record)
        return record

    def violation(self, record: RequestRecord, what: str, expected: str) -> None:
        """Note that a request broke the protocol."""
        with self._lock:
            self.violations.append(
                Violation(
                    request=record.number,
                    at=self._clock.time(),
                    service=record.service,
                    route=f"{record.method} {record.path}",
                    what=what,
                    expected=expected,
                )
            )


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with lower-case names in which secrets are fingerprints: equal secrets stay equal."""
    return {
        name.lower(): _fingerprint(value) if name.lower() in _SECRET_HEADERS else value
        for name, value in headers.items()
    }


def masked_query(query: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return query parameters in which secrets are fingerprints."""
    return tuple((name, _fingerprint(value) if name.lower() in _SECRET_QUERY else value) for name, value in query)


def _fingerprint(value: str) -> str:
    """Keep a scheme such as ``Bearer`` and replace the rest by ten hex digits."""
    scheme, blank, secret = value.rpartition(" ")
    return f"{scheme}{blank}sha256:{hashlib.sha256(secret.encode()).hexdigest()[:10]}"
