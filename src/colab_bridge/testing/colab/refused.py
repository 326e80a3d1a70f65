"""What a request says and no service of Google would take."""

from __future__ import annotations

__all__ = ["RefusedValueError"]


class RefusedValueError(Exception):
    """A value of a request is none that the service takes.

    Args:
        what: What is wrong.
        expected: What would be right.
    """

    def __init__(self, what: str, expected: str) -> None:
        super().__init__(what)
        self.what = what
        self.expected = expected
