"""Who is signed in, over HTTP. Signing in itself belongs to whoever can show a page to the user."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from colab_bridge.api.schemas import AccountBody
from colab_bridge.app import App

__all__ = ["auth_router"]


def auth_router(app: App) -> APIRouter:
    """Return the routes below ``/auth``."""
    router = APIRouter(prefix="/auth")

    @router.get("")
    async def standing(account: str = "") -> dict[str, Any]:
        found = await app.credentials.standing(account)
        return {
            "source": found.source,
            "account": found.account,
            "accounts": [one.to_json(found.accounts.current) for one in found.accounts.accounts.values()],
            "place": found.place,
        }

    @router.post("/use")
    async def use(body: AccountBody) -> dict[str, Any]:
        account = app.credentials.use(body.account)
        return account.to_json(account.email)

    return router
