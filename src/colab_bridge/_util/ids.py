"""Identifiers that sort by the time they were made."""

from __future__ import annotations

import os
import time

__all__ = ["new_id"]


def new_id(prefix: str) -> str:
    """Return ``prefix-<milliseconds since 1970, base 36>-<40 random bits, hex>``, lower case, safe in paths.

    Args:
        prefix: What is named, for example ``run``.
    """
    return f"{prefix}-{_base36(time.time_ns() // 1_000_000)}-{os.urandom(5).hex()}"


def _base36(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while number:
        number, rest = divmod(number, 36)
        text = digits[rest] + text
    return text or "0"
