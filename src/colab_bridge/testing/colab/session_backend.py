"""The session backend: ``/tun/m/...`` and ``/vscode/...``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from colab_bridge.testing.colab.access import Access, XsrfTokens
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.dialects import (
    OUTCOMES,
    tunnel_assignment,
    tunnel_listed,
    tunnel_proxy,
    tunnel_to_assign,
    tunnel_units,
)
from colab_bridge.testing.colab.faults import RefusalKind
from colab_bridge.testing.colab.hardware import Ask, ask_from_query
from colab_bridge.testing.colab.http import Call, Refused, Route, json_answer, text
from colab_bridge.testing.colab.identity import SCOPE_COLAB
from colab_bridge.testing.colab.options import EmulatorOptions
from colab_bridge.testing.colab.refused import RefusedValueError
from colab_bridge.testing.colab.state import BackendState, Runtime
from colab_bridge.testing.colab.tokens import ProxyTokens

__all__ = ["AUTH_TYPES", "SessionBackend"]

#: Credentials that can be handed to a runtime: Drive's, and the user's own.
AUTH_TYPES: Final = ("dfs_ephemeral", "auth_user_ephemeral")
_NBH: Final = re.compile(r"[a-zA-Z0-9\-_.]{44}")
_STATUSES: Final[dict[RefusalKind, int]] = {"invalid": 400, "not_entitled": 400, "too_many": 412, "capacity": 503}
_JUPYTER_PORT: Final = 8080


class SessionBackend:
    """Colab's front end for sessions.

    Args:
        state: Accounts and runtimes.
        access: Who may call.
        tokens: Runtime proxy tokens.
        options: Settings of the emulator.
        consent_url: Makes the address of the page on which a person agrees that a runtime gets credentials.
    """

    def __init__(
        self,
        state: BackendState,
        access: Access,
        tokens: ProxyTokens,
        options: EmulatorOptions,
        consent_url: Callable[[Account, str], str],
    ) -> None:
        self._state = state
        self._access = access
        self._tokens = tokens
        self._options = options
        self._consent_url = consent_url
        self._xsrf = XsrfTokens()

    def routes(self) -> list[Route]:
        """Return the paths of this host."""
        return [
            Route(method="GET", path="/tun/m/assign", handler=self._get_assign),
            Route(method="POST", path="/tun/m/assign", handler=self._post_assign),
            Route(method="GET", path="/tun/m/assignments", handler=self._assignments),
            Route(method="GET", path="/tun/m/ccu-info", handler=self._units),
            Route(method="GET", path="/tun/m/unassign/{endpoint}", handler=self._get_unassign),
            Route(method="POST", path="/tun/m/unassign/{endpoint}", handler=self._post_unassign),
            Route(method="GET", path="/tun/m/credentials-propagation/{endpoint}", handler=self._get_propagation),
            Route(method="POST", path="/tun/m/credentials-propagation/{endpoint}", handler=self._post_propagation),
            Route(method="GET", path="/tun/m/{endpoint}/keep-alive/", handler=self._keep_alive),
            Route(method="GET", path="/vscode/experiment-state", handler=self._experiments),
            Route(method="GET", path="/vscode/redirect", handler=_show_code),
            Route(method="GET", path="/vscode/auth-success", handler=_signed_in),
        ]

    # -- assign

    async def _get_assign(self, call: Call) -> Response:
        """Tell what a notebook has; this never makes a runtime."""
        account = self._caller(call)
        nbh, ask = _notebook(call), self._ask(call)
        runtime = self._state.find_notebook(account, nbh)
        if runtime is None:
            return _answer(tunnel_to_assign(ask, nbh, self._xsrf.mint(account, _url(call))))
        return _answer(self._assignment(runtime, call))

    async def _post_assign(self, call: Call) -> Response:
        account = self._caller(call)
        nbh, ask = _notebook(call), self._ask(call)
        self._check_xsrf(call, account, _url(call))
        fault = next((fault for fault in call.faults if fault.kind == "refuse"), None)
        if fault is not None and fault.outcome is not None:
            return _answer({"outcome": fault.outcome})
        result = await self._state.allocate(account, ask, nbh=nbh, forced=fault.refusal if fault else None)
        if not isinstance(result, Runtime):
            return _refusal(result)
        call.record.endpoint = result.endpoint
        return _answer(self._assignment(result, call))

    def _assignment(self, runtime: Runtime, call: Call) -> dict[str, Any]:
        return tunnel_assignment(
            runtime,
            self._proxy(runtime),
            int(self._options.idle_timeout_s),
            answer_to="POST" if call.record.method == "POST" else "GET",
        )

    def _ask(self, call: Call) -> Ask:
        try:
            return ask_from_query(call.query, self._options.versions)
        except RefusedValueError as error:
            raise call.refuse(text("Bad Request", 400), error.what, error.expected) from error

    async def _assignments(self, call: Call) -> Response:
        account = self._caller(call)
        runtimes = self._state.of(account)
        return _answer({"assignments": [tunnel_listed(runtime, self._proxy(runtime)) for runtime in runtimes]})

    def _proxy(self, runtime: Runtime) -> dict[str, Any]:
        token = self._tokens.mint(runtime.endpoint, _JUPYTER_PORT)
        return tunnel_proxy(token, runtime.machine.url(_JUPYTER_PORT))

    async def _units(self, call: Call) -> Response:
        account = self._caller(call)
        count = len(self._state.of(account))
        return _answer(tunnel_units(account, count=count, rate=self._state.units_hourly(account)))

    # -- unassign

    async def _get_unassign(self, call: Call) -> Response:
        account = self._caller(call)
        self._runtime(call, account)
        return _answer({"token": self._xsrf.mint(account, _url(call))})

    async def _post_unassign(self, call: Call) -> Response:
        account = self._caller(call)
        self._check_xsrf(call, account, _url(call))
        await self._state.end(self._runtime(call, account), "unassigned")
        return _answer({})

    # -- credentials

    async def _get_propagation(self, call: Call) -> Response:
        account = self._caller(call, agent=False)
        self._runtime(call, account)
        self._propagation(call)
        return _answer({"token": self._xsrf.mint(account, call.record.path)})

    async def _post_propagation(self, call: Call) -> Response:
        """Hand credentials over, or tell whether that would work (dry run)."""
        account = self._caller(call, agent=False)
        runtime = self._runtime(call, account)
        authtype, dry_run = self._propagation(call)
        # One token serves the dry run and the call after it, whose query differs.
        self._check_xsrf(call, account, call.record.path)
        consented = authtype in account.drive_consent
        if dry_run:
            if consented:
                return _answer({"success": True})
            url = self._consent_url(account, authtype)
            return _answer({"success": False, "unauthorized_redirect_uri": url})
        if not consented and account.consent_partial:
            return _answer({"success": False})
        if not consented:
            return text("Bad Request", 400)  # nobody agreed yet, or somebody else did
        runtime.propagated[authtype] = account.email
        return _answer({"success": True})

    def _propagation(self, call: Call) -> tuple[str, bool]:
        """Check the parameters of credentials propagation; return the kind of credentials and whether it is a dry run.

        Raises:
            Refused: one is missing or unknown.
        """
        query = call.query
        wanted = {"version": ("2",), "propagate": ("true",), "record": ("false",), "authtype": AUTH_TYPES}
        for name, values in {**wanted, "dryrun": ("true", "false")}.items():
            if query.get(name) not in values:
                what = f"{name}={query.get(name, '')}"
                raise call.refuse(text("Bad Request", 400), what, " or ".join(values))
        return query["authtype"], query["dryrun"] == "true"

    # -- the rest

    async def _keep_alive(self, call: Call) -> Response:
        """Note activity on arrival; what the machine makes of the ping does not matter."""
        account = self._caller(call, agent=False)
        if call.headers.get("x-colab-tunnel") != "Google":
            raise call.refuse(text("Bad Request", 400), "no X-Colab-Tunnel header", "X-Colab-Tunnel: Google")
        self._state.touch(self._runtime(call, account))
        call.silent = self._options.keep_alive == "hang"
        return Response(status_code=200)

    async def _experiments(self, call: Call) -> Response:
        if call.headers.get("authorization"):
            self._access.grant(call)
        return _answer({"experiments": dict(self._options.experiments), "selectedIds": []})

    # -- checks

    def _caller(self, call: Call, *, agent: bool = True) -> Account:
        """Return the account that calls, after everything that all paths here ask for.

        Args:
            call: The call.
            agent: Whether all known clients name themselves on this path.

        Raises:
            Refused: 401, 403, or 400 without ``authuser``.
        """
        account = self._access.account(call, {SCOPE_COLAB}, needs_email=True)
        if call.query.get("authuser") != "0":
            raise call.refuse(text("Bad Request", 400), "no authuser", "authuser=0 in the query")
        if agent:
            if not call.headers.get("x-colab-client-agent"):
                call.violation("no X-Colab-Client-Agent header", "the client's name")
            if "application/json" not in call.headers.get("accept", ""):
                call.violation("no Accept header", "Accept: application/json")
        return account

    def _runtime(self, call: Call, account: Account) -> Runtime:
        call.record.endpoint = call.parts["endpoint"]
        runtime = self._state.find(account, call.parts["endpoint"])
        if runtime is None:
            raise Refused(text("Not Found", 404))
        return runtime

    def _check_xsrf(self, call: Call, account: Account, url: str) -> None:
        if not self._xsrf.fits(call.headers.get("x-goog-colab-token", ""), account, url):
            what = "XSRF token of another URL" if call.headers.get("x-goog-colab-token") else "no XSRF token"
            raise call.refuse(text("Forbidden", 403), what, "X-Goog-Colab-Token with the token of a GET on this URL")


def _notebook(call: Call) -> str:
    nbh = call.query.get("nbh", "")
    if not _NBH.fullmatch(nbh):
        raise call.refuse(text("Bad Request", 400), f"nbh={nbh}", "44 characters of a-z, A-Z, 0-9, -, _ and .")
    return nbh


def _url(call: Call) -> str:
    """Return path and query in an order of their own, which is what an XSRF token belongs to."""
    return f"{call.record.path}?{urlencode(sorted(call.query.multi_items()))}"


def _answer(value: Mapping[str, Any]) -> Response:
    return json_answer(value, xssi=True)


def _refusal(why: RefusalKind) -> Response:
    if why in OUTCOMES:
        return _answer({"outcome": OUTCOMES[why]})
    return text(why.replace("_", " "), _STATUSES[why])


async def _show_code(call: Call) -> Response:
    """Show the code that a person takes over by hand."""
    return text(call.query.get("code", "") or f"Error: {call.query.get('error', 'no code')}")


async def _signed_in(call: Call) -> Response:
    return text("You are signed in.")
