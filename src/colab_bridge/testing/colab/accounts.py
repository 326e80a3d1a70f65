"""Accounts of the emulated service, and what each of them may have. The decision is pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from colab_bridge.testing.colab.faults import RefusalKind
from colab_bridge.testing.colab.hardware import CARDS, NO_CARD, Ask

__all__ = ["TIERS", "Account", "Tier", "TierRules", "refusal"]

Tier = Literal["free", "pro", "pro_plus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRules:
    """What a subscription gives. Google publishes no table; these numbers keep the order of the tiers.

    Attributes:
        eligible: Cards that may be had.
        high_memory: Whether the larger memory shape may be asked for.
        max_runtimes: How many runtimes at a time.
        life_s: How long a runtime lives at most, in seconds.
        number: ``subTier`` of the session backend.
        internal: Name in the internal API.
        public: Name in the public API.
    """

    eligible: frozenset[str]
    high_memory: bool
    max_runtimes: int
    life_s: float
    number: int
    internal: str
    public: str


TIERS: Final[Mapping[Tier, TierRules]] = MappingProxyType(
    {
        "free": TierRules(
            eligible=frozenset({"T4", "V5E1"}),
            high_memory=False,
            max_runtimes=2,
            life_s=12 * 3600.0,
            number=0,
            internal="SUBSCRIPTION_TIER_NONE",
            public="SUBSCRIPTION_TIER_FREE",
        ),
        "pro": TierRules(
            eligible=frozenset({"T4", "L4", "A100", "V5E1", "V6E1"}),
            high_memory=True,
            max_runtimes=4,
            life_s=24 * 3600.0,
            number=1,
            internal="SUBSCRIPTION_TIER_PRO",
            public="SUBSCRIPTION_TIER_PRO",
        ),
        "pro_plus": TierRules(
            eligible=frozenset(CARDS) - {NO_CARD},
            high_memory=True,
            max_runtimes=8,
            life_s=24 * 3600.0,
            number=2,
            internal="SUBSCRIPTION_TIER_PRO_PLUS",
            public="SUBSCRIPTION_TIER_PRO_PLUS",
        ),
    }
)


@dataclass(slots=True, kw_only=True)
class Account:
    """A Google account. Every attribute may be changed while the emulator runs.

    Attributes:
        email: Its address.
        name: Name of the person.
        tier: Subscription.
        paid_units: Paid compute units that are left.
        free_milli_units: Thousandths of units of the free allowance that are left; counts where nothing is paid for.
        eligible: Cards that it may have; those of the tier when None.
        max_runtimes: How many runtimes at a time; the tier's number when None.
        denylisted: Refused whatever it asks for.
        drive_consent: Whether the person has agreed that machines see Drive, and the same for user credentials.
        consent_by: Who agreed last on the page for that, if it was somebody else.
        consent_partial: Boxes were left unticked on that page.
    """

    email: str
    name: str = "Developer"
    tier: Tier = "pro"
    paid_units: float = 100.0
    free_milli_units: float = 0.0
    eligible: frozenset[str] | None = None
    max_runtimes: int | None = None
    denylisted: bool = False
    drive_consent: set[str] = field(default_factory=set)
    consent_by: str = ""
    consent_partial: bool = False

    @property
    def rules(self) -> TierRules:
        """What its subscription gives."""
        return TIERS[self.tier]

    @property
    def cards(self) -> frozenset[str]:
        """Cards that it may have."""
        return self.rules.eligible if self.eligible is None else self.eligible

    @property
    def runtime_limit(self) -> int:
        """How many runtimes it may have at a time."""
        return self.rules.max_runtimes if self.max_runtimes is None else self.max_runtimes

    @property
    def id(self) -> str:
        """Number of the account: 21 digits that are always the same for an address."""
        digits = str(int.from_bytes(hashlib.sha256(self.email.encode()).digest()[:12], "big"))
        return "1" + digits[-20:].rjust(20, "0")

    def may_have(self, ask: Ask) -> bool:
        """Tell whether the subscription covers a machine type."""
        card = CARDS[ask.accelerator]
        wants_shape = ask.high_memory and not card.high_memory_only
        return (ask.accelerator == NO_CARD or ask.accelerator in self.cards) and (
            self.rules.high_memory or not wants_shape
        )

    def spend(self, units: float) -> None:
        """Take compute units off, paid ones first."""
        paid = min(self.paid_units, units)
        self.paid_units -= paid
        self.free_milli_units = max(0.0, self.free_milli_units - (units - paid) * 1000)


def refusal(ask: Ask, account: Account, *, active: int, left: int | None) -> RefusalKind | None:
    """Decide whether an account gets a machine.

    Args:
        ask: What it asks for; a machine type that exists.
        account: Who asks.
        active: Runtimes that it has.
        left: How many machines with this card are free; None when there is no limit.

    Returns:
        Why not; None when it gets one.
    """
    if account.denylisted:
        return "denylisted"
    if not account.may_have(ask):
        return "not_entitled"
    if account.paid_units <= 0 and account.free_milli_units <= 0:
        return "usage_time"
    if active >= account.runtime_limit:
        return "too_many"
    if left is not None and left <= 0:
        return "capacity"
    return None
