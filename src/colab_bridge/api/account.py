"""What an account has, may have and pays for, over HTTP.

Everything is a POST: the caller's variables go with it, because they may say who is signed in.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from colab_bridge.api.views import session_view
from colab_bridge.app import App
from colab_bridge.errors import UserError
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
        account = _account(app, body)
        found = await account.runtimes()
        held = {session.handle.id: session.name for session in app.sessions.sessions() if session.handle}
        return {
            "account": await account.account(),
            "runtimes": [{**_runtime(each), "session": held.get(each.id)} for each in found],
        }

    @router.post("/adopt", status_code=201)
    async def adopt(body: AdoptBody) -> dict[str, Any]:
        _account(app, body)
        return session_view(app, await app.sessions.adopt(body.runtime, body.project, body.name, body.env))

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
    if runtime not in {each.id for each in await account.runtimes()}:
        raise UserError(
            f"there is neither a session nor a runtime called '{runtime[:60]}'",
            hint="see them: colab-bridge ps --all",
            code="CB-USER-022",
        )
    await account.release_id(runtime)
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
    }
