"""Bodies of the API's requests."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from colab_bridge.execution.request import RunRequest, absolute_path
from colab_bridge.execution.service import CANCEL_GRACE_S
from colab_bridge.sessions.targets import SessionWish

__all__ = [
    "AccountBody",
    "ApprovalBody",
    "CancelBody",
    "DeployBody",
    "ForwardBody",
    "InputBody",
    "KernelBody",
    "KillBody",
    "NewSessionBody",
    "RunRequest",
    "SaveBody",
    "ScheduleBody",
    "SessionBody",
    "ShellBody",
]


_ADDRESS: Final = re.compile(r"[^@\s]{1,100}@[^@\s]{1,150}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SessionBody(_Strict):
    """``POST /v1/sessions``: with a name a new session, without one the project's own."""

    project: str = Field(pattern=r"^(/|[A-Za-z]:[\\/]|\\\\)")
    name: str | None = None
    runtime: str | None = None
    provider: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)

    _project = field_validator("project")(absolute_path)

    def wish(self) -> SessionWish:
        """Return what the caller says about the session."""
        return SessionWish(
            project=self.project,
            name=self.name,
            runtime=self.runtime,
            provider=self.provider,
            options=self.options,
            env=self.env,
        )


class NewSessionBody(SessionBody):
    """The same with ``choose``: what asks for nothing in this project uses this session from now on."""

    choose: bool = False


class KernelBody(SessionBody):
    """``POST /v1/kernels``: a kernel for a front end; with ``only_held`` not if that takes a machine that costs."""

    cwd: str
    only_held: bool = False
    session: str | None = None
    kernel_name: str | None = None
    identity: dict[str, Any] = Field(default_factory=dict)

    _cwd = field_validator("cwd")(absolute_path)

    def wish(self) -> SessionWish:
        """See :class:`SessionBody`."""
        return replace(super().wish(), name=self.session)

    @field_validator("identity")
    @classmethod
    def _small(cls, value: dict[str, Any]) -> dict[str, Any]:
        if len(value) > 32 or any(isinstance(item, str) and len(item) > 4096 for item in value.values()):
            raise ValueError("is too large")
        return value


class InputBody(_Strict):
    """``POST /v1/runs/{id}/input``."""

    value: str = ""
    eof: bool = False


class AccountBody(_Strict):
    """``POST /v1/auth/use``."""

    account: str = Field(min_length=1, max_length=254)


class ApprovalBody(_Strict):
    """``POST /v1/secrets/{name}/allow`` and ``/deny``."""

    project: str

    _project = field_validator("project")(absolute_path)


class KillBody(_Strict):
    """``POST /v1/runs/{id}/kill``."""

    restart: bool = False


class CancelBody(_Strict):
    """``POST /v1/jobs/{id}/cancel``."""

    grace_s: float = Field(default=CANCEL_GRACE_S, ge=0, le=60, allow_inf_nan=False)


class ScheduleBody(_Strict):
    """``POST /v1/schedules``: a run request, and when it is to be sent again and again."""

    rule: str = Field(max_length=300)
    request: RunRequest


class SaveBody(_Strict):
    """``POST /v1/runs/{id}/save``."""

    path: str | None = None

    @field_validator("path")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return value if value is None else absolute_path(value)


class DeployBody(_Strict):
    """``POST /v1/deployments``: a notebook's run, and who may see the notebook in Drive."""

    run: RunRequest
    share_with: list[str] = Field(default_factory=list, max_length=100)
    role: Literal["reader", "commenter", "writer"] = "reader"

    @field_validator("share_with")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        if any(not _ADDRESS.fullmatch(address) for address in value):
            raise ValueError("must be e-mail addresses")
        return value


class ForwardWish(_Strict):
    """A port of the runtime, and one here: 0 for any that is free, None for the same number if that is free."""

    port: int = Field(ge=1, le=65_535)
    local_port: int | None = Field(default=None, ge=0, le=65_535)


class ForwardBody(_Strict):
    """``POST /v1/sessions/{name}/forwards``."""

    ports: list[ForwardWish] = Field(min_length=1, max_length=50)


class ShellBody(_Strict):
    """``POST /v1/sessions/{name}/shells/end``: which shell."""

    shell: str = Field(pattern=r"^[A-Za-z0-9._-]{1,60}$")
