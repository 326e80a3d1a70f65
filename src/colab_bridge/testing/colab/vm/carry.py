"""Carrying bytes both ways between a WebSocket and something on the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["until_either_ends"]


async def until_either_ends(*ways: Coroutine[Any, Any, None]) -> None:
    """Run the directions of a connection side by side; when one has ended, the others are."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
