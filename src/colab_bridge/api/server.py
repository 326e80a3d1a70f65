"""Builds the ASGI application of the daemon."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from colab_bridge.api.account import account_router
from colab_bridge.api.auth import auth_router
from colab_bridge.api.channels import channels_router
from colab_bridge.api.deployments import deployments_router
from colab_bridge.api.forwards import forwards_router
from colab_bridge.api.jobs import jobs_router
from colab_bridge.api.kernels import kernels_router
from colab_bridge.api.machine import machine_router
from colab_bridge.api.runs import runs_router
from colab_bridge.api.schedules import schedules_router
from colab_bridge.api.secrets import secrets_router
from colab_bridge.api.security import ASGIApp, LocalOnly
from colab_bridge.api.sessions import sessions_router
from colab_bridge.api.ssh import ssh_router
from colab_bridge.api.starts import starts_router
from colab_bridge.api.status import status_router
from colab_bridge.api.sync import sync_router
from colab_bridge.api.terminals import terminals_router
from colab_bridge.app import App
from colab_bridge.errors import ColabBridgeError, InternalError, UserError

__all__ = ["build_api", "protect"]

log = logging.getLogger(__name__)


class _Json(JSONResponse):
    """JSON in which half a character, which user code may print, is no error."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def build_api(app: App) -> FastAPI:
    """Return the API over a running application, without its protection."""
    api = FastAPI(
        title="Colab Bridge daemon",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        default_response_class=_Json,
    )
    for router in (
        status_router(app),
        sessions_router(app),
        runs_router(app),
        jobs_router(app),
        deployments_router(app),
        forwards_router(app),
        terminals_router(app),
        ssh_router(app),
        schedules_router(app),
        kernels_router(app),
        channels_router(app),
        machine_router(app),
        sync_router(app),
        starts_router(app),
        account_router(app),
        auth_router(app),
        secrets_router(app),
    ):
        api.include_router(router, prefix="/v1", dependencies=[Depends(app.wait_recovered)])
    api.add_exception_handler(ColabBridgeError, _problem)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _unexpected)
    return api


def protect(api: FastAPI, *, token: str, port: int) -> ASGIApp:
    """Return the API behind the checks of :class:`LocalOnly`."""
    return LocalOnly(api, token=token, port=port)


def _answer(error: ColabBridgeError, status: int | None = None) -> JSONResponse:
    problem = error.to_problem()
    if status is not None:
        problem["status"] = status
    return _Json(problem, status_code=problem["status"], media_type="application/problem+json")


async def _problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ColabBridgeError)  # registered for this class only
    return _answer(error)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # registered for this class only
    first = error.errors()[0] if error.errors() else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return _answer(UserError(f"{where}: {first.get('msg', 'invalid')}", hint="see docs/design/daemon-api.md"))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # registered for this class only
    return _answer(UserError(str(error.detail), hint="see docs/design/daemon-api.md"), status=error.status_code)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", exc_info=error, extra={"path": request.url.path})
    return _answer(InternalError(f"{type(error).__name__} in the daemon", hint="see: colab-bridge daemon logs"))
