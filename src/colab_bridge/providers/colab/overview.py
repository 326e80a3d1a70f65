"""All runtimes of an account as people see them, with what is known of those that other programs have made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import anyio

from colab_bridge.model.account import AccountRuntime
from colab_bridge.providers.colab.handles import shown
from colab_bridge.providers.colab.ledger import Entry
from colab_bridge.providers.colab.machine import runs_since
from colab_bridge.providers.colab.rates import rate_name
from colab_bridge.providers.colab.values import Assignment

__all__ = ["overview"]


async def overview(
    found: Sequence[Assignment], ours: Mapping[str, Entry], rates: Mapping[str, float], account: str
) -> list[AccountRuntime]:
    """Return runtimes in the order of the listing.

    The listing tells no age: for what we have asked for it is known, other machines are asked themselves, side by side.

    Args:
        found: The service's listing.
        ours: Our requests by the runtime that they have.
        rates: Compute units an hour that were seen, by machine type.
        account: Whose they are.
    """
    runtimes: dict[str, AccountRuntime] = {}

    async def look(assignment: Assignment) -> None:
        rate = rates.get(rate_name(assignment.hardware)) if assignment.hardware is not None else None
        runtime = shown(assignment, ours.get(assignment.id), rate_hourly=rate)
        since = runtime.since if runtime.since is not None else await runs_since(assignment)
        runtimes[assignment.id] = replace(runtime, account=account, since=since)

    async with anyio.create_task_group() as tasks:
        for assignment in found:
            tasks.start_soon(look, assignment)
    return [runtimes[assignment.id] for assignment in found]
