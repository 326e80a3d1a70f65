"""Entries of our own in a kernel's record."""

from __future__ import annotations

import json
from typing import Any

from colab_bridge.kernels.record import Entry

__all__ = ["note_of"]


def note_of(entry: Entry) -> dict[str, Any]:
    """Return the JSON object of a note entry; empty when it is unreadable."""
    try:
        value = json.loads(entry.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
