"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from colab_bridge.model.records import RunStatus

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: A final status.
        exit_code: What a shell would see.
        ename: Name of the exception, empty without one.
        evalue: Its text.
        outputs: Files that the run wrote, absolute or relative to the notebook's folder.
        lost: Empty, or why output may be missing.
    """

    status: RunStatus
    exit_code: int
    ename: str = ""
    evalue: str = ""
    outputs: tuple[str, ...] = ()
    lost: str = ""

    def error(self) -> dict[str, Any] | None:
        """Return the exception as the API shows it, None without one."""
        return {"ename": self.ename, "evalue": self.evalue} if self.ename else None
