"""Values for a notebook from the command line."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

from colab_bridge.errors import UserError

__all__ = ["parse_parameters"]


def parse_parameters(given: Sequence[str]) -> dict[str, Any]:
    """Turn ``name=value`` texts into values.

    A value is a Python literal or JSON (``3``, ``1e-3``, ``True``, ``[1, 2]``, ``"text"``), and otherwise the text as
    it stands.

    Raises:
        UserError: there is no ``=``, or the name is no Python name.
    """
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"'{text[:60]}' is no parameter", hint="Give a Python name and a value: --param year=2026")
        values[name] = _value(value)
    return values


def _value(text: str) -> Any:
    for read in (ast.literal_eval, json.loads):
        try:
            value = read(text.strip())
            # What JSON cannot carry (bytes, sets, complex numbers, NaN) stays a text.
            if json.loads(json.dumps(value, allow_nan=False)) == value:
                return value
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return text
