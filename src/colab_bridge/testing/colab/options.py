"""What an emulator is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from colab_bridge.testing.colab.accounts import Tier

__all__ = ["DEFAULT_EMAIL", "EmulatorOptions"]

DEFAULT_EMAIL = "dev@example.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """Settings of an emulator; what a service may change at any time is in its state instead.

    Attributes:
        email: Address of the account that exists from the start.
        tier: Its subscription.
        paid_units: Its paid compute units; None gives a paid subscription 100, and the free one none.
        free_milli_units: Thousandths of units of its free allowance.
        token_ttl_s: Life of runtime proxy tokens, in seconds.
        access_token_ttl_s: Life of OAuth access tokens, in seconds.
        idle_timeout_s: A runtime without a keep-alive for so many seconds is taken away. Reports from production
            range from 420 s for machines that nobody ever pinged to the documented 5400 s.
        life_s: How long a runtime lives at most, in seconds; the subscription's limit when None.
        traffic_keeps_alive: Whether requests through the runtime proxy count as activity. No source says so.
        keep_alive: ``answer``, or ``hang`` as production often does: the ping counts and is never answered.
        expired_status: What the runtime proxy answers to a bad token: 404, or 401.
        versions: Version labels of images, newest first.
        experiments: Flags of ``/vscode/experiment-state``.
        internal_api: Whether the internal API admits clients of foreign projects.
        public_api: Whether the public API is enabled for the client's project.
        public_endpoints: Whether the public API tells endpoints, which it reserves for Colab itself.
        allocation_s: Real seconds that an allocation takes in addition.
        latency_s: Round-trip time to machines, in seconds.
        bytes_per_s: Bandwidth to each machine, in each direction; None is unlimited.
        python: Interpreter of the machines, with ``jupyter_server`` and ``ipykernel``; ours when empty.
        ssh: Whether machines have an SSH server.
    """

    email: str = DEFAULT_EMAIL
    tier: Tier = "pro"
    paid_units: float | None = None
    free_milli_units: float = 24_500.0
    token_ttl_s: float = 3600.0
    access_token_ttl_s: int = 3599
    idle_timeout_s: float = 5400.0
    life_s: float | None = None
    traffic_keeps_alive: bool = False
    keep_alive: Literal["answer", "hang"] = "answer"
    expired_status: int = 404
    versions: tuple[str, ...] = ("2026.01", "2025.10", "2025.07")
    experiments: Mapping[str, Any] = field(default_factory=dict)
    internal_api: bool = True
    public_api: bool = True
    public_endpoints: bool = True
    allocation_s: float = 0.0
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    python: str = ""
    ssh: bool = False
