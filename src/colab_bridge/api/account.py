"""What an account has, may have and pays for, over HTTP.

Everything is a POST: the caller's variables go with it, because they may say who is signed in.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import anyio
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from colab_bridge.api.views import session_view
from colab_bridge.app import App
from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.execution.request import absolute_path
from colab_bridge.model.account import AccountRuntime
from colab_bridge.ports.account import AccountProvider

__all__ = ["account_router"]


class CallerBody(BaseModel):
    """Who asks."""

    model_config = ConfigDict(extra="forbid")

    env: dict[str, str] = Field(default_factory=dict)


class RuntimeBody(CallerBody):
    """Which runtime is meant, by the provider's id."""

    runtime: str = Field(min_length=1, max_length=200)


class AdoptBody(RuntimeBody):
    """Which runtime becomes the session of which project."""

    project: Annotated[str, AfterValidator(absolute_path)] = Field(max_length=4096)
    name: str | None = None


def account_router(app: App) -> APIRouter:
    """Return the routes below ``/account``."""
    router = APIRouter(prefix="/account")

    @router.post("/runtimes")
    async def runtimes(body: CallerBody) -> dict[str, Any]:
        listings = await _everywhere(app, _account(app, body))
        held = {session.handle.id: session.name for session in app.sessions.sessions() if session.handle}
        found = [runtime for listing in listings for runtime in listing.runtimes]
        return {
            "account": listings[0].account,
            "accounts": [_listing(each) for each in listings],
            "runtimes": [{**_runtime(each), "session": held.get(each.id)} for each in found],
        }

    @router.post("/adopt", status_code=201)
    async def adopt(body: AdoptBody) -> dict[str, Any]:
        owner = await _owner(app, _account(app, body), body.runtime)
        session = await app.sessions.adopt(body.runtime, body.project, body.name, body.env, account=owner or "")
        return session_view(app, session)

    @router.post("/release")
    async def release(body: RuntimeBody) -> dict[str, Any]:
        return {"released": body.runtime, "kernels": await _release(app, _account(app, body), body.runtime)}

    @router.post("/gc")
    async def collect(body: CallerBody) -> dict[str, Any]:
        account = _account(app, body)
        released = await account.reconcile(app.sessions.held())
        return {"account": await account.account(), "released": [_runtime(each) for each in released]}

    @router.post("/offers")
    async def offers(body: CallerBody) -> dict[str, Any]:
        account = _account(app, body)
        found = await account.offers()
        return {"account": await account.account(), **dataclasses.asdict(found)}

    @router.post("/usage")
    async def usage(body: CallerBody) -> dict[str, Any]:
        account = _account(app, body)
        balance = await account.balance()
        left_h = balance.units / balance.rate_hourly if balance.units is not None and balance.rate_hourly else None
        return {
            "account": await account.account(),
            **dataclasses.asdict(balance),
            "hours_left": left_h,
            "sessions": _spent_by_session(app),
            "runs": _spent_by_run(app),
        }

    @router.get("/sessions/{name}/url")
    async def url(name: str) -> dict[str, Any]:
        session = app.sessions.session(name)
        provider = app.providers.get(session.provider)
        if session.handle is None or not isinstance(provider, AccountProvider):
            raise UserError(
                f"session {name} has no page in a browser", hint="only Colab runtimes have one: colab-bridge ps"
            )
        return {"session": name, "url": provider.browser_url(session.handle)}

    return router


def _account(app: App, body: CallerBody) -> AccountProvider:
    """Return the provider behind which stands the caller's account."""
    app.credentials.learn(body.env)
    account = app.providers.accounts()[0]
    account.require_same_services(body.env)
    return account


@dataclasses.dataclass(slots=True)
class _Listing:
    """What one account has, or why that is not known."""

    account: str
    runtimes: list[AccountRuntime] = dataclasses.field(default_factory=list)
    error: ColabBridgeError | None = None


async def _everywhere(app: App, provider: AccountProvider) -> list[_Listing]:
    """Ask for the runtimes of every account that is signed in, side by side; the one in use comes first.

    Raises:
        ColabBridgeError: no account could be asked.
    """
    listings = [_Listing(name) for name in app.credentials.everybody()]

    async def ask(listing: _Listing) -> None:
        try:
            listing.runtimes = await provider.runtimes(listing.account)
            listing.account = await provider.account(listing.account)
        except ColabBridgeError as error:
            listing.error = error

    async with anyio.create_task_group() as tasks:
        for listing in listings:
            tasks.start_soon(ask, listing)
    # A token whose account nobody knew before may belong to one that was asked by its name as well.
    listings = list({listing.account: listing for listing in reversed(listings)}.values())[::-1]
    if all(listing.error is not None for listing in listings):
        raise listings[0].error or UserError("nobody is signed in", hint="colab-bridge auth login")
    return listings


async def _owner(app: App, provider: AccountProvider, runtime: str) -> str | None:
    """Return whose a runtime is; None where no account that could be asked has it. Errors as :func:`_everywhere`."""
    for listing in await _everywhere(app, provider):
        if any(each.id == runtime for each in listing.runtimes):
            return listing.account
    return None


def _listing(listing: _Listing) -> dict[str, Any]:
    error = listing.error
    problem = f"{error.message}; {error.hint}" if error is not None else None
    return {"account": listing.account, "runtimes": len(listing.runtimes), "problem": problem}


async def _release(app: App, account: AccountProvider, runtime: str) -> int:
    """Give a runtime back, with the session on it if there is one.

    Returns:
        How many kernels of ours ended with it.

    Raises:
        UserError: the account has no such runtime.
    """
    holder = app.sessions.holder(runtime)
    if holder is not None:
        return await app.sessions.stop(holder.name, app.pool)
    owner = await _owner(app, account, runtime)
    if owner is None:
        raise UserError(
            f"there is neither a session nor a runtime called '{runtime[:60]}'",
            hint="see them: colab-bridge ps --all",
            code="CB-USER-022",
        )
    await account.release_id(runtime, owner)
    return 0


def _spent_by_session(app: App) -> list[dict[str, Any]]:
    """Return what each session on a runtime of an account costs."""
    return [
        {"session": each.name, "label": each.handle.label, **(app.keeper.view(each) or {})}
        for each in app.sessions.sessions()
        if each.handle is not None and isinstance(app.providers.get(each.provider), AccountProvider)
    ]


def _spent_by_run(app: App) -> list[dict[str, Any]]:
    """Return what each of the latest runs has cost, where that is known."""
    return [
        {"run": run.id, "title": run.title, "units": units}
        for run in app.store.runs(limit=50)
        if (units := app.keeper.run_units(run)) is not None
    ]


def _runtime(runtime: AccountRuntime) -> dict[str, Any]:
    return {
        "id": runtime.id,
        "hardware": str(runtime.hardware),
        "ours": runtime.ours,
        "label": runtime.label,
        "version": runtime.version,
        "account": runtime.account,
        "rate_hourly": runtime.rate_hourly,
        "since": runtime.since,
    }
