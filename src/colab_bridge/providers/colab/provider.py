"""The provider ``colab``: runtimes of a Google account.

What a handle says: the request's UUID, the machine's id, the account, the control plane and the hardware. It holds no
token of any kind; ways in are in memory only and are asked for again by a daemon that was started anew.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio
from anyio import to_thread

from colab_bridge.config.services import ServiceUrls, require_same_services, service_urls
from colab_bridge.errors import AuthError, ColabBridgeError, TransientError, UserError
from colab_bridge.model.account import AccountRuntime, Balance, Offers, Propagation
from colab_bridge.model.runtime import Endpoint, RuntimeHandle, RuntimeRequest
from colab_bridge.ports.account import CredentialKind
from colab_bridge.ports.clock import Clock, SystemClock
from colab_bridge.ports.credentials import TokenSource
from colab_bridge.providers.colab.acquire import Acquisition
from colab_bridge.providers.colab.acquiring import Done
from colab_bridge.providers.colab.classify import Verdict, to_error
from colab_bridge.providers.colab.control import ControlPlane
from colab_bridge.providers.colab.control_v1 import ControlV1
from colab_bridge.providers.colab.control_v1beta import ControlV1Beta
from colab_bridge.providers.colab.handles import (
    NAME,
    endpoint_in,
    id_in,
    make_handle,
    no_such_runtime,
    shown,
    wish_of,
)
from colab_bridge.providers.colab.http import CallFailedError, GoogleHttp
from colab_bridge.providers.colab.ledger import Entry, Ledger
from colab_bridge.providers.colab.machine import inspect
from colab_bridge.providers.colab.options import Wanted, read_options
from colab_bridge.providers.colab.overview import overview
from colab_bridge.providers.colab.rates import Rates
from colab_bridge.providers.colab.releasing import give_back
from colab_bridge.providers.colab.values import Assignment, is_endpoint_id, nbh_of
from colab_bridge.providers.colab.ways import GONE_AFTER_S, Ways, endpoint_of

__all__ = ["ColabProvider"]

log = logging.getLogger(__name__)

JUPYTER_PORT: Final = 8080
#: A request that ended this recently is left alone by :meth:`ColabProvider.reconcile`: its session is being made.
FRESH_S: Final = 120.0
#: Seconds after which a request without a runtime cannot get one any more: creation ends after 180 s at the service.
FORGOTTEN_S: Final = 600.0


@dataclass(slots=True)
class _Account:
    """What belongs to one account over one control plane."""

    control: ControlPlane
    v1: ControlV1
    ways: Ways


class ColabProvider:
    """Gets, keeps and gives back Colab runtimes; implements :class:`~colab_bridge.ports.account.AccountProvider`.

    Args:
        folder: Where requests are kept.
        tokens: Where access tokens come from.
        urls: Where Google's services are.
        clock: Time source.
        gone_after_s: Seconds between two listings that prove that a runtime is gone.
        pause: Waits some seconds.
    """

    name = NAME

    def __init__(
        self,
        folder: Path,
        tokens: TokenSource,
        urls: ServiceUrls | None = None,
        clock: Clock | None = None,
        *,
        gone_after_s: float = GONE_AFTER_S,
        pause: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._tokens = tokens
        self._urls = urls if urls is not None else service_urls(os.environ)
        self._clock = clock or SystemClock()
        self._ledger = Ledger(folder / "requests")
        self._rates = Rates(folder / "rates.json")
        self._http = GoogleHttp(tokens)
        self._gone_after_s = gone_after_s
        self._pause = pause
        self._accounts: dict[tuple[str, str], _Account] = {}
        # Requests that are being made or looked after; nobody else may touch theirs meanwhile.
        self._asking: set[str] = set()
        self._choosing = anyio.Lock()
        self._ended: dict[str, float] = {}

    async def aclose(self) -> None:
        """Close the connections to Google."""
        await self._http.aclose()

    # -- runtimes ------------------------------------------------------------------------------------------------

    async def acquire(self, request: RuntimeRequest) -> RuntimeHandle:
        """Get a machine for a session.

        Raises:
            UserError: an option does not fit, or the account may not have such a machine.
            QuotaError: none is free, or a quota is used up.
            AuthError: there is no usable sign-in, or Google has blocked the account.
            TransientError: Google's service does not answer.
        """
        wanted = read_options(request.options)
        account = await self._account_name(wanted.account)
        wanted = replace(wanted, account=account)
        if account:
            request.report(f"account {account}")
        async with self._choosing:
            entry = await to_thread.run_sync(self._open_entry, request, wanted)
            self._asking.add(entry.request)
        try:
            done = await self._acquire(entry, wanted, request.report)
        finally:
            self._asking.discard(entry.request)
            self._ended[entry.request] = self._clock.monotonic()
        return make_handle(entry, done.assignment, done.hardware)

    async def _acquire(self, entry: Entry, wanted: Wanted, report: Callable[[str], None]) -> Done:
        service = self._account(wanted.account, wanted.api)
        acquisition = Acquisition(service.control, entry.request, wanted, self._clock, report, inspect, self._pause)
        acquisition.unsettled = entry.runtime != ""
        try:
            done = await acquisition.run()
        except BaseException:
            # What may have a runtime stays on the list, and is looked for at the next start.
            if not acquisition.unsettled:
                self._ledger.remove(entry.request)
            raise
        held = replace(entry, runtime=done.assignment.id, name=done.assignment.name)
        try:
            self._ledger.write(held)  # before anything that can be cancelled
        except OSError as error:
            # Without its runtime's name the entry still leads there, by its hash.
            log.warning("a runtime was not written down", extra={"runtime": held.runtime, "why": str(error)})
        service.ways.note([done.assignment])
        report(f"Colab gave {done.hardware}: {done.assignment.id}")
        if done.note:
            report(done.note)
        return done

    def _open_entry(self, request: RuntimeRequest, wanted: Wanted) -> Entry:
        """Write down what is about to be asked for; an earlier request of the same kind that was cut is taken up."""
        entry = self._ledger.find(
            lambda old: (
                not old.runtime
                and old.request not in self._asking
                and (old.session, old.project, old.account, old.api) == _who(request, wanted)
                and old.asked_for == wanted.ladder
                and old.version == wanted.version
            )
        )
        session, project, account, api = _who(request, wanted)
        entry = entry or Entry(
            request=str(uuid.uuid4()),
            session=session,
            project=project,
            account=account,
            api=api,
            asked_for=wanted.ladder,
            version=wanted.version,
        )
        entry = replace(entry, asked_at=self._clock.time())
        try:
            self._ledger.write(entry)
        except OSError as error:
            raise UserError(
                f"the request cannot be written down, so nothing is asked for: {error.strerror or error}",
                hint="make room on this disk, then try again",
            ) from error
        return entry

    async def attach(self, handle: RuntimeHandle, *, stale: Endpoint | None = None) -> Endpoint:
        """Return the way in to a runtime, from memory while it has some minutes left.

        Args:
            handle: The runtime.
            stale: A way in that the runtime's proxy has just refused; another one is got.

        Raises:
            RuntimeLostError: Google's listing lacked the runtime twice.
            TransientError: whether it lives cannot be found out now.
            AuthError: the sign-in is refused.
        """
        return await self._service(handle).ways.get(handle.id, stale)

    async def keep_alive(self, handle: RuntimeHandle) -> None:
        """Tell Google that the runtime is in use.

        Raises:
            RuntimeLostError: it is gone.
            AuthError: the sign-in is refused, or lacks the scope.
            TransientError: Google could not be reached.
        """
        service = self._service(handle)
        endpoint = str(handle.data.get("endpoint") or "")
        if not is_endpoint_id(endpoint):
            raise UserError(
                "the public Colab API does not tell this runtime's id, so it cannot be kept alive",
                hint="use the other interface: colab-bridge config set runtimes.NAME.api v1",
                code="CB-COLAB-022",
            )
        try:
            await service.v1.ping(endpoint)
        except CallFailedError as error:
            if error.failure.verdict is not Verdict.NOT_FOUND:
                raise to_error(error.failure) from error
            await service.ways.get(handle.id, stale=await self._known_way(service, handle))

    async def _known_way(self, service: _Account, handle: RuntimeHandle) -> Endpoint | None:
        try:
            return await service.ways.get(handle.id)
        except TransientError:
            return None

    async def release(self, handle: RuntimeHandle) -> None:
        """Give the machine back, and make sure that Google lists it no more.

        Raises:
            TransientError: that could not be done or seen now; the machine may still run.
        """
        service = self._service(handle)
        assignment = Assignment(endpoint=endpoint_in(handle), name=str(handle.data.get("name") or ""))
        await give_back(service.control, service.ways, assignment, self._pause)
        await to_thread.run_sync(self._ledger.remove, str(handle.data.get("request") or uuid.UUID(int=0)))

    # -- the account ---------------------------------------------------------------------------------------------

    async def account(self, account: str = "") -> str:
        """Return the e-mail address of the account that would be used; empty when unknown."""
        return await self._account_name(account)

    async def runtimes(self, account: str = "") -> list[AccountRuntime]:
        """Return every runtime of an account, also those opened in a browser."""
        account = await self._account_name(account)
        found = await self._account(account, "v1").ways.list_now()
        ours = {entry.runtime: entry for entry in await to_thread.run_sync(self._ledger.entries)}
        return await overview(found, ours, await to_thread.run_sync(self._rates.load), account)

    async def adopt(self, runtime_id: str, account: str = "") -> RuntimeHandle:
        """Take over a runtime of an account, whoever made it.

        Raises:
            RuntimeLostError: the account has no such runtime.
        """
        account = await self._account_name(account)
        service = self._account(account, "v1")
        assignment = next((each for each in await service.ways.list_now() if each.id == runtime_id), None)
        if assignment is None:
            raise no_such_runtime(runtime_id)
        known = await to_thread.run_sync(self._ledger.find, lambda entry: entry.runtime == assignment.id)
        entry = known or Entry(
            request=str(uuid.uuid4()),
            session="",
            project="",
            account=account,
            asked_at=self._clock.time(),
            runtime=assignment.id,
            adopted=True,
        )
        # What somebody else made is never released by reconciling; it is written down so that `ps` knows it.
        await to_thread.run_sync(self._ledger.write, entry)
        return make_handle(entry, assignment, assignment.hardware)

    async def release_id(self, runtime_id: str, account: str = "") -> None:
        """Release a runtime of an account by its id; one that is gone already is no error.

        Raises:
            RuntimeLostError: it cannot be the id of a runtime.
        """
        if not is_endpoint_id(runtime_id):
            raise no_such_runtime(runtime_id)
        entry = await to_thread.run_sync(self._ledger.find, lambda each: each.runtime == runtime_id)
        if entry is not None:
            await self._release_entry(entry)
            return
        service = await self._named(account)
        await give_back(service.control, service.ways, Assignment(endpoint=runtime_id), self._pause)

    async def _release_entry(self, entry: Entry) -> None:
        service = self._account(entry.account, entry.api)
        assignment = Assignment(endpoint="" if entry.runtime == id_in(entry.name) else entry.runtime, name=entry.name)
        await give_back(service.control, service.ways, assignment, self._pause)
        await to_thread.run_sync(self._ledger.remove, entry.request)

    async def reconcile(self, in_use: frozenset[str]) -> list[AccountRuntime]:
        """Release what we asked for and nobody holds: after a crash, or a request that was cut.

        Args:
            in_use: Ids of runtimes that sessions hold.
        """
        released: list[AccountRuntime] = []
        first: ColabBridgeError | None = None
        for entry in await to_thread.run_sync(self._ledger.entries):
            async with self._choosing:
                if entry.adopted or entry.runtime in in_use or self._is_fresh(entry):
                    continue
                self._asking.add(entry.request)
            try:
                orphan = await self._orphan(entry)
                if orphan is not None and orphan.id not in in_use:
                    await self._release_entry(replace(entry, runtime=orphan.id, name=orphan.name))
                    released.append(shown(orphan, entry))
            except ColabBridgeError as error:
                first = first or error  # the other entries may belong to another account
            finally:
                self._asking.discard(entry.request)
        if first is not None and not released:
            raise first
        return released

    async def _orphan(self, entry: Entry) -> Assignment | None:
        """Return the runtime that belongs to an entry which nobody holds; an entry without one is removed in time."""
        service = self._account(entry.account, entry.api)
        for assignment in await service.ways.list_now():
            if assignment.id == entry.runtime or (assignment.nbh and assignment.nbh == nbh_of(entry.request)):
                return assignment
        if not entry.runtime:
            try:
                found = await service.control.look(wish_of(entry))
            except CallFailedError as error:
                raise to_error(error.failure) from error
            if isinstance(found, Assignment):
                return found
        if self._clock.time() - entry.asked_at > FORGOTTEN_S or entry.runtime:
            await to_thread.run_sync(self._ledger.remove, entry.request)
        return None

    def _is_fresh(self, entry: Entry) -> bool:
        ended = self._ended.get(entry.request)
        return entry.request in self._asking or (ended is not None and self._clock.monotonic() - ended < FRESH_S)

    async def offers(self, account: str = "") -> Offers:
        """Return what an account may have, with the rates that were seen on this machine."""
        service = await self._named(account)
        try:
            offers = await service.control.offers()
        except CallFailedError as error:
            raise to_error(error.failure) from error
        return replace(offers, rates=await to_thread.run_sync(self._rates.load))

    async def balance(self, account: str = "") -> Balance:
        """Return what is left and how fast it goes."""
        service = await self._named(account)
        try:
            balance = await service.control.balance()
        except CallFailedError as error:
            raise to_error(error.failure) from error
        if balance.runtimes == 1 and balance.rate_hourly:
            await self._learn_rate(service, balance.rate_hourly)
        return balance

    async def _learn_rate(self, service: _Account, rate_hourly: float) -> None:
        """Note what a kind of machine costs, which Google tells only for all runtimes together."""
        try:
            found = await service.ways.list_now()
        except ColabBridgeError:
            return
        if len(found) == 1 and (hardware := found[0].hardware) is not None:
            await to_thread.run_sync(self._rates.note, hardware, rate_hourly)

    # -- beyond the Jupyter server -------------------------------------------------------------------------------

    async def forward(self, handle: RuntimeHandle, port: int) -> Endpoint:
        """Return the way in to another HTTP port of a runtime; it is to be asked for again when it ends.

        Raises:
            RuntimeLostError: the runtime is gone.
            AuthError: the sign-in's client is not admitted to the interface that gives ports.
        """
        if port == JUPYTER_PORT:
            return await self.attach(handle)
        service = self._service(handle)
        try:
            proxy = await service.v1.port_token(endpoint_in(handle), port)
        except CallFailedError as error:
            if error.failure.verdict is Verdict.NOT_FOUND:
                await service.ways.get(handle.id, stale=await self._known_way(service, handle))
            if error.failure.verdict in (Verdict.FORBIDDEN, Verdict.UNAUTHENTICATED):
                raise AuthError(
                    f"Colab does not let this sign-in forward port {port}",
                    hint="sign in with your own client: colab-bridge auth login --help",
                    code="CB-COLAB-024",
                ) from error
            raise to_error(error.failure, subject=f"port {port}") from error
        return endpoint_of(proxy, self._clock.time())

    async def propagate(self, handle: RuntimeHandle, kind: CredentialKind, *, dry_run: bool) -> Propagation:
        """Hand the user's own credentials to a runtime.

        While the user has not agreed on the page, Google answers with a refusal; that is no error here.
        """
        service = self._service(handle)
        try:
            return await service.v1.propagate(endpoint_in(handle), kind, dry_run=dry_run)
        except CallFailedError as error:
            if error.failure.verdict is Verdict.BAD_REQUEST:
                return Propagation(granted=False)
            raise to_error(error.failure) from error

    def require_same_services(self, env: Mapping[str, str]) -> None:
        """Refuse a caller whose environment names other services than ours.

        Raises:
            UserError: it does.
        """
        require_same_services(self._urls, env)

    def browser_url(self, handle: RuntimeHandle, *, file_id: str = "") -> str:
        """Return the address that opens a notebook on the runtime in a browser; it needs the account's sign-in.

        Args:
            handle: The runtime.
            file_id: Notebook in Drive; an empty one when omitted.
        """
        page = f"drive/{quote(file_id, safe='')}" if file_id else "notebooks/empty.ipynb"
        endpoint = endpoint_in(handle)
        backend = f"/tun/m/{endpoint}"
        # Only both forms together attach: the query for the page, the fragment for its script.
        return f"{self._urls.colab}/{page}?dbu={quote(backend, safe='')}#datalabBackendUrl={self._urls.colab}{backend}"

    # -- within --------------------------------------------------------------------------------------------------

    async def _account_name(self, wanted: str) -> str:
        """Return the account that a call is made for, as its token says; what was wanted where it does not."""
        token = await self._tokens.token(account=wanted)
        return token.account or wanted

    async def _named(self, account: str) -> _Account:
        return self._account(await self._account_name(account), "v1")

    def _service(self, handle: RuntimeHandle) -> _Account:
        return self._account(handle.account, str(handle.data.get("api") or "v1"))

    def _account(self, account: str, api: str) -> _Account:
        if (account, api) not in self._accounts:
            v1 = ControlV1(self._http, self._urls, account, self._clock)
            control: ControlPlane = v1
            if api == "v1beta":
                control = ControlV1Beta(self._http, self._urls, account, self._clock, v1)
            ways = Ways(control.listing, self._clock, gone_after_s=self._gone_after_s, pause=self._pause)
            self._accounts[account, api] = _Account(control, v1, ways)
        return self._accounts[account, api]


def _who(request: RuntimeRequest, wanted: Wanted) -> tuple[str, str, str, str]:
    return request.session, request.project, wanted.account, wanted.api
