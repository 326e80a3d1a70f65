"""Where code is to run, from the options of a command to the members of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_bridge.errors import UserError

__all__ = ["Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The options of :func:`colab_bridge.cli.root.target_options`.

    Raises:
        UserError: a session was named together with options that only count when one is made.
    """

    session: str | None = None
    runtime: str | None = None
    provider: str | None = None
    url: str | None = None
    isolated: bool = False

    def __post_init__(self) -> None:
        if self.url and self.isolated:
            raise UserError(
                "--isolated is for local runtimes, --url for Jupyter servers", hint="Leave out one of them."
            )

    def for_run(self) -> dict[str, Any]:
        """Return the members of a run request.

        Raises:
            UserError: a session was named together with options that only count when one is made.
        """
        if self.session and (self.runtime or self.provider or self.url or self.isolated):
            raise UserError(
                "-s names a session that exists; it has its runtime already",
                hint=f"Make one first: colab-bridge new -s {self.session} ...",
            )
        return {"session": self.session, **self.for_session()}

    def for_session(self) -> dict[str, Any]:
        """Return the members of a session request."""
        options: dict[str, Any] = {}
        if self.url:
            options["url"] = self.url
        if self.isolated:
            options["isolated"] = True
        provider = self.provider or ("local" if self.isolated else None)
        return {"runtime": self.runtime, "provider": provider, "options": options}
