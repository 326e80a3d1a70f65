"""Where code is to run, from the options of a command to the members of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_bridge.errors import UserError
from colab_bridge.model.hardware import parse_ladder

__all__ = ["Target", "parse_span"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MOST_WAIT_S = 86_400.0


def parse_span(text: str) -> float:
    """Return the seconds of a span such as ``90s``, ``30m``, ``2h`` or ``1d``; a bare number counts seconds.

    Raises:
        UserError: it is none, or longer than a day.
    """
    number, unit = text.strip().lower(), 1.0
    if number[-1:] in _UNITS:
        number, unit = number[:-1], _UNITS[number[-1]]
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MOST_WAIT_S:
        raise UserError(f"{text[:40]!r} is no time to wait, up to a day", hint="write it like 90s, 30m or 2h")
    return seconds


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
    gpu: str | None = None
    tpu: str | None = None
    high_mem: bool = False
    runtime_version: str | None = None
    wait: str | None = None
    account: str | None = None
    budget: float | None = None
    no_budget: bool = False
    idle_minutes: float | None = None

    def __post_init__(self) -> None:
        if self.gpu and self.tpu:
            raise UserError("a runtime has a GPU or a TPU, not both", hint="give --gpu or --tpu", code="CB-USER-062")
        if self.no_budget and self.budget is not None:
            raise UserError("--budget and --no-budget exclude one another", hint="Leave out one of them.")
        self._hardware()
        if self.url and self.isolated:
            raise UserError(
                "--isolated is for local runtimes, --url for Jupyter servers", hint="Leave out one of them."
            )

    def for_run(self) -> dict[str, Any]:
        """Return the members of a run request.

        Raises:
            UserError: a session was named together with options that only count when one is made.
        """
        if self.session and (self.runtime or self.provider or self.url or self.isolated or self._hardware()):
            raise UserError(
                "-s names a session that exists; it has its runtime already",
                hint=f"Make one first: colab-bridge new -s {self.session} ...",
            )
        return {"session": self.session, **self.for_session()}

    def _hardware(self) -> dict[str, Any]:
        """Return the options that a machine of an account has; names of cards are checked here, without any network."""
        options: dict[str, Any] = {}
        if self.gpu is not None:
            options["gpu"] = ",".join(each.accelerator for each in parse_ladder(self.gpu, "gpu"))
        if self.tpu is not None:
            options["tpu"] = ",".join(each.accelerator for each in parse_ladder(self.tpu, "tpu"))
        if self.high_mem:
            options["high_mem"] = True
        if self.wait is not None:
            options["wait_s"] = parse_span(self.wait)
        given = {"runtime_version": self.runtime_version or None, "account": self.account or None}
        given_limits = {"budget": 0.0 if self.no_budget else self.budget, "idle_minutes": self.idle_minutes}
        return options | {name: value for name, value in {**given, **given_limits}.items() if value is not None}

    def for_session(self) -> dict[str, Any]:
        """Return the members of a session request."""
        options: dict[str, Any] = {}
        if self.url:
            options["url"] = self.url
        if self.isolated:
            options["isolated"] = True
        options |= self._hardware()
        provider = self.provider or ("local" if self.isolated else None)
        return {"runtime": self.runtime, "provider": provider, "options": options}
