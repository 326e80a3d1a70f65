"""What can go wrong in a measurement."""

from __future__ import annotations

__all__ = ["BenchmarkError"]


class BenchmarkError(Exception):
    """Something could not be measured; the text says what."""
