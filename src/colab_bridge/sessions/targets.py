"""Which provider with which options a request means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from colab_bridge.config.settings import Settings
from colab_bridge.errors import UserError

__all__ = ["LIMITS", "SessionWish", "Target", "choose_target", "same_wish", "session_slug", "unique_name", "wishes"]

# What only machines of a Google account have; asking for it means such a machine.
_COLAB_ONLY = frozenset({"gpu", "tpu", "high_mem", "runtime_version", "account"})
# Providers whose machines are as they are.
_FIXED = frozenset({"local", "jupyter"})
#: What a session may use; it may change while the session lives.
LIMITS = frozenset({"budget", "idle_minutes"})
# How something is asked for is no part of what is asked for.
_MANNER = frozenset({"runtime", "wait_s"}) | LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWish:
    """What a caller says about the session it wants.

    Attributes:
        project: Absolute path of the project's root.
        name: Session name; None for the project's session on the runtime asked for.
        runtime: Configured runtime.
        provider: Provider asked for explicitly.
        options: Provider options asked for explicitly; may hold secrets.
        env: The caller's ``COLAB_BRIDGE_*`` variables.
    """

    project: str
    name: str | None = None
    runtime: str | None = None
    provider: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def names_runtime(self) -> bool:
        """Whether it says which runtime, in the request itself or in the caller's environment."""
        asked = self.runtime or self.provider or wishes(self.options)
        return bool(asked or self.env.get("COLAB_BRIDGE_PROVIDER") or self.env.get("COLAB_BRIDGE_RUNTIME"))

    def target(self, settings: Settings) -> Target:
        """Return what it means with these settings; see :func:`choose_target`."""
        return choose_target(settings, runtime=self.runtime, provider=self.provider, options=self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A provider, its options, and the label that tells sessions of one project apart.

    Attributes:
        runtime: Name of the configured runtime, ``local`` for the built-in one, or the provider's name.
        provider: Provider name.
        options: Provider options; may hold secrets.
    """

    runtime: str
    provider: str
    options: Mapping[str, Any] = field(default_factory=dict)


def choose_target(
    settings: Settings,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Target:
    """Turn a request and the settings into one target.

    A URL means a Jupyter server; a named runtime means its configuration; hardware means Colab, unless the configured
    default is a runtime that may have it; otherwise it is the configured default.

    Args:
        settings: Resolved settings of the project.
        runtime: Name of a configured runtime, or ``local``.
        provider: Provider asked for explicitly.
        options: Options asked for explicitly; they win over configured ones.

    Raises:
        UserError: the runtime is not configured, or a Jupyter server is asked for without a URL.
    """
    asked = {key: value for key, value in (options or {}).items() if value is not None}
    if asked.get("url") and not provider:
        provider = "jupyter"
    elif _COLAB_ONLY & asked.keys() and not provider and not runtime and _default_provider(settings) in _FIXED:
        provider = "colab"
    if not provider and not runtime and settings.runtime == "local":
        provider = settings.provider
    if provider and not runtime:
        runtime = "local" if provider == "local" else provider
        configured = _local_options(settings) if provider == "local" else {}
    else:
        runtime = runtime or settings.runtime
        provider, configured = _configured(settings, runtime, provider)
    merged = {**configured, **asked}
    if provider == "jupyter" and not merged.get("url"):
        raise UserError(
            "a Jupyter server needs its address", hint="add --url 'https://host:port/?token=...'", code="CB-USER-021"
        )
    if provider == "colab" and not merged.get("account") and settings.account:
        merged["account"] = settings.account
    return Target(runtime=runtime, provider=provider, options=merged)


def _default_provider(settings: Settings) -> str:
    if settings.runtime == "local":
        return settings.provider
    configured = settings.runtimes.get(settings.runtime)
    return configured.provider if configured else ""


def same_wish(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two sets of options ask for the same runtime, however long each would wait for it."""
    return wishes(one) == wishes(other)


def wishes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say which machine is wanted, not for how long or how much it may be used."""
    return {key: value for key, value in options.items() if key not in _MANNER}


def _configured(settings: Settings, runtime: str, provider: str | None) -> tuple[str, dict[str, Any]]:
    if runtime == "local":
        return provider or settings.provider, _local_options(settings)
    if runtime not in settings.runtimes:
        known = ", ".join(["local", *sorted(settings.runtimes)])
        raise UserError(
            f"no runtime is called '{runtime}' (known: {known})",
            hint=f"colab-bridge config add-runtime {runtime} --url URL",
            code="CB-USER-020",
        )
    entry = settings.runtimes[runtime].model_dump(exclude_none=True, exclude_defaults=True)
    configured_provider = str(entry.pop("provider", "") or settings.runtimes[runtime].provider)
    return provider or configured_provider, entry


def _local_options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"isolated": settings.local.isolated}
    if settings.local.python:
        options["python"] = settings.local.python
    return options


def session_slug(project: str, runtime: str) -> str:
    """Return a session name from the project folder's name and the runtime, such as ``sales`` or ``sales-gpu``."""
    base = "".join(c if c.isascii() and c.isalnum() else "-" for c in PurePath(project).name.lower())
    base = "-".join(part for part in base.split("-") if part)[:40] or "project"
    return base if runtime == "local" else f"{base}-{runtime}"


def unique_name(wanted: str, taken: set[str]) -> str:
    """Return ``wanted``, or ``wanted-2``, ``wanted-3`` ... until it is free."""
    name, number = wanted, 2
    while name in taken:
        name = f"{wanted}-{number}"
        number += 1
    return name
