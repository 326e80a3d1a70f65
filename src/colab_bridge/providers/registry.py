"""Finds providers by name: our own ones, and plug-ins by entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from colab_bridge.errors import UserError
from colab_bridge.ports.account import AccountProvider
from colab_bridge.ports.provider import RuntimeProvider

__all__ = ["GROUP", "ProviderFactory", "ProviderRegistry", "installed_providers"]

GROUP = "colab_bridge.providers"

# Our own, also where the package runs without having been installed. Loaded when asked for: a session on a remote
# server needs nothing of the local runtime.
_OWN = {
    "local": "colab_bridge.providers.local:LocalProvider",
    "jupyter": "colab_bridge.providers.jupyter:JupyterProvider",
}

ProviderFactory = Callable[[Path], RuntimeProvider]


def installed_providers(found: Iterable[EntryPoint] | None = None) -> dict[str, ProviderFactory]:
    """Return a factory for each provider that is installed; nothing is imported before a factory is called.

    Args:
        found: Entry points of plug-ins; those of the running interpreter when omitted. Of two with the same name the
            first counts, and a plug-in cannot take the place of a provider of ours.
    """
    own = [EntryPoint(name=name, value=value, group=GROUP) for name, value in _OWN.items()]
    factories: dict[str, ProviderFactory] = {}
    for entry in [*own, *(entry_points(group=GROUP) if found is None else found)]:
        factories.setdefault(entry.name, _Loader(entry))
    return factories


class _Loader:
    """Imports a plug-in when its provider is made."""

    def __init__(self, entry: EntryPoint) -> None:
        self._entry = entry

    def __call__(self, folder: Path) -> RuntimeProvider:
        try:
            provider = self._entry.load()(folder)
        # Foreign code at its edge: whatever it raises, only this one provider is unusable.
        except Exception as error:
            name, value = self._entry.name, self._entry.value
            package = self._entry.dist.name if self._entry.dist else value.partition(":")[0]
            raise UserError(
                f"the provider {name} ({value}) cannot be loaded: {type(error).__name__}: {_one_line(error)}",
                hint=f"repair or remove it: python -m pip uninstall {package}",
            ) from error
        if not isinstance(provider, RuntimeProvider):
            raise UserError(
                f"the provider {self._entry.name} ({self._entry.value}) lacks methods that a provider must have",
                hint="ask its author for a version for this Colab Bridge, or remove it",
            )
        return provider


class ProviderRegistry:
    """Providers by name, each made once when first asked for.

    Args:
        folder: Below it each provider gets a folder with its own name.
        factories: How to make them; :func:`installed_providers` when omitted.
    """

    def __init__(self, folder: Path, factories: Mapping[str, ProviderFactory] | None = None) -> None:
        self._folder = folder
        self._factories = dict(installed_providers() if factories is None else factories)
        self._made: dict[str, RuntimeProvider] = {}

    def names(self) -> list[str]:
        """Return all known names, sorted, also of plug-ins that turn out not to load."""
        return sorted(self._factories)

    async def aclose(self) -> None:
        """Close the connections of providers that keep some."""
        for provider in self._made.values():
            if isinstance(provider, _Closable):
                await provider.aclose()

    def accounts(self) -> list[AccountProvider]:
        """Return the providers behind which stands an account, as far as they can be made; plug-ins are not loaded."""
        found: list[AccountProvider] = []
        for name in ("colab", *self._made):
            if name in self._factories and isinstance(provider := self.get(name), AccountProvider):
                found += [provider] if provider not in found else []
        return found

    def get(self, name: str) -> RuntimeProvider:
        """Return a provider.

        Raises:
            UserError: nobody knows the name, or its plug-in cannot be loaded.
        """
        if name not in self._made:
            if name not in self._factories:
                raise UserError(f"there is no provider {name!r}", hint=f"use one of: {', '.join(self.names())}")
            self._made[name] = self._factories[name](self._folder / name)
        return self._made[name]


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None:
        """Close what is open."""
        ...


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
