"""``AutoColabDeployer``: a notebook in Drive, run on a runtime, with its outputs in both places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from colab_bridge._util.ids import new_id
from colab_bridge.bridge.link import Link
from colab_bridge.bridge.results import Result
from colab_bridge.client.daemon import segment
from colab_bridge.errors import UserError

__all__ = ["AutoColabDeployer", "Deployment"]

#: A machine may have to be waited for before the notebook runs.
_START_S = 600.0
#: Longer than the daemon itself waits for Drive.
_WRITTEN_S = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A notebook that was deployed.

    Attributes:
        link: Page that opens it in Colab, on its runtime while that lives.
        file_id: Its id in Drive.
        created: Whether it was made in Drive just now.
        shared: Addresses that can see it since now.
        result: How its run ended.
        problem: Why its outputs are not in Drive, one line; empty when they are.
    """

    link: str
    file_id: str
    created: bool
    shared: tuple[str, ...]
    result: Result
    problem: str = ""


class AutoColabDeployer:
    """Publishes notebooks in Google Drive and runs them.

    Args:
        folder: Working folder; the notebook's own when omitted.
        runtime: Name of a configured runtime.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, runtime: str | None = None) -> None:
        self._folder = folder
        self._runtime = runtime

    def deploy_notebook(
        self,
        path: str | os.PathLike[str],
        *,
        gpu: str | None = None,
        share_with: Sequence[str] = (),
        role: str = "reader",
        check: bool = False,
    ) -> Deployment:
        """Publish a notebook, share it, run it, and write its outputs back to the file here and to Drive.

        Args:
            path: The notebook.
            gpu: Order of preference, such as ``A100,L4,T4``; the runtime's own setting when omitted.
            share_with: E-mail addresses that may see it; no mail is sent.
            role: What they may do: ``reader``, ``commenter`` or ``writer``.
            check: Raise when a cell raises.

        Raises:
            UserError: there is no such notebook.
            AuthError: there is no sign-in for Drive.
            ExecutionFailed: a cell raised, and ``check`` is set.
        """
        notebook = Path(path).resolve()
        if notebook.suffix != ".ipynb" or not notebook.is_file():
            raise UserError(f"there is no notebook {notebook}", hint="give an .ipynb file")
        link = Link(self._folder or notebook.parent, runtime=self._runtime, options={"gpu": gpu})
        run = {
            "cwd": str(notebook.parent),
            "allow_stdin": False,
            **link.target(),
            "kind": "notebook",
            "notebook": {"path": str(notebook)},
            "run_id": new_id("run"),
        }
        body = {"run": run, "share_with": list(share_with), "role": role}
        made = link.client.post("/v1/deployments", body, timeout_s=_START_S)
        run_id = str(made["run"]["id"])
        result = link.follow(run_id, check=check)
        written = link.client.get(f"/v1/deployments/{segment(run_id)}", timeout_s=_WRITTEN_S)
        problem = "" if written["written"] else str(written["problem"] or "Drive did not answer in time")
        return Deployment(
            link=str(made["link"]),
            file_id=str(made["file"]["id"]),
            created=bool(made["file"]["created"]),
            shared=tuple(made["shared"]),
            result=result,
            problem=problem,
        )
