"""What a Colab machine says about itself, over its Jupyter server: which card it really has.

Source: the resources handler of Colab's Jupyter extension (``/api/colab/resources``), which asks the card's driver.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import anyio
import httpx2

from colab_bridge._util.https import open_client
from colab_bridge.model.hardware import ACCELERATORS, Hardware
from colab_bridge.providers.colab.foreign import Fields, ProtocolChangedError, parse_document
from colab_bridge.providers.colab.values import Assignment, is_card
from colab_bridge.providers.colab.ways import endpoint_of

__all__ = ["inspect", "really"]

log = logging.getLogger(__name__)

#: A machine answers at once; one that does not is no reason to do without it.
_ANSWER_S = 8.0
_MOST_BYTES = 1024 * 1024


async def inspect(assignment: Assignment) -> Assignment:
    """Return a runtime with the hardware that its machine reports; as it is where the machine does not say."""
    hardware, proxy = assignment.hardware, assignment.proxy
    if hardware is None or hardware.kind != "gpu" or proxy is None:
        return assignment
    endpoint = endpoint_of(proxy, 0.0)
    try:
        with anyio.fail_after(_ANSWER_S):
            async with (
                await open_client(endpoint.base_url, call_s=_ANSWER_S) as client,
                client.stream(
                    "GET", f"{endpoint.base_url}/api/colab/resources", headers=endpoint.plain_headers()
                ) as response,
            ):
                if response.status_code != 200:
                    log.info("machine not inspected", extra={"status": response.status_code})
                    return assignment
                body = b""
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        return assignment
        return replace(assignment, hardware=really(hardware, parse_document("resources", body)))
    except (httpx2.HTTPError, TimeoutError, OSError, ProtocolChangedError) as error:
        log.info("machine not inspected", extra={"why": type(error).__name__})
        return assignment


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
