"""What it means for a person that a disk refuses: what could not be done, where, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from colab_bridge.agent.sync.disk.ops import Code
from colab_bridge.sync.failures import FailureKind, SyncFailure, listed
from colab_bridge.sync_core.model import Side

__all__ = ["Trouble", "code_named", "disk_failure", "trouble_failure"]

_AGAIN = "then run: colab-bridge sync"
_PLACES = {Side.LOCAL: "this machine", Side.REMOTE: "the runtime"}
# Of several reasons the first one is told. What is not here comes of files that change, and another look settles it.
_SENTENCES = {
    Code.NO_SPACE: "the disk of {place} is full: {what}",
    Code.QUOTA: "your share of the disk of {place} is used up: {what}",
    Code.NO_PERMISSION: "{place} does not permit to change {what}",
    Code.TOO_LARGE: "the disk of {place} takes no file of this size: {what}",
    Code.BAD_NAME: "the name is not possible on {place}: {what}",
    Code.OTHER_DEVICE: "on {place} it lies on another disk than the rest of the folder: {what}",
    Code.BUSY: "on {place} a program holds it, or too many files are open: {what}",
    Code.FAILED: "the disk of {place} reported an error: {what}",
}
_HINTS = {
    Code.NO_SPACE: f"make room there, {_AGAIN}",
    Code.QUOTA: f"make room there, {_AGAIN}",
    Code.NO_PERMISSION: f"give yourself the right to write in its folder, {_AGAIN}",
    Code.TOO_LARGE: "leave it out: name it in .colabbridgeignore",
    Code.BAD_NAME: "rename it, or leave it out: name it in .colabbridgeignore",
    Code.OTHER_DEVICE: "move it, or leave it out: name it in .colabbridgeignore",
    Code.BUSY: f"close what uses it, {_AGAIN}",
    Code.FAILED: f"look at that disk (the log of the system tells more), {_AGAIN}",
}
_ROOM_THERE = f"make room there: colab-bridge rm PATH, {_AGAIN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why something that was decided could not be done.

    Attributes:
        side: Where.
        code: Why.
        sentence: For people; the code's own when empty.
        hint: What helps; the usual advice for the code when empty.
    """

    side: Side
    code: Code
    sentence: str = ""
    hint: str = ""

    @property
    def words(self) -> str:
        """What it was, for people."""
        return self.sentence or self.code.sentence


def code_named(value: object, otherwise: Code = Code.FAILED) -> Code:
    """Return the code that the other side names, or another one where there is no such code."""
    return next((code for code in Code if code.value == value), otherwise)


def disk_failure(side: Side, code: Code, what: str, paths: Collection[str] = ()) -> SyncFailure:
    """Return the failure for one reason.

    Args:
        side: Whose disk.
        code: Why; one that is not about the disk counts as an error of it.
        what: Paths or a folder, safe to print.
        paths: What it is about.
    """
    code = code if code in _SENTENCES else Code.FAILED
    text = _SENTENCES[code].format(place=_PLACES[side], what=what)
    there = side is Side.REMOTE and code in {Code.NO_SPACE, Code.QUOTA}
    return SyncFailure(FailureKind.DISK, text, hint=_ROOM_THERE if there else _HINTS[code], paths=paths)


def trouble_failure(troubles: Mapping[str, Trouble]) -> SyncFailure | None:
    """Return the failure for what stood in the way of a sync; None when files only kept changing.

    Args:
        troubles: By path.
    """
    known = [(path, trouble) for path, trouble in troubles.items() if trouble.code in _SENTENCES]
    if not known:
        return None
    order = list(_SENTENCES)
    _, first = min(known, key=lambda item: order.index(item[1].code))
    paths = [path for path, trouble in known if (trouble.side, trouble.code) == (first.side, first.code)]
    if first.sentence:
        return SyncFailure(FailureKind.DISK, first.sentence, hint=first.hint, paths=paths)
    return disk_failure(first.side, first.code, listed(paths), paths)
