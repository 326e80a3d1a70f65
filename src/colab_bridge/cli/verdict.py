"""Why a kernel does not listen."""

from __future__ import annotations

from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import ColabBridgeError

__all__ = ["why_it_goes_on"]


def why_it_goes_on(client: DaemonClient, run: str, timeout_s: float) -> str:
    """Return what the runtime's machine shows of a run whose kernel does not listen; empty when it shows nothing.

    Args:
        client: The daemon.
        run: Id of the run.
        timeout_s: Seconds that the answer may take.
    """
    try:
        found = client.get(f"/v1/runs/{segment(run)}/process", timeout_s=timeout_s).get("found") or {}
    except ColabBridgeError:
        return ""
    return str((found.get("verdict") or {}).get("text", ""))
