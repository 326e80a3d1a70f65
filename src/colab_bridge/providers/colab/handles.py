"""What is remembered of runtimes, and how they are shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from colab_bridge.errors import RuntimeLostError
from colab_bridge.model.account import AccountRuntime
from colab_bridge.model.hardware import Hardware
from colab_bridge.model.runtime import RuntimeHandle
from colab_bridge.providers.colab.ledger import Entry
from colab_bridge.providers.colab.values import Assignment, Wish, is_endpoint_id

__all__ = ["NAME", "ROOT", "endpoint_in", "id_in", "make_handle", "no_such_runtime", "shown", "wish_of"]

#: The provider's name.
NAME: Final = "colab"
#: The project's folder on a Colab machine; the rest of ``/content`` is the user's own there.
ROOT: Final = "/content/workspace"


def make_handle(entry: Entry, assignment: Assignment, hardware: Hardware | None) -> RuntimeHandle:
    """Return what is remembered of a runtime; it holds no token of any kind."""
    what = str(hardware) if hardware is not None else "unknown machine"
    data: dict[str, Any] = {
        "request": entry.request,
        "endpoint": assignment.endpoint,
        "name": assignment.name,
        "account": entry.account,
        "api": entry.api,
        "requested_at": entry.asked_at,
        "asked_for": [str(each) for each in entry.asked_for],
    }
    if hardware is not None:
        data["hardware"] = {
            "kind": hardware.kind,
            "accelerator": hardware.accelerator,
            "high_memory": hardware.high_memory,
        }
    paid_by = f", {entry.account}" if entry.account else ""
    return RuntimeHandle(
        provider=NAME,
        id=assignment.id,
        root=ROOT,
        served="/",
        data=data,
        label=f"Colab {what}, {assignment.id}{paid_by}",
    )


def wish_of(entry: Entry) -> Wish:
    """Return what a request asked for first; it is looked for under its UUID whatever was wanted."""
    hardware = entry.asked_for[0] if entry.asked_for else Hardware()
    return Wish(request=entry.request, hardware=hardware, version=entry.version)


def shown(assignment: Assignment, entry: Entry | None, *, rate_hourly: float | None = None) -> AccountRuntime:
    """Return a runtime as people see it, with what we know of its request.

    Args:
        assignment: The service's word of it.
        entry: Our request that it comes from; None when it is not ours.
        rate_hourly: Compute units an hour that such a machine was seen to cost.
    """
    label = ""
    if entry is not None and entry.session:
        label = f"session {entry.session}"
    elif entry is not None and entry.adopted:
        label = "adopted"
    return AccountRuntime(
        id=assignment.id,
        hardware=assignment.hardware or Hardware(),
        ours=entry is not None and not entry.adopted,
        label=label,
        version=assignment.version,
        account=entry.account if entry is not None else "",
        rate_hourly=rate_hourly,
        since=entry.asked_at if entry is not None and not entry.adopted else None,
    )


def id_in(name: str) -> str:
    """Return our id of a resource of the public API."""
    return name.removeprefix("runtimes/")


def endpoint_in(handle: RuntimeHandle) -> str:
    """Return the machine's id from a handle; it becomes part of paths, so what is stored is checked."""
    data: Mapping[str, Any] = handle.data
    endpoint = str(data.get("endpoint") or "")
    if endpoint and not is_endpoint_id(endpoint):
        raise RuntimeLostError(
            "what is stored about the Colab runtime is damaged",
            hint="see what runs: colab-bridge ps --all; then: colab-bridge adopt ID",
        )
    return endpoint


def no_such_runtime(runtime_id: str) -> RuntimeLostError:
    """Return the error for a runtime that the account does not have."""
    return RuntimeLostError(
        f"the account has no runtime {runtime_id[:60]!r}", hint="see all of them: colab-bridge ps --all"
    )
