"""The public Colab API (``/v1beta``).

The id of a runtime is made from the request's UUID, so that looking it up tells whether an earlier question was carried
out; the question itself carries a ``requestId`` of its own for each try that had a definite answer, because under the
same one the service repeats its old answer.

Source: reference of the Colab API, revision 20260802.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import replace

import anyio

from colab_bridge.config.services import ServiceUrls
from colab_bridge.model.account import Balance, Offers
from colab_bridge.model.hardware import ACCELERATORS
from colab_bridge.ports.clock import Clock
from colab_bridge.providers.colab import dialects
from colab_bridge.providers.colab.classify import Failure, Verdict, of_operation
from colab_bridge.providers.colab.control_v1 import ASK_TIMEOUT_S, ControlV1
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError
from colab_bridge.providers.colab.http import CallFailedError, GoogleHttp, Request
from colab_bridge.providers.colab.values import Assignment, Ticket, Wish

__all__ = ["ControlV1Beta", "request_id", "runtime_id", "spec_of"]

#: Seconds that one call to wait for an operation may take at the service; it may return earlier and undone.
_WAIT_S = 30
_ALREADY_EXISTS = 6
_PAUSE_S = 1.0


def runtime_id(request: str) -> str:
    """Return the id under which a request's runtime is made: 39 characters, by RFC 1034. Pure."""
    return f"cb-{uuid.UUID(request)}"


