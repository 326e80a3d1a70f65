"""Finds the services of this agent."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Sequence

from .echo import EchoService
from .service import Service

__all__ = ["PACKAGES", "load_services"]

log = logging.getLogger(__name__)

PACKAGES = ("tunnel", "probe", "sync", "forward", "terminal")
"""Packages beside this one that offer a service by ``service.make()``."""


def load_services(packages: Sequence[str] = PACKAGES) -> tuple[list[Service], list[str]]:
    """Make one of each service.

    Returns:
        The services, and a sentence for each that cannot be had.
    """
    root = __name__.rsplit(".", 2)[0]
    services: list[Service] = [EchoService()]
    troubles: list[str] = []
    for package in packages:
        name = f"{root}.{package}.service"
        try:
            if importlib.util.find_spec(f"{root}.{package}") is None or importlib.util.find_spec(name) is None:
                continue
            services.append(importlib.import_module(name).make())
        except Exception as error:
            # One part that this interpreter cannot run must not take the others with it.
            log.exception("a service cannot be loaded", extra={"service": package})
            troubles.append(f"the agent's {package} cannot start: {type(error).__name__}: {error}"[:300])
    return services, troubles
