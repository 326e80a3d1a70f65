"""``LocalColab``: a runtime for the length of a ``with`` block."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from colab_bridge.bridge.link import Link
from colab_bridge.bridge.notebook import LocalColabNotebook
from colab_bridge.bridge.results import Result

__all__ = ["LocalColab"]


class LocalColab:
    """A session of its own, stopped at the end of the block.

    Args:
        name: Session name; a fresh one when omitted.
        folder: Working folder; the current one when omitted.
        runtime: Name of a configured runtime.
        url: Address of a Jupyter server, with its token.
        isolated: Give the local runtime a workspace folder of its own.
        python: Interpreter for the kernels of the local runtime.
        keep: Leave the session running at the end.
        on_event: Called with every event of every run, for progress.
        answer_input: Answers ``input()``; see :class:`colab_bridge.bridge.link.Link`.

    Example:
        >>> with LocalColab() as colab:  # doctest: +SKIP
        ...     print(colab.run("6 * 7").value)
        42
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        folder: str | os.PathLike[str] | None = None,
        runtime: str | None = None,
        url: str | None = None,
        isolated: bool | None = None,
        python: str | None = None,
        keep: bool = False,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        answer_input: Callable[[str], str] | None = None,
    ) -> None:
        self._name = name
        self._keep = keep
        options = {"url": url, "isolated": isolated, "python": python}
        self._link = Link(folder, runtime=runtime, options=options, on_event=on_event, answer_input=answer_input)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._keep:
            self.stop()

    @property
    def session(self) -> str | None:
        """Name of the session; None before it is started and after it was stopped."""
        return self._link.session

    def start(self) -> dict[str, Any]:
        """Make the session and return it; the ``with`` statement does so by itself."""
        return self._link.open(self._name or f"{self._link.project.name.lower()[:30] or 'py'}-{secrets.token_hex(3)}")

    def stop(self) -> None:
        """Stop the session, its kernels and its runtime."""
        self._link.stop()

    def run(self, code: str, *, check: bool = True) -> Result:
        """Execute code on the session's kernel, which keeps its variables.

        Args:
            code: Python, or the language of the runtime's default kernel.
            check: Raise when the code raises.

        Raises:
            ExecutionFailed: the code raised, and ``check`` is set.
        """
        return self._link.run({"kind": "code", "code": code}, check=check)

    def run_script(self, path: str | os.PathLike[str], *argv: str, check: bool = True) -> Result:
        """Run a script as ``python PATH ARGV...`` would.

        Raises:
            ExecutionFailed: it ended with a status other than 0, and ``check`` is set.
        """
        full = (self._link.folder / os.fspath(path)).resolve()
        source = full.read_text(encoding="utf-8")
        return self._link.run({"kind": "script", "path": str(full), "source": source, "argv": list(argv)}, check=check)

    def notebook(self, path: str | os.PathLike[str]) -> LocalColabNotebook:
        """Open a notebook on this session."""
        return LocalColabNotebook(path, link=self._link)

    def interrupt(self) -> None:
        """Interrupt whatever runs; call it from another thread."""
        self._link.act("interrupt")

    def restart(self) -> None:
        """Restart the session's kernel; its variables are gone."""
        self._link.act("restart")