def request_id(wish: Wish) -> str:
    """Return the id of one try: the same for each repetition of it, in the form of a random UUID. Pure."""
    digest = hashlib.sha256(f"{wish.request}/{wish.hardware}/{wish.attempt}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def spec_of(wish: Wish) -> dict[str, object]:
    """Return the body of a creation. Pure."""
    hardware = wish.hardware
    card = ACCELERATORS.get(hardware.accelerator)
    # Cards that only come with much memory are listed under that shape; the other interface must not be told one.
    high_memory = hardware.high_memory or (card is not None and card.high_memory_only)
    spec = {
        "variant": f"VARIANT_{hardware.kind.upper()}",
        "accelerator": hardware.accelerator or "NONE",
        "shape": "SHAPE_HIGHMEM" if high_memory else "SHAPE_STANDARD",
    }
    return {"runtimeSpec": spec, **({"version": wish.version} if wish.version else {})}


class ControlV1Beta:
    """Implements :class:`~.control.ControlPlane` over the public API, for one account.

    Args:
        http: Makes the calls.
        urls: Where the services are.
        account: E-mail address; the account in use when empty.
        clock: Time source.
        v1: For the balance, which the public API does not tell.
    """

    def __init__(self, http: GoogleHttp, urls: ServiceUrls, account: str, clock: Clock, v1: ControlV1) -> None:
        self._http = http
        self._base = urls.public_api
        self._account = account
        self._clock = clock
        self._v1 = v1

    async def look(self, wish: Wish) -> Ticket | Assignment:
        """See whether a request has its runtime already."""
        try:
            answer = await self._call("GET", f"/v1beta/runtimes/{runtime_id(wish.request)}", "runtimes.get")
        except CallFailedError as error:
            if error.failure.verdict is Verdict.NOT_FOUND:
                return Ticket()
            raise
        found = dialects.read_runtime(answer, self._clock.time())
        if found.proxy is None:  # it is being made
            raise CallFailedError(Failure(verdict=Verdict.UNCERTAIN, call="runtimes.get"))
        return found

    async def ask(self, wish: Wish, ticket: Ticket) -> Assignment:
        """Ask for the runtime of a request, and wait until it is there."""
        accelerator = wish.hardware.kind != "cpu"
        try:
            with anyio.fail_after(ASK_TIMEOUT_S):
                operation = await self._call(
                    "POST",
                    "/v1beta/runtimes",
                    "runtimes.create",
                    query={"requestId": request_id(wish), "runtimeId": runtime_id(wish.request)},
                    json=spec_of(wish),
                    accelerator=accelerator,
                )
                operation = await self._finished(operation)
        except TimeoutError:
            raise CallFailedError(Failure(verdict=Verdict.UNCERTAIN, call="runtimes.create")) from None
        if error := operation.maybe("error"):
            if error.number("code") == _ALREADY_EXISTS:
                raise CallFailedError(Failure(verdict=Verdict.UNCERTAIN, call="runtimes.create"))
            failure = of_operation(error, call="runtimes.create", accelerator=accelerator)
            if failure.verdict is Verdict.CAPACITY and not await self._may_have(wish.hardware.accelerator):
                failure = replace(failure, verdict=Verdict.NOT_ENTITLED)
            raise CallFailedError(failure)
        made = dialects.read_runtime(operation.inner("response"), self._clock.time())
        if made.proxy is not None:
            return made
        found = await self.look(wish)
        if isinstance(found, Ticket):
            raise ProtocolChangedError("runtimes.create.response.connectionInfo")
        return found

    async def _may_have(self, accelerator: str) -> bool:
        """Tell whether the account may have a card: the error for one that is not free is the same."""
        if not accelerator:
            return True
        try:
            _, refused = dialects.read_specs(await self._call("GET", "/v1beta/runtimespecs", "runtimespecs.list"))
        except (CallFailedError, ProtocolChangedError):
            return True
        return accelerator not in refused

    async def _finished(self, operation: Fields) -> Fields:
        while not operation.flag("done"):
            name = operation.text("name")
            if not name.startswith("operations/") or not name.isascii() or {"?", "#", "%", " "} & set(name):
                raise ProtocolChangedError(f"{operation.where}.name")
            began = self._clock.monotonic()
            try:
                operation = await self._call(
                    "GET",
                    f"/v1/{name}:wait",
                    "operations.wait",
                    query={"timeout": f"{_WAIT_S}s"},
                    timeout_s=_WAIT_S + 15,
                )
            except CallFailedError as error:
                # Only the waiting has failed; whether the runtime was made is found out by looking.
                raise CallFailedError(
                    Failure(verdict=Verdict.UNCERTAIN, call="operations.wait", detail=error.failure.detail)
                ) from None
            if not operation.flag("done") and self._clock.monotonic() - began < _PAUSE_S:
                await anyio.sleep(_PAUSE_S)  # the service may return at once; it must not be asked in a loop
        return operation

    async def listing(self) -> list[Assignment]:
        """Return every runtime of the account."""
        return dialects.read_runtimes(await self._call("GET", "/v1beta/runtimes", "runtimes.list"), self._clock.time())

    async def release(self, runtime: Assignment) -> None:
        """Give a runtime back."""
        if not runtime.name:
            await self._v1.release(runtime)
            return
        try:
            await self._call("DELETE", f"/v1beta/{runtime.name}", "runtimes.delete")
        except CallFailedError as error:
            if error.failure.verdict is not Verdict.NOT_FOUND:
                raise

    async def offers(self) -> Offers:
        """Return what the account may have."""
        eligible, ineligible = dialects.read_specs(await self._call("GET", "/v1beta/runtimespecs", "runtimespecs.list"))
        try:
            answer = await self._call("GET", "/v1beta/subscription", "subscription")
            tier = dialects.read_tier(answer.word("tier"))
        except CallFailedError:
            tier = ""  # part of the API in some revisions only
        return Offers(tier=tier, eligible=eligible, ineligible=ineligible)

    async def balance(self) -> Balance:
        """Return what is left, which only the other control plane tells."""
        return await self._v1.balance()

    async def _call(
        self,
        method: str,
        path: str,
        call: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Mapping[str, object] | None = None,
        accelerator: bool = False,
        timeout_s: float = 30.0,
    ) -> Fields:
        return await self._http.document(
            Request(
                call=call,
                method=method,
                url=self._base + path,
                query=query or {},
                headers={},
                json=json,
                timeout_s=timeout_s,
                creating=call == "runtimes.create",
                accelerator=accelerator,
            ),
            self._account,
        )
