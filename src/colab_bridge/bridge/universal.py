"""``UniversalColabBridge``: code on whatever runtime is there, from anywhere."""

from __future__ import annotations

import os
from typing import Any

from colab_bridge.bridge.link import Link
from colab_bridge.bridge.results import Result

__all__ = ["UniversalColabBridge"]


class UniversalColabBridge:
    """The smallest face: initialize, execute.

    Args:
        folder: Working folder; the current one when omitted.
        runtime: Name of a configured runtime.
        url: Address of a Jupyter server, with its token.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        runtime: str | None = None,
        url: str | None = None,
    ) -> None:
        self._link = Link(folder, runtime=runtime, options={"url": url})

    def initialize(self) -> dict[str, Any]:
        """Get the project's session, started if need be, and return what it is."""
        return self._link.open()

    def execute_code(self, code: str, *, check: bool = False) -> Result:
        """Execute code on the session's main kernel, which keeps its variables.

        Args:
            code: What to execute.
            check: Raise when the code raises.

        Raises:
            ExecutionFailed: the code raised, and ``check`` is set.
        """
        result = self._link.run({"kind": "code", "code": code})
        return result.raise_for_error() if check else result
