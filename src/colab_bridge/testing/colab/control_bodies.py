"""What the control interface accepts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from colab_bridge.testing.colab.accounts import Tier

__all__ = [
    "AccessTokenBody",
    "AccountBody",
    "BrokenSignInBody",
    "CapacityBody",
    "ClearBody",
    "ClockBody",
    "ConsentBody",
    "GpuBody",
    "LinkBody",
    "ServiceAccountBody",
    "TokensBody",
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ClearBody(_Body):
    """Remove faults: one by its id, or all with true."""

    clear: str | Literal[True]


class ClockBody(_Body):
    """Move the clock forward."""

    advance_s: float = Field(ge=0, allow_inf_nan=False)


class AccountBody(_Body):
    """Change an account; what is left out stays as it is."""

    name: str | None = None
    tier: Tier | None = None
    paid_units: float | None = None
    free_milli_units: float | None = None
    eligible: frozenset[str] | None = None
    max_runtimes: int | None = None
    denylisted: bool | None = None


class CapacityBody(_Body):
    """How many machines with a card there are in all; null takes the limit away."""

    capacity: dict[str, int | None]


class ConsentBody(_Body):
    """What the person on consent pages does from now on."""

    account: str = ""
    denied: bool = False
    withheld: frozenset[str] = frozenset()


class TokensBody(_Body):
    """Change the life of new runtime proxy tokens, or let those that exist expire."""

    ttl_s: float | None = Field(default=None, gt=0)
    expire: bool = False


class AccessTokenBody(_Body):
    """Make an access token; with every scope unless some are named, for good unless it has a life."""

    account: str = ""
    scopes: str = ""
    ttl_s: float | None = None


class BrokenSignInBody(_Body):
    """Let every refresh for an account fail from now on."""

    account: str
    error: str = "invalid_grant"
    subtype: str = ""


class ServiceAccountBody(_Body):
    """Make a service account."""

    email: str = "robot@emulator.iam.gserviceaccount.com"


class GpuBody(_Body):
    """A card that a machine really has."""

    name: str
    memory_total_bytes: int


class LinkBody(_Body):
    """Change the way to a machine."""

    action: Literal["cut", "hang", "refuse", "restore"] | None = None
    latency_s: float | None = Field(default=None, ge=0)
    bytes_per_s: float | None = Field(default=None, gt=0)
