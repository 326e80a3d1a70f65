"""Telling a refusal by what stands before a Jupyter server from an answer of the server itself. Pure.

A proxy in front of a runtime wants a token that ends after a while, and refuses an old one with 401 or 404, as if the
runtime were gone. The server behind it uses the same statuses for other things: a file, a kernel, a session that is not
there. Who answered is seen in the headers: the body of the server's own refusals is not always JSON, whatever its type
says (jupyter_server 2.21).

Source: jupyter_server's ``JupyterHandler.set_default_headers`` and ``APIHandler``; reports against Colab's clients.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from colab_bridge.errors import TransientError
from colab_bridge.model.runtime import Endpoint

__all__ = ["REFUSALS", "refused_by_proxy", "still_refused", "wants_renewal"]

#: Statuses with which a proxy turns away a token that has ended.
REFUSALS: Final = frozenset({401, 403, 404})


def refused_by_proxy(status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether an answer is the refusal of a proxy before the server.

    Args:
        status: HTTP status.
        headers: The answer's headers; names in any case.
        body: The answer's body, or its beginning.
    """
    return status in REFUSALS and not _is_jupyters(headers, body)


def _is_jupyters(headers: Mapping[str, str], body: bytes) -> bool:
    known = {name.lower(): value.lower() for name, value in headers.items()}
    # Every answer of the server names its own address for reports there, also behind a proxy.
    if "/api/security/csp-report" in known.get("content-security-policy", ""):
        return True
    if known.get("server", "").startswith("tornadoserver"):
        return True
    if not known.get("content-type", "").startswith("application/json"):
        return False
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return bool(body.strip())  # plain text under the name of JSON
    return isinstance(value, dict) and "message" in value


def wants_renewal(endpoint: Endpoint, status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether another way in should be asked for: the one in use can be renewed, and a proxy refuses it."""
    return endpoint.renew is not None and refused_by_proxy(status, headers, body)


def still_refused(address: str) -> TransientError:
    """Return the error for a new way in that is refused as the old one was."""
    return TransientError(
        f"what stands before the runtime at {address} refuses a new token too",
        hint="try again in a minute; if it stays: colab-bridge ps --all",
        code="CB-TRANSIENT-PROXY",
    )
