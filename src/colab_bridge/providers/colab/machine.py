"""What a Colab machine says about itself, over its Jupyter server: which card it really has.

Source: the resources handler of Colab's Jupyter extension (``/api/colab/resources``), which asks the card's driver.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

import anyio
import httpx2

from colab_bridge._util.https import open_client
from colab_bridge.errors import UserError
from colab_bridge.model.hardware import ACCELERATORS, Hardware
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError, parse_document
from colab_bridge.providers.colab.values import Assignment, Proxy, is_card
from colab_bridge.providers.colab.ways import endpoint_of

__all__ = ["inspect", "really", "runs_since"]

log = logging.getLogger(__name__)

#: A machine answers at once; one that does not is no reason to do without it.
_ANSWER_S = 8.0
#: As long as Google's own extension waits for what other programs' machines say of themselves.
_FOREIGN_S = 3.0
_MOST_BYTES = 1024 * 1024


async def inspect(assignment: Assignment) -> Assignment:
    """Return a runtime with the hardware that its machine reports; as it is where the machine does not say."""
    hardware, proxy = assignment.hardware, assignment.proxy
    if hardware is None or hardware.kind != "gpu" or proxy is None:
        return assignment
    body = await _ask(proxy, "/api/colab/resources", _ANSWER_S)
    try:
        return assignment if body is None else replace(assignment, hardware=really(hardware, _fields(body)))
    except ProtocolChangedError as error:
        log.info("machine not inspected", extra={"why": str(error)})
        return assignment


async def runs_since(assignment: Assignment) -> float | None:
    """Return the Unix seconds at which a machine's Jupyter server was started; None where it does not say in time.

    Source: Jupyter Server REST API, ``GET /api/status``, member ``started``.
    """
    if assignment.proxy is None:
        return None
    body = await _ask(assignment.proxy, "/api/status", _FOREIGN_S)
    try:
        started = _fields(body).word("started") if body is not None else None
        return datetime.fromisoformat(started).timestamp() if started else None
    except (ProtocolChangedError, ValueError):
        return None


def _fields(body: bytes) -> Fields:
    return parse_document("resources", body)


async def _ask(proxy: Proxy, path: str, limit_s: float) -> bytes | None:
    """Return what a machine answers; None when it gives no answer that is of use."""
    endpoint = endpoint_of(proxy, 0.0)
    try:
        with anyio.fail_after(limit_s):
            async with (
                await open_client(endpoint.base_url, call_s=limit_s) as client,
                client.stream("GET", endpoint.base_url + path, headers=endpoint.plain_headers()) as response,
            ):
                if response.status_code != 200:
                    log.info("machine not asked", extra={"path": path, "status": response.status_code})
                    return None
                body = b""
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        return None
                return body
    except (httpx2.HTTPError, TimeoutError, OSError, UserError) as error:
        log.info("machine not asked", extra={"path": path, "why": type(error).__name__})
        return None


def really(granted: Hardware, resources: Fields) -> Hardware:
    """Return the hardware of a machine by its driver's word. Pure.

    Args:
        granted: What the control plane says.
        resources: The machine's answer.
    """
    reported = [name for card in resources.each("gpus") if (name := card.word("name"))]
    if not reported or is_card(granted.accelerator, reported[0]) is not False:
        return granted
    known = next((name for name in ACCELERATORS if is_card(name, reported[0])), reported[0])
    return replace(granted, accelerator=known)
