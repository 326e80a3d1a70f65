"""What machines and their runtime proxies ask the control side."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from colab_bridge.testing.colab.faults import Fault, Switchboard
from colab_bridge.testing.colab.identity import ALL_SCOPES, SCOPE_DRIVE, SCOPE_EMAIL, Identity
from colab_bridge.testing.colab.record import Recorder, RequestRecord
from colab_bridge.testing.colab.state import BackendState, Runtime
from colab_bridge.testing.colab.tokens import ProxyTokens
from colab_bridge.testing.colab.vm.contracts import DataFault, TokenVerdict

__all__ = ["DataPlane"]

#: What a runtime may do with credentials that were handed to it.
_PROPAGATED: Final = {"dfs_ephemeral": frozenset({SCOPE_DRIVE, SCOPE_EMAIL}), "auth_user_ephemeral": ALL_SCOPES}
#: Bytes of an answer after which kind ``cut`` resets the connection: enough for a head, not for much of a body.
_CUT_AFTER_BYTES: Final = 200


class DataPlane:
    """Tokens, faults and credentials for machines.

    Args:
        recorder: Where requests are noted.
        board: Where faults come from.
        tokens: Runtime proxy tokens.
        identity: Sign-ins.
        spawn: Runs a coroutine for as long as the emulator lives.
    """

    def __init__(
        self,
        recorder: Recorder,
        board: Switchboard,
        tokens: ProxyTokens,
        identity: Identity,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
    ) -> None:
        self._recorder = recorder
        self._board = board
        self._tokens = tokens
        self._identity = identity
        self._spawn = spawn
        self._last: dict[str, RequestRecord] = {}
        #: The runtimes; set once, when the state that starts machines with these hooks exists.
        self.state: BackendState | None = None

    def match(
        self,
        plane: str,
        method: str,
        path: str,
        *,
        endpoint: str = "",
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> DataFault | None:
        """Note a request that has come to a runtime proxy, and return what is to go wrong with it."""
        record = self._recorder.request(plane, method, path, query=query, headers=headers, endpoint=endpoint)
        self._last[endpoint] = record
        faults = self._board.take(plane, method, path, endpoint=endpoint)
        record.fault = tuple(fault.kind for fault in faults)
        delay_s = sum(fault.delay_s for fault in faults if fault.kind == "delay")
        found = DataFault(delay_s=delay_s) if delay_s else None
        for fault in faults:
            self._change(fault, endpoint)
            found = _data_fault(fault, delay_s) or found
        return found

    def check_token(self, endpoint: str, port: int, token: str) -> TokenVerdict:
        """Judge a token that came to a runtime proxy with the request that was matched last; empty is none at all."""
        if not token:
            self._violation(endpoint, "no runtime proxy token", "X-Colab-Runtime-Proxy-Token, or its query parameter")
        elif self._identity.valid(token) is not None:
            self._violation(endpoint, "a Google access token for a runtime", "only its runtime proxy token")
        runtime = self._runtime(endpoint)
        if runtime is None:
            return TokenVerdict.UNASSIGNED
        verdict = self._tokens.check(endpoint, port, token)
        assert self.state is not None
        if verdict is TokenVerdict.VALID and self.state.options.traffic_keeps_alive:
            self.state.touch(runtime)
        return verdict

    def credentials(self, endpoint: str, authtype: str) -> str | None:
        """Return an access token for a runtime that was given credentials; None for others."""
        runtime = self._runtime(endpoint)
        email = runtime.propagated.get(authtype) if runtime is not None else None
        if email is None:
            return None
        return self._identity.access_token(
            account=email, scopes=_PROPAGATED[authtype], ttl_s=self._identity.access_ttl_s
        ).value

    async def unassign(self, endpoint: str) -> None:
        """Release a runtime, as code on it asked for."""
        runtime = self._runtime(endpoint)
        if runtime is not None and self.state is not None:
            await self.state.end(runtime, "unassigned")

    def _violation(self, endpoint: str, what: str, expected: str) -> None:
        record = self._last.get(endpoint)
        if record is not None:
            self._recorder.violation(record, what, expected)

    def _change(self, fault: Fault, endpoint: str) -> None:
        runtime = self._runtime(endpoint)
        if fault.kind == "expire_tokens":
            self._tokens.expire_all()
        elif fault.kind in {"kill_vm", "prune"} and runtime is not None and self.state is not None:
            if fault.kind == "kill_vm":
                self.state.drop(runtime, "killed")
            elif self.state.drop(runtime, "idle"):
                self._spawn(runtime.machine.release)

    def _runtime(self, endpoint: str) -> Runtime | None:
        return self.state.runtimes.get(endpoint) if self.state is not None else None


def _data_fault(fault: Fault, delay_s: float) -> DataFault | None:
    """Return a fault in the words of the data plane; None for one that it does not carry out itself."""
    if fault.kind == "status":
        body = fault.body if isinstance(fault.body, str) else json.dumps(fault.body)
        return DataFault(delay_s=delay_s, status=fault.status, body=body.encode(), headers=fault.headers)
    if fault.kind in {"hang", "hang_after"}:
        return DataFault(delay_s=delay_s, hang=True)
    if fault.kind in {"close", "close_after"}:
        return DataFault(delay_s=delay_s, cut_after_bytes=0)
    if fault.kind == "cut":
        return DataFault(delay_s=delay_s, cut_after_bytes=_CUT_AFTER_BYTES)
    return None
