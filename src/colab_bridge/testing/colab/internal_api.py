"""Colab's internal Google API: ``/v1/...``."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from colab_bridge.testing.colab.access import Access
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.dialects import internal_listed, internal_proxy, internal_user
from colab_bridge.testing.colab.http import Call, Refused, Route, google_error, json_answer
from colab_bridge.testing.colab.identity import SCOPE_COLAB
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.state import BackendState, Runtime
from colab_bridge.testing.colab.tokens import ProxyTokens

__all__ = ["InternalApi"]

_JUPYTER_PORT: Final = 8080
_DAY_S: Final = 86_400.0


class InternalApi:
    """What Colab's own extension calls; other projects may or may not be admitted.

    Args:
        state: Accounts and runtimes.
        access: Who may call.
        tokens: Runtime proxy tokens.
        options: Settings of the emulator.
        clock: The emulator's time.
    """

    def __init__(
        self,
        state: BackendState,
        access: Access,
        tokens: ProxyTokens,
        options: EmulatorOptions,
        clock: EmulatorClock,
    ) -> None:
        self._state = state
        self._access = access
        self._tokens = tokens
        self._options = options
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the paths of this host."""
        service = "/$rpc/google.internal.colab.v1.RuntimeService"
        return [
            Route(method="GET", path="/v1/assignments", handler=self._assignments),
            Route(method="GET", path="/v1/user-info", handler=self._user_info),
            Route(method="GET", path="/v1/runtime-proxy-token", handler=self._proxy_token),
            Route(method="POST", path=f"{service}/KeepAliveAssignment", handler=_keep_alive),
        ]

    async def _assignments(self, call: Call) -> Response:
        account = self._caller(call)
        listed = [
            internal_listed(runtime, self._proxy(runtime, _JUPYTER_PORT), self._options.versions[0])
            for runtime in self._state.of(account)
        ]
        # ProtoJSON leaves an empty list out.
        return json_answer({"assignments": listed} if listed else {})

    async def _user_info(self, call: Call) -> Response:
        account = self._caller(call)
        wanted = call.query.get("get_ccu_consumption_info", "false")
        if wanted not in {"true", "false"}:
            what = f"get_ccu_consumption_info={wanted}"
            raise call.refuse(google_error(400, "Invalid value"), what, "true or false")
        midnight = (self._clock.time() // _DAY_S + 1) * _DAY_S
        return json_answer(
            internal_user(
                account,
                consumption=wanted == "true",
                count=len(self._state.of(account)),
                rate=self._state.units_hourly(account),
                refill_at=midnight,
            )
        )

    async def _proxy_token(self, call: Call) -> Response:
        account = self._caller(call)
        endpoint, port = call.query.get("endpoint", ""), call.query.get("port", "")
        if not endpoint or not port.isdecimal() or not 0 < int(port) < 65536:
            what = f"endpoint={endpoint}, port={port}"
            raise call.refuse(google_error(400, "Invalid value"), what, "an endpoint, and a port from 1 to 65535")
        call.record.endpoint = endpoint
        runtime = self._state.find(account, endpoint)
        if runtime is None:
            raise Refused(google_error(404, "Requested entity was not found."))
        return json_answer(self._proxy(runtime, int(port)))

    def _proxy(self, runtime: Runtime, port: int) -> dict[str, str]:
        return internal_proxy(self._tokens.mint(runtime.endpoint, port), runtime.machine.url(port))

    def _caller(self, call: Call) -> Account:
        account = self._access.account(call, {SCOPE_COLAB})
        if not self._options.internal_api:
            raise Refused(google_error(403, "The caller does not have permission"))
        if not call.headers.get("x-colab-client-agent"):
            call.violation("no X-Colab-Client-Agent header", "the client's name")
        return account


async def _keep_alive(call: Call) -> Response:
    """Refuse a call that only Colab's own web page can make."""
    if not call.headers.get("authorization"):
        response = google_error(401, "Request is missing required authentication credential.")
    elif call.headers.get("x-goog-user-project"):
        response = google_error(403, "Caller does not have required permission", reason="USER_PROJECT_DENIED")
    else:
        response = google_error(400, "API key not valid for this consumer", reason="CONSUMER_INVALID")
    raise call.refuse(response, "KeepAliveAssignment over RPC", "GET /tun/m/<endpoint>/keep-alive/")
