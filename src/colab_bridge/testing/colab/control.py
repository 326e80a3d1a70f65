"""The control interface: look into an emulator and disturb it, over HTTP and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.responses import Response

from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.control_bodies import (
    AccessTokenBody,
    AccountBody,
    BrokenSignInBody,
    CapacityBody,
    ClearBody,
    ClockBody,
    ConsentBody,
    GpuBody,
    LinkBody,
    ServiceAccountBody,
    TokensBody,
)
from colab_bridge.testing.colab.faults import Fault
from colab_bridge.testing.colab.http import Call, Refused, Route, json_answer
from colab_bridge.testing.colab.identity import ALL_SCOPES, Consent, normal_scopes
from colab_bridge.testing.colab.serve import Application, Receive, Send
from colab_bridge.testing.colab.state import Runtime, end_of_life
from colab_bridge.testing.colab.vm.contracts import Gpu

if TYPE_CHECKING:
    from colab_bridge.testing.colab.assembly import ColabEmulator

__all__ = ["Control", "local_only"]

_Body = TypeVar("_Body")


class Control:
    """The same operations as the methods of :class:`ColabEmulator`, for other processes.

    Args:
        emulator: What is looked into.
    """

    def __init__(self, emulator: ColabEmulator) -> None:
        self._emulator = emulator

    def routes(self) -> list[Route]:
        """Return the paths of the interface."""
        table = [
            ("GET", "/state", self._state),
            ("GET", "/requests", self._requests),
            ("GET", "/violations", self._violations),
            ("GET", "/faults", self._faults),
            ("POST", "/faults", self._change_faults),
            ("POST", "/clock", self._clock),
            ("POST", "/vm/{endpoint}/kill", self._kill),
            ("POST", "/vm/{endpoint}/prune", self._prune),
            ("POST", "/vm/{endpoint}/gpus", self._gpus),
            ("POST", "/vm/{endpoint}/link", self._link),
            ("POST", "/accounts/{email}", self._account),
            ("POST", "/capacity", self._capacity),
            ("POST", "/consent", self._consent),
            ("POST", "/tokens", self._tokens),
            ("POST", "/access-tokens", self._access_token),
            ("POST", "/broken-sign-ins", self._break_sign_in),
            ("POST", "/service-accounts", self._service_account),
        ]
        return [Route(method=method, path=path, handler=handler) for method, path, handler in table]

    async def _state(self, call: Call) -> Response:
        emulator = self._emulator
        return json_answer(
            {
                "urls": emulator.urls,
                "now": emulator.clock.time(),
                "offset_s": emulator.clock.offset_s,
                "accounts": [_account(account) for account in emulator.state.accounts.values()],
                "runtimes": [self._runtime(runtime) for runtime in emulator.state.runtimes.values()],
                "ended": emulator.state.ended,
                "capacity": emulator.state.capacity,
                "token_ttl_s": emulator.tokens.ttl_s,
                "requests": len(emulator.requests),
                "violations": len(emulator.violations),
            }
        )

    async def _requests(self, call: Call) -> Response:
        return json_answer({"requests": [dataclasses.asdict(record) for record in self._emulator.requests]})

    async def _violations(self, call: Call) -> Response:
        return json_answer({"violations": [dataclasses.asdict(found) for found in self._emulator.violations]})

    async def _faults(self, call: Call) -> Response:
        pending = self._emulator.faults.pending()
        return json_answer(
            {"faults": [{"id": entry.id, "left": entry.left, **_fault(entry.fault)} for entry in pending]}
        )

    async def _change_faults(self, call: Call) -> Response:
        value = await call.json_object()
        if "clear" in value:
            body = _checked(ClearBody, value)
            self._emulator.faults.clear(None if body.clear is True else body.clear)
            return json_answer({})
        return json_answer({"id": self._emulator.faults.add(_checked(Fault, value))})

    async def _clock(self, call: Call) -> Response:
        body = _checked(ClockBody, await call.json_object())
        await self._emulator.advance(body.advance_s)
        return json_answer({"now": self._emulator.clock.time(), "offset_s": self._emulator.clock.offset_s})

    async def _kill(self, call: Call) -> Response:
        await self._emulator.kill(self._named(call).endpoint)
        return json_answer({})

    async def _prune(self, call: Call) -> Response:
        await self._emulator.prune(self._named(call).endpoint)
        return json_answer({})

    async def _gpus(self, call: Call) -> Response:
        cards = _checked(list[GpuBody], (await call.json_object()).get("gpus"))
        gpus = tuple(Gpu(name=card.name, memory_total_bytes=card.memory_total_bytes) for card in cards)
        self._named(call).machine.set_gpus(gpus)
        return json_answer({})

    async def _link(self, call: Call) -> Response:
        body = _checked(LinkBody, await call.json_object())
        link = self._named(call).machine.link
        if body.action is not None:
            {"cut": link.cut, "hang": link.hang, "refuse": link.refuse, "restore": link.restore}[body.action]()
        if body.latency_s is not None:
            link.latency_s = body.latency_s
        if body.bytes_per_s is not None:
            link.bytes_per_s = body.bytes_per_s
        return json_answer({})

    async def _account(self, call: Call) -> Response:
        body = _checked(AccountBody, await call.json_object())
        account = self._emulator.state.account(call.parts["email"])
        for name in body.model_fields_set:
            setattr(account, name, getattr(body, name))
        return json_answer(_account(account))

    async def _capacity(self, call: Call) -> Response:
        capacity = self._emulator.state.capacity
        for name, count in _checked(CapacityBody, await call.json_object()).capacity.items():
            if count is None:
                capacity.pop(name, None)
            else:
                capacity[name] = count
        return json_answer(capacity)

    async def _consent(self, call: Call) -> Response:
        body = _checked(ConsentBody, await call.json_object())
        withheld = normal_scopes(" ".join(body.withheld))
        self._emulator.identity.consent = Consent(account=body.account, denied=body.denied, withheld=withheld)
        return json_answer({})

    async def _tokens(self, call: Call) -> Response:
        body = _checked(TokensBody, await call.json_object())
        if body.ttl_s is not None:
            self._emulator.tokens.ttl_s = body.ttl_s
        if body.expire:
            self._emulator.tokens.expire_all()
        return json_answer({"ttl_s": self._emulator.tokens.ttl_s})

    async def _access_token(self, call: Call) -> Response:
        body = _checked(AccessTokenBody, await call.json_object())
        account = self._emulator.state.account(body.account or self._emulator.options.email)
        scopes = normal_scopes(body.scopes) or ALL_SCOPES
        grant = self._emulator.identity.access_token(account=account.email, scopes=scopes, ttl_s=body.ttl_s)
        return json_answer({"access_token": grant.value})

    async def _break_sign_in(self, call: Call) -> Response:
        body = _checked(BrokenSignInBody, await call.json_object())
        self._emulator.identity.break_refresh(body.account, error=body.error, subtype=body.subtype)
        return json_answer({})

    async def _service_account(self, call: Call) -> Response:
        return json_answer(self._emulator.service_account(_checked(ServiceAccountBody, await call.json_object()).email))

    def _named(self, call: Call) -> Runtime:
        runtime = self._emulator.state.runtimes.get(call.parts["endpoint"])
        if runtime is None:
            raise Refused(json_answer({"error": f"there is no runtime {call.parts['endpoint']}"}, 404))
        return runtime

    def _runtime(self, runtime: Runtime) -> dict[str, Any]:
        at, why = end_of_life(runtime, self._emulator.options)
        return {
            "endpoint": runtime.endpoint,
            "id": runtime.id,
            "account": runtime.account.email,
            "accelerator": runtime.ask.accelerator,
            "variant": runtime.ask.variant.tunnel,
            "high_memory": runtime.ask.high_memory,
            "version": runtime.ask.version,
            "nbh": runtime.nbh,
            "url": runtime.machine.url(),
            "alive": runtime.machine.alive,
            "created_at": runtime.created_at,
            "active_at": runtime.active_at,
            "ends_at": at,
            "ends_by": why,
            "propagated": runtime.propagated,
        }


def _account(account: Account) -> dict[str, Any]:
    return {
        "email": account.email,
        "name": account.name,
        "tier": account.tier,
        "paid_units": account.paid_units,
        "free_milli_units": account.free_milli_units,
        "eligible": sorted(account.cards),
        "max_runtimes": account.runtime_limit,
        "denylisted": account.denylisted,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {field.name: _plain(getattr(fault, field.name)) for field in dataclasses.fields(fault)}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, MutableMapping) else value


def _checked(kind: type[_Body], value: Any) -> _Body:
    """Return a body of the kind that is wanted.

    Raises:
        Refused: it is another one; the answer says where.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        flaws = [f"{'.'.join(map(str, flaw['loc'])) or 'body'}: {flaw['msg']}" for flaw in error.errors()]
        raise Refused(json_answer({"error": "; ".join(flaws)}, 422)) from error


def local_only(application: Application) -> Application:
    """Return an application that no web page can reach through a browser on this machine.

    Pages of other origins send ``Origin``; a name that was bound to loopback afterwards shows in ``Host``.
    """

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = urlsplit(f"//{headers.get('host', '')}").hostname
        if "origin" in headers or host not in {"127.0.0.1", "localhost"}:
            await json_answer({"error": "not from here"}, 403)(scope, receive, send)
            return
        await application(scope, receive, send)

    return guarded
