"""What a caller asks to be run, validated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from colab_bridge.model.records import RunKind
from colab_bridge.sessions.targets import SessionWish

__all__ = ["NotebookRequest", "RunRequest", "absolute_path"]


def absolute_path(value: str) -> str:
    """Return a path that a system can take.

    Raises:
        ValueError: it is relative, or holds what no file name can.
    """
    if not Path(value).is_absolute() or b"\0" in os.fsencode(value):
        raise ValueError("must be an absolute path")
    return value


class NotebookRequest(BaseModel):
    """The notebook part of a request.

    Attributes:
        path: The notebook.
        output_path: Where the executed copy goes; None writes into ``path``.
        parameters: Values for a cell after the one tagged ``parameters``, as papermill does.
        resume: Begin at the first code cell that failed or did not run.
        keep_going: Go on after a cell that failed.
        cells: Positions among all cells, from 0, to run instead of all.
        keep_kernel: Leave the kernel running afterwards, for the next call.
        kernel_name: Kernelspec to use instead of the notebook's.
    """

    model_config = ConfigDict(extra="forbid")

    path: str
    output_path: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    resume: bool = False
    keep_going: bool = False
    cells: list[int] | None = None
    keep_kernel: bool = False
    kernel_name: str | None = None

    _paths = field_validator("path")(absolute_path)

    @field_validator("output_path")
    @classmethod
    def _output_is_absolute(cls, value: str | None) -> str | None:
        return value if value is None else absolute_path(value)


class RunRequest(BaseModel):
    """A request to run something; see ``docs/design/daemon-api.md``.

    With a ``run_id`` of the caller's making the request can be sent again when nobody knows whether it arrived.

    Attributes:
        detached: It is a job: nobody watches it from its start.
        notify: The user wants to be told when it ends, whatever the settings say.
        allow_stale: It runs also when the files cannot be brought up.
        deploy: What makes it a deployment; set by :class:`~colab_bridge.execution.deployments.Deployments` only.
    """

    model_config = ConfigDict(extra="forbid")

    kind: RunKind
    run_id: str | None = Field(default=None, pattern=r"^run-[a-z0-9-]{8,60}$")
    project: str
    cwd: str
    session: str | None = None
    runtime: str | None = None
    provider: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    allow_stdin: bool = True
    detached: bool = False
    notify: bool = False
    allow_stale: bool = False
    code: str | None = None
    path: str | None = None
    source: str | None = None
    argv: list[str] = Field(default_factory=list)
    module: str | None = None
    command: list[str] | None = None
    notebook: NotebookRequest | None = None
    deploy: dict[str, str | bool] | None = None

    _paths = field_validator("project", "cwd")(absolute_path)

    @model_validator(mode="after")
    def _has_its_parts(self) -> RunRequest:
        needed = {
            RunKind.CODE: self.code is not None,
            RunKind.SCRIPT: self.path is not None and self.source is not None,
            RunKind.MODULE: bool(self.module),
            RunKind.COMMAND: bool(self.command),
            RunKind.NOTEBOOK: self.notebook is not None,
        }
        if not needed[self.kind]:
            raise ValueError(f"a run of kind '{self.kind}' lacks its own member")
        return self

    def title(self) -> str:
        """Return one line for people."""
        if self.kind is RunKind.CODE:
            first = (self.code or "").strip().partition("\n")[0]
            return first[:80] or "(empty)"
        if self.kind is RunKind.SCRIPT:
            return self.path or "-"
        if self.kind is RunKind.MODULE:
            return f"-m {self.module}"
        if self.kind is RunKind.COMMAND:
            return " ".join(self.command or [])[:80]
        return self.notebook.path if self.notebook else ""

    def wish(self) -> SessionWish:
        """Return what the caller says about the session."""
        return SessionWish(
            project=self.project,
            name=self.session,
            runtime=self.runtime,
            provider=self.provider,
            options=self.options,
            env=self.env,
        )

    def stored(self) -> dict[str, Any]:
        """Return the request as it is kept with the run: without the caller's environment and provider options."""
        return self.model_dump(mode="json", exclude={"env", "options", "run_id"}, exclude_none=True)
