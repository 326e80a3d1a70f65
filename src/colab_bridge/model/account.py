"""What an account has, may have and pays for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from colab_bridge.model.hardware import CPU, Hardware

__all__ = ["AccountRuntime", "Balance", "Offers", "Propagation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRuntime:
    """A runtime of the account, whoever made it.

    Attributes:
        id: The provider's identifier.
        hardware: What it is.
        ours: True when this provider, on this machine, asked for it.
        label: Where it was opened, one line without a secret; empty when unknown.
        version: Version label of its image; empty when unknown.
        account: E-mail address of the account; empty when unknown.
        rate_hourly: Compute units an hour that such a machine was seen to cost; None when none was seen alone.
        since: Unix seconds since which it runs; None when unknown.
    """

    id: str
    hardware: Hardware = CPU
    ours: bool = False
    label: str = ""
    version: str = ""
    account: str = ""
    rate_hourly: float | None = None
    since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What an account may have.

    Attributes:
        tier: Name of the subscription, such as ``free`` or ``pro``; empty when unknown.
        eligible: Accelerators that it may have; CPU machines are always possible.
        ineligible: Accelerators that it may not have.
        rates: Compute units an hour by accelerator (empty name: CPU), where they were seen or are published.
    """

    tier: str = ""
    eligible: tuple[str, ...] = ()
    ineligible: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What is left and how fast it goes.

    Attributes:
        units: Paid compute units; None when unknown.
        rate_hourly: Compute units an hour that all runtimes of the account use now; None when unknown.
        runtimes: How many runtimes the account has now; None when unknown.
        free_units: Units of the free allowance, only where nothing is paid for; None when unknown.
        next_refill_at: Unix seconds at which the free allowance grows again; None when unknown.
    """

    units: float | None = None
    rate_hourly: float | None = None
    runtimes: int | None = None
    free_units: float | None = None
    next_refill_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """What came of handing the user's credentials to a runtime.

    Attributes:
        granted: True when the runtime has them now, or would get them without asking (dry run).
        consent_url: Page on which the user must agree first; empty when there is none.
    """

    granted: bool
    consent_url: str = ""
