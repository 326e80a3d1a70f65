"""Has a path travel that was left out, whichever side it is on."""

from __future__ import annotations

import os

from colab_bridge.agent.sync.ignore import Cause, IgnoreRules
from colab_bridge.agent.sync.names import check_path, shown
from colab_bridge.errors import TransientError, UserError
from colab_bridge.sync.controller import SyncController
from colab_bridge.sync.remote import RemoteFailure
from colab_bridge.sync.rules import add_inclusion

__all__ = ["include_path"]


async def include_path(controller: SyncController, path: str) -> list[str]:
    """Write the rules that make a path travel, and lift the limits of size for it.

    Args:
        controller: The session's controller; both sides were looked at.
        path: Below the project, ``/`` separated.

    Returns:
        The lines that were added to the project's rules.

    Raises:
        UserError: there is no such path on either side, it never travels, or the rules cannot be written.
        TransientError: the runtime does not answer.
    """
    is_folder = await _is_folder(controller, path)
    rules = controller.local.folder.rules or IgnoreRules()
    if rules.verdict(path, is_folder=is_folder).cause is Cause.NEVER:
        raise UserError(f"{shown(path)} never travels", hint="Each side has its own; copy files: colab-bridge upload")
    project = controller.local.project
    try:
        lines = await controller.local.do(add_inclusion, project, rules, path, is_folder=is_folder)
    except OSError as error:
        raise UserError(
            f"the rules of {project} cannot be written: {error.strerror or error}", hint="Check .colabbridgeignore."
        ) from error
    await controller.include(path)
    return lines


async def _is_folder(controller: SyncController, path: str) -> bool:
    here = controller.local.project / path
    if path and check_path(path) is None:
        if os.path.lexists(here):
            return here.is_dir() and not here.is_symlink()
        info = controller.remote.info
        try:
            there, _ = await controller.remote.ask("stat", {"path": path, "base": info.root if info else ""})
            return there.get("kind") == "folder"
        except RemoteFailure as error:
            if error.code != "missing":
                raise TransientError(f"the runtime: {shown(error.text)}", hint="colab-bridge status") from error
    raise UserError(
        f"there is no {shown(path)} here or on the runtime", hint="Give a path as colab-bridge sync status shows it."
    )
