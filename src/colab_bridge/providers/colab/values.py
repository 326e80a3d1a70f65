"""What the control planes talk about, in one vocabulary. Pure."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Literal

from colab_bridge.model.hardware import ACCELERATORS, Hardware
from colab_bridge.model.runtime import Secret

__all__ = ["Assignment", "Grant", "Proxy", "Ticket", "Wish", "is_card", "is_endpoint_id", "nbh_of"]

_ENDPOINT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")


def nbh_of(request: str) -> str:
    """Return the notebook hash of a request: the key under which Google gives at most one runtime.

    Args:
        request: Canonical UUID, 36 characters.

    Returns:
        44 characters: the UUID with ``_`` for ``-``, filled up with dots, as all of Google's own clients make it.
    """
    return str(uuid.UUID(request)).replace("-", "_").ljust(44, ".")


def is_endpoint_id(text: str) -> bool:
    """Return whether a text can be the id of a runtime; it becomes part of paths."""
    return _ENDPOINT.fullmatch(text) is not None and ".." not in text


def is_card(accelerator: str, reported: str) -> bool | None:
    """Tell whether a machine's driver reports the card that was asked for.

    Args:
        accelerator: Google's name, such as ``A100``.
        reported: The driver's name, such as ``NVIDIA A100-SXM4-40GB``.

    Returns:
        None when the name cannot be judged: nobody knows what a card that is not in our table reports.
    """
    card = ACCELERATORS.get(accelerator)
    words = set(re.split(r"[^A-Z0-9]+", reported.upper())) - {""}
    if card is None or card.kind != "gpu" or not words:
        return None
    # Machines of the series G4 have a card of another name.
    return {"RTX", "PRO", "6000"} <= words if accelerator == "G4" else accelerator in words


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for in one try.

    Attributes:
        request: UUID of the request, the same over all tries: it maps to one runtime at most.
        hardware: The machine type of this try.
        version: Label of the image; empty for the newest.
        attempt: Counts the tries that had a definite answer; names a try towards services that want it.
    """

    request: str
    hardware: Hardware
    version: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The service has no runtime for the request, and lets us ask for one.

    Attributes:
        xsrf: To be presented with the question; empty where none is used.
    """

    xsrf: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """The way through the runtime proxy to one port of a runtime.

    Attributes:
        url: Base address without a slash at the end.
        token: What opens it.
        ttl_s: Seconds that the token lives from the answer on.
    """

    url: str
    token: Secret
    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A runtime of the account.

    Attributes:
        endpoint: Google's id of the machine; empty where the public API keeps it to itself.
        name: Resource name in the public API, such as ``runtimes/r-1``; empty in the other ones.
        hardware: What it is; None when the answer does not say.
        proxy: The way in; None when the answer has none.
        nbh: Notebook hash; empty when unknown.
        version: Label of its image; empty when unknown.
    """

    endpoint: str
    name: str = ""
    hardware: Hardware | None = None
    proxy: Proxy | None = None
    nbh: str = ""
    version: str = ""

    @property
    def id(self) -> str:
        """What we call it: the machine's id, else the resource's name without its collection."""
        return self.endpoint or self.name.removeprefix("runtimes/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """How granted hardware compares with what was asked for.

    Attributes:
        verdict: ``as asked``, ``other shape`` (right card, other memory size) or ``wrong``.
        sentence: For people; empty when it is as asked.
    """

    verdict: Literal["as asked", "other shape", "wrong"]
    sentence: str = ""
