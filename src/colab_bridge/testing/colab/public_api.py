"""The public Colab API: ``/v1beta/...`` and ``/v1/operations/...``."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from starlette.responses import Response

from colab_bridge.errors import ColabBridgeError
from colab_bridge.testing.colab.access import Access
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.dialects import PUBLIC_REASONS, public_runtime, public_spec
from colab_bridge.testing.colab.faults import Fault, RefusalKind
from colab_bridge.testing.colab.hardware import Ask, ask_from_spec, specs
from colab_bridge.testing.colab.http import Call, Refused, Route, google_error, json_answer
from colab_bridge.testing.colab.identity import SCOPE_COLAB, SCOPE_COLAB_READ
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.refused import RefusedValueError
from colab_bridge.testing.colab.state import BackendState, Runtime
from colab_bridge.testing.colab.tokens import ProxyTokens

__all__ = ["PublicApi"]

_DOMAIN: Final = "colaboratory.googleapis.com"
_READ: Final = (SCOPE_COLAB, SCOPE_COLAB_READ)
_RUNTIME_ID: Final = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)s")
#: A wait is best effort and may return early; production's own limit is not published.
_LONGEST_WAIT_S: Final = 300.0
_JUPYTER_PORT: Final = 8080


@dataclass(slots=True, kw_only=True)
class _Operation:
    """A creation on its way.

    Attributes:
        name: ``operations/...``.
        account: Whose it is.
        runtime_id: Name of the runtime that is made.
        done: Set when there is a result.
        error: The error, if it failed.
        runtime: The runtime, if it did not.
    """

    name: str
    account: Account
    runtime_id: str
    done: anyio.Event = field(default_factory=anyio.Event)
    error: dict[str, Any] | None = None
    runtime: Runtime | None = None


class PublicApi:
    """The API for everybody; plain JSON, no XSRF.

    Args:
        state: Accounts and runtimes.
        access: Who may call.
        tokens: Runtime proxy tokens.
        options: Settings of the emulator.
        spawn: Runs a coroutine beside the requests, for as long as the emulator lives.
    """

    def __init__(
        self,
        state: BackendState,
        access: Access,
        tokens: ProxyTokens,
        options: EmulatorOptions,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        self._state = state
        self._access = access
        self._tokens = tokens
        self._options = options
        self._spawn = spawn
        self._operations: dict[str, _Operation] = {}
        self._requests: dict[tuple[str, str], tuple[str, _Operation]] = {}

    def routes(self) -> list[Route]:
        """Return the paths of this host."""
        return [
            Route(method="GET", path="/v1beta/runtimes", handler=self._list),
            Route(method="POST", path="/v1beta/runtimes", handler=self._create),
            Route(method="GET", path="/v1beta/runtimes/{id}", handler=self._get),
            Route(method="DELETE", path="/v1beta/runtimes/{id}", handler=self._delete),
            Route(method="GET", path="/v1beta/runtimespecs", handler=self._specs),
            Route(method="GET", path="/v1beta/subscription", handler=self._subscription),
            Route(method="GET", path="/v1/operations", handler=self._operations_list),
            Route(method="GET", path="/v1/operations/{id}", handler=self._operation),
        ]

    # -- runtimes

    async def _list(self, call: Call) -> Response:
        runtimes = [self._runtime(runtime) for runtime in self._state.of(self._caller(call, _READ))]
        return json_answer({"runtimes": runtimes} if runtimes else {})

    async def _get(self, call: Call) -> Response:
        return json_answer(self._runtime(self._find(call, self._caller(call, _READ))))

    async def _delete(self, call: Call) -> Response:
        await self._state.end(self._find(call, self._caller(call, (SCOPE_COLAB,))), "unassigned")
        return json_answer({})

    async def _create(self, call: Call) -> Response:
        """Start a creation; the same ``requestId`` with the same body is the same creation."""
        account = self._caller(call, (SCOPE_COLAB,))
        body = await call.json_object()
        request_id, runtime_id = self._ids(call)
        try:
            ask = ask_from_spec(body, self._options.versions)
        except RefusedValueError as error:
            raise call.refuse(google_error(400, error.what), error.what, error.expected) from error
        said = json.dumps([body, runtime_id], sort_keys=True)
        before = self._requests.get((account.email, request_id)) if request_id else None
        if before is not None:
            if before[0] != said:
                what = "requestId used again for another request"
                raise call.refuse(google_error(400, what), what, "a new UUID for each request")
            return json_answer(self._document(before[1]))
        taken = self._state.find_id(account, runtime_id) is not None or any(
            other.runtime_id == runtime_id and not other.done.is_set() for other in self._operations.values()
        )
        operation = _Operation(
            name=f"operations/op-{secrets.token_hex(8)}",
            account=account,
            runtime_id=runtime_id or f"r-{secrets.token_hex(6)}",
        )
        self._operations[operation.name] = operation
        if request_id:
            self._requests[account.email, request_id] = (said, operation)
        fault = next((fault for fault in call.faults if fault.kind == "refuse"), None)
        if runtime_id and taken:
            operation.error = {"code": 6, "message": f"runtimes/{runtime_id} exists already"}
            operation.done.set()
        else:
            self._spawn(lambda: self._carry_out(operation, ask, fault))
        return json_answer(self._document(operation))

    def _ids(self, call: Call) -> tuple[str, str]:
        request_id, runtime_id = call.query.get("requestId", ""), call.query.get("runtimeId", "")
        if not request_id:
            call.violation("no requestId", "a UUID, without which a repeated call makes a second runtime")
        elif not _is_uuid4(request_id):
            raise call.refuse(google_error(400, "requestId"), f"requestId={request_id}", "a UUID of version 4")
        if runtime_id and not _RUNTIME_ID.fullmatch(runtime_id):
            what, expected = f"runtimeId={runtime_id}", "1 to 63 of a-z, 0-9 and -, from a letter to a letter or digit"
            raise call.refuse(google_error(400, "runtimeId"), what, expected)
        return request_id, runtime_id

    async def _carry_out(self, operation: _Operation, ask: Ask, fault: Fault | None) -> None:
        forced = fault.refusal if fault else None
        try:
            result = await self._state.allocate(operation.account, ask, runtime_id=operation.runtime_id, forced=forced)
            if isinstance(result, Runtime):
                operation.runtime = result
            else:
                operation.error = _failed_precondition(result)
        except (ColabBridgeError, RuntimeError) as error:  # the machine did not start
            operation.error = {"code": 13, "message": str(error)}
        finally:
            operation.done.set()

    def _find(self, call: Call, account: Account) -> Runtime:
        runtime = self._state.find_id(account, call.parts["id"])
        if runtime is None:
            raise Refused(google_error(404, f"Runtime runtimes/{call.parts['id']} was not found."))
        call.record.endpoint = runtime.endpoint
        return runtime

    def _runtime(self, runtime: Runtime) -> dict[str, Any]:
        return public_runtime(
            runtime,
            self._tokens.mint(runtime.endpoint, _JUPYTER_PORT),
            runtime.machine.url(_JUPYTER_PORT),
            version=self._options.versions[0],
            with_endpoint=self._options.public_endpoints,
        )

    # -- the account

    async def _specs(self, call: Call) -> Response:
        account = self._caller(call, _READ)
        listed = [{"key": public_spec(ask), "eligible": account.may_have(ask)} for ask in specs()]
        return json_answer({"runtimeSpecs": listed})

    async def _subscription(self, call: Call) -> Response:
        account = self._caller(call, _READ)
        return json_answer({"name": "subscription", "tier": account.rules.public})

    # -- operations

    async def _operations_list(self, call: Call) -> Response:
        self._caller(call, _READ)
        return google_error(501, "Operation is not implemented, or supported, or enabled.")

    async def _operation(self, call: Call) -> Response:
        account = self._caller(call, _READ)
        name, _, verb = call.parts["id"].partition(":")
        operation = self._operations.get(f"operations/{name}")
        if operation is None or operation.account is not account:
            raise Refused(google_error(404, f"Operation operations/{name} was not found."))
        if verb == "wait":
            with anyio.move_on_after(self._wait_s(call)):
                await operation.done.wait()
        elif verb:
            raise call.refuse(google_error(404, "Not found"), f"verb {verb}", "wait, or none")
        return json_answer(self._document(operation))

    def _wait_s(self, call: Call) -> float:
        duration = _DURATION.fullmatch(call.query.get("timeout", "0s"))
        if duration is None:
            what = f"timeout={call.query['timeout']}"
            raise call.refuse(google_error(400, "timeout"), what, "seconds and s, as in 200s")
        return min(float(duration[1]), _LONGEST_WAIT_S)

    def _document(self, operation: _Operation) -> dict[str, Any]:
        kind = "type.googleapis.com/google.cloud.colab.v1beta.CreateRuntimeMetadata"
        document: dict[str, Any] = {
            "name": operation.name,
            "done": operation.done.is_set(),
            "metadata": {"@type": kind, "runtime": f"runtimes/{operation.runtime_id}"},
        }
        if operation.error is not None:
            document["error"] = operation.error
        elif operation.runtime is not None:
            document["response"] = self._runtime(operation.runtime)
        return document

    def _caller(self, call: Call, scopes: tuple[str, ...]) -> Account:
        """Return the account that calls.

        Raises:
            Refused: 401, or 403 without the scope or where the API is not enabled.
        """
        grant = self._access.grant(call)
        if not grant.scopes & set(scopes):
            reason = "ACCESS_TOKEN_SCOPE_INSUFFICIENT"
            raise Refused(google_error(403, "Request had insufficient authentication scopes.", reason=reason))
        if not self._options.public_api:
            message = "Colab API has not been used in this project before or it is disabled."
            raise Refused(google_error(403, message, reason="SERVICE_DISABLED"))
        if not call.headers.get("x-colab-client-agent"):
            call.violation("no X-Colab-Client-Agent header", "the client's name")
        return self._state.account(grant.account)


def _failed_precondition(why: RefusalKind) -> dict[str, Any]:
    reason = PUBLIC_REASONS[why]
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": _DOMAIN}
    return {"code": 9, "message": why.replace("_", " "), "details": [detail]}


def _is_uuid4(text: str) -> bool:
    try:
        return uuid.UUID(text).version == 4
    except ValueError:
        return False
