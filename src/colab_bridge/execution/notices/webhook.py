"""Notices as a POST to an address of the user's: Slack, Mattermost, ntfy, a server of their own.

The address is a secret: whoever knows it can post there. It appears in no log and in no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

__all__ = ["Delivery", "post_notice"]

_TIMEOUT_S = 10.0
#: The server says that it did not take the message and may take it later. 500 may come after it was taken.
_TRY_AGAIN = frozenset({408, 425, 429, 502, 503, 504})
#: A longer wait that a server asks for is not worth it for a notice.
_MAX_RETRY_AFTER_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How one try went.

    Attributes:
        problem: Empty when it was taken; otherwise one line without the address.
        again: Whether it certainly was not taken, so that another try cannot make a second notice.
        after_s: Seconds that the server asks to wait; 0 when it says nothing.
    """

    problem: str = ""
    again: bool = False
    after_s: float = 0.0


async def post_notice(url: str, document: Mapping[str, Any]) -> Delivery:
    """Post a notice once.

    Args:
        url: The address.
        document: JSON; its member ``id`` also goes into ``Idempotency-Key``, so that a receiver can tell repeats.
    """
    headers = {"Idempotency-Key": str(document.get("id", ""))}
    try:
        async with (
            httpx2.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client,
            # What a receiver answers is of no interest, and may be endless.
            client.stream("POST", url, json=dict(document), headers=headers) as answer,
        ):
            return _judge(answer.status_code, answer.headers.get("retry-after", ""))
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        return Delivery(problem=f"not reached ({type(error).__name__})", again=True)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Delivery(problem=f"no answer ({type(error).__name__})")


def _judge(status: int, retry_after: str) -> Delivery:
    if 200 <= status < 300:
        return Delivery()
    after = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6 else 0.0
    again = status in _TRY_AGAIN and after <= _MAX_RETRY_AFTER_S
    return Delivery(problem=f"refused with HTTP {status}", again=again, after_s=after)
