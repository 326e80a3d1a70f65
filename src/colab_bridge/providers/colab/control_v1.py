"""The session backend (``/tun/m``), and what only the internal API (``/v1``) has.

``/tun/m`` takes any sign-in with the scope. ``/v1`` also looks at the project that the sign-in's client belongs to, so
what it alone offers (a free allowance, the tier's name, other ports) is optional.

Source: Google's public clients for Colab.
"""

from __future__ import annotations

from collections.abc import Mapping

from colab_bridge.config.services import ServiceUrls
from colab_bridge.model.account import Balance, Offers, Propagation
from colab_bridge.ports.account import CredentialKind
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.colab import dialects
from colab_bridge.providers.colab.classify import Verdict, of_outcome
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError
from colab_bridge.providers.colab.http import CallFailedError, GoogleHttp, Request
from colab_bridge.providers.colab.values import Assignment, Proxy, Ticket, Wish, nbh_of

__all__ = ["ControlV1", "assign_query"]

#: Google's own clients set no limit; creation has one of 180 s at the service.
ASK_TIMEOUT_S = 200.0
#: The machine often does not answer a ping that was recorded all the same.
PING_TIMEOUT_S = 10.0
_XSRF = "X-Goog-Colab-Token"
_TUNNEL = {"X-Colab-Tunnel": "Google"}
_AUTH_TYPES: Mapping[CredentialKind, str] = {"drive": "dfs_ephemeral", "user": "auth_user_ephemeral"}


def assign_query(wish: Wish) -> dict[str, str]:
    """Return the query of an assign call. Pure."""
    hardware = wish.hardware
    query = {"authuser": "0", "nbh": nbh_of(wish.request)}
    if hardware.kind != "cpu":
        query["variant"] = hardware.kind.upper()
        query["accelerator"] = hardware.accelerator
    if hardware.high_memory:
        query["shape"] = "hm"
    if wish.version:
        query["runtime_version_label"] = wish.version
    return query


class ControlV1:
    """Implements :class:`~.control.ControlPlane` over the session backend, for one account.

    Args:
        http: Makes the calls.
        urls: Where the services are.
        account: E-mail address; the account in use when empty.
        clock: Time source.
    """

    def __init__(self, http: GoogleHttp, urls: ServiceUrls, account: str, clock: Clock) -> None:
        self._http = http
        self._urls = urls
        self._account = account
        self._clock = clock

    # -- the port

    async def look(self, wish: Wish) -> Ticket | Assignment:
        """See whether a request has its runtime already."""
        answer = await self._get("assign", "/tun/m/assign", assign_query(wish))
        if refused := of_outcome(dialects.read_outcome(answer), "assign"):
            raise CallFailedError(refused)
        found = dialects.read_assign(answer)
        return await self._complete(found) if isinstance(found, Assignment) else found

    async def ask(self, wish: Wish, ticket: Ticket) -> Assignment:
        """Ask for the runtime of a request."""
        accelerator = wish.hardware.kind != "cpu"
        answer = await self._http.document(
            Request(
                call="assign",
                method="POST",
                url=f"{self._urls.colab}/tun/m/assign",
                query=assign_query(wish),
                headers={_XSRF: ticket.xsrf.reveal()},
                timeout_s=ASK_TIMEOUT_S,
                creating=True,
                accelerator=accelerator,
            ),
            self._account,
        )
        if refused := of_outcome(dialects.read_outcome(answer), "assign"):
            raise CallFailedError(refused)
        return await self._complete(dialects.read_assignment(answer, self._clock.time()))

    async def _complete(self, assignment: Assignment) -> Assignment:
        if assignment.proxy is not None:
            return assignment
        for listed in await self.listing():
            if listed.endpoint == assignment.endpoint and listed.proxy is not None:
                return listed
        raise ProtocolChangedError("assign.runtimeProxyInfo")

    async def listing(self) -> list[Assignment]:
        """Return every runtime of the account."""
        answer = await self._get("assignments", "/tun/m/assignments", {"authuser": "0"})
        return dialects.read_assignments(answer, self._clock.time())

    async def release(self, runtime: Assignment) -> None:
        """Give a runtime back."""
        path = f"/tun/m/unassign/{runtime.endpoint}"
        try:
            xsrf = dialects.read_ticket(await self._get("unassign", path, {"authuser": "0"}))
            await self._http.body(
                Request(
                    call="unassign",
                    method="POST",
                    url=self._urls.colab + path,
                    query={"authuser": "0"},
                    headers={_XSRF: xsrf.reveal()},
                ),
                self._account,
            )
        except CallFailedError as error:
            if error.failure.verdict is not Verdict.NOT_FOUND:
                raise

    async def offers(self) -> Offers:
        """Return what the account may have."""
        return dialects.read_offers(await self._ccu(), await self._user_info({}))

    async def balance(self) -> Balance:
        """Return what is left and how fast it goes."""
        return dialects.read_balance(await self._ccu(), await self._user_info({"get_ccu_consumption_info": "true"}))

    # -- beyond the port: what no other control plane has

    async def ping(self, endpoint: str) -> None:
        """Say that a runtime is in use. That nothing comes back is a success: the service notes it first."""
        try:
            await self._http.body(
                Request(
                    call="keep-alive",
                    method="GET",
                    url=f"{self._urls.colab}/tun/m/{endpoint}/keep-alive/",
                    query={"authuser": "0"},
                    headers=_TUNNEL,
                    timeout_s=PING_TIMEOUT_S,
                ),
                self._account,
            )
        except CallFailedError as error:
            if not error.failure.silent:
                raise

    async def port_token(self, endpoint: str, port: int) -> Proxy:
        """Return the way in to one port of a runtime."""
        answer = await self._http.document(
            Request(
                call="runtime-proxy-token",
                method="GET",
                url=f"{self._urls.gapi}/v1/runtime-proxy-token",
                query={"endpoint": endpoint, "port": str(port)},
                headers={},
            ),
            self._account,
        )
        return dialects.read_proxy(answer, self._clock.time())

    async def propagate(self, endpoint: str, kind: CredentialKind, *, dry_run: bool) -> Propagation:
        """Hand the user's credentials to a runtime, or see whether that would be possible."""
        path = f"/tun/m/credentials-propagation/{endpoint}"
        query = {
            "authuser": "0",
            "authtype": _AUTH_TYPES[kind],
            "version": "2",
            "dryrun": "true" if dry_run else "false",
            "propagate": "true",
            "record": "false",
        }
        xsrf = dialects.read_ticket(await self._get("credentials-propagation", path, query))
        answer = await self._http.document(
            Request(
                call="credentials-propagation",
                method="POST",
                url=self._urls.colab + path,
                query=query,
                headers={_XSRF: xsrf.reveal()},
            ),
            self._account,
        )
        return dialects.read_consent(answer, loopback=self._urls.colab.startswith("http://"))

    async def _get(self, call: str, path: str, query: Mapping[str, str]) -> Fields:
        request = Request(call=call, method="GET", url=self._urls.colab + path, query=query, headers={})
        return await self._http.document(request, self._account)

    async def _ccu(self) -> Fields:
        return await self._get("ccu-info", "/tun/m/ccu-info", {"authuser": "0"})

    async def _user_info(self, query: Mapping[str, str]) -> Fields | None:
        """Return what only the internal API tells; None where it does not admit us or does not answer soon."""
        request = Request(
            call="user-info",
            method="GET",
            url=f"{self._urls.gapi}/v1/user-info",
            query=query,
            headers={},
            timeout_s=5.0,
        )
        try:
            return await self._http.document(request, self._account)
        except (CallFailedError, ProtocolChangedError):
            return None
