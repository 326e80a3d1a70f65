"""Reasons that people read: a short value for machines with a sentence beside it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Reason"]


class Reason(str, Enum):
    """Base of enumerations whose members are written ``NAME = "value", "sentence"``."""

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Self:
        """Keep the sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        return member
