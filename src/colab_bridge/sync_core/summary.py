"""What people are told: values for ``sync status`` and ``sync diff``, and one line after a run.

Names come from the other side and are made harmless by :func:`~colab_bridge.agent.sync.names.shown`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from colab_bridge.agent.sync.names import MAX_PATH_BYTES, shown
from colab_bridge.agent.sync.tree import Blocked, Entry, File, Unknown, Why
from colab_bridge.sync_core.changes import Action, Change
from colab_bridge.sync_core.model import Decision, Hold, Reason, Rule, Side, Stop
from colab_bridge.sync_core.plan import Plan

__all__ = [
    "DiffLine",
    "Kind",
    "Notice",
    "diff_lines",
    "held_amount",
    "hold_lines",
    "left_out_line",
    "notices",
    "one_line",
]

_FAULTS = {
    "EACCES": "no permission",
    "EPERM": "no permission",
    "EIO": "the disk reported an error",
    "EMFILE": "too many open files",
    "ENFILE": "too many open files",
}
_NAMED = 3
_SIZES = frozenset({Why.TOO_BIG, Why.OVER_BUDGET})


class Kind(StrEnum):
    """What happens to one path, as a person sees it."""

    NEW = "new"
    CHANGED = "changed"
    DELETED = "deleted"
    MOVED = "moved"
    EXECUTABLE = "executable"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffLine:
    """One line of ``sync diff``.

    Attributes:
        to: The side that changes: ``remote`` is up, ``local`` is down.
        kind: What happens.
        path: Where, safe to print.
        old_path: For ``MOVED``: from where.
        size: Bytes of the new content.
        rule: Rule of the decision.
        sentence: Why.
    """

    to: Side
    kind: Kind
    path: str
    old_path: str = ""
    size: int = 0
    rule: Rule
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something a person should know about one path.

    Attributes:
        path: Where, safe to print.
        kind: ``conflict``, ``kept``, ``blocked``, ``stays-there`` (a large file of the runtime), ``exec-dropped`` or
            ``folder-kept``.
        sentence: What it means.
        command: The command that helps, or empty.
    """

    path: str
    kind: str
    sentence: str
    command: str = ""


def diff_lines(plan: Plan) -> tuple[DiffLine, ...]:
    """Return the exact plan, one line for each file or link, with moves told as moves; empty folders are named too."""
    moves = _moves(plan.changes)
    sources = {(change.side, change.path) for change in moves.values()}
    lines: list[DiffLine] = []
    for change in plan.changes:
        if (change.side, change.path) in sources and change.action is Action.REMOVE:
            continue
        source = moves.get((change.side, change.path))
        lines.append(_line(change, source))
    return tuple(sorted(lines, key=lambda line: (line.to, line.path)))


def _line(change: Change, source: Change | None) -> DiffLine:
    kind = _kind(change)
    old_path = change.old_path
    if source is not None:
        kind, old_path = Kind.MOVED, source.path
    folder = "/" if change.action in {Action.MAKE_FOLDER, Action.REMOVE_FOLDER} else ""
    return DiffLine(
        to=change.side,
        kind=kind,
        path=shown(change.path) + folder,
        old_path=shown(old_path) if old_path else "",
        size=change.after.size if isinstance(change.after, File) else 0,
        rule=change.decision.rule,
        sentence=change.decision.reason.sentence,
    )


def _kind(change: Change) -> Kind:
    if change.action is Action.RENAME:
        return Kind.MOVED
    if change.action is Action.SET_EXECUTABLE:
        return Kind.EXECUTABLE
    if change.action >= Action.REMOVE:
        return Kind.DELETED
    return Kind.NEW if change.before is None else Kind.CHANGED


def _moves(changes: Iterable[Change]) -> dict[tuple[Side, str], Change]:
    """Pair new files with removed ones of the same content on the same side, each once; equal names first."""
    gone: dict[tuple[Side, bytes], list[Change]] = defaultdict(list)
    made: list[Change] = []
    for change in changes:
        if change.action is Action.REMOVE and isinstance(change.before, File):
            gone[change.side, change.before.digest].append(change)
        elif change.action is Action.WRITE and change.before is None:
            made.append(change)
    pairs: dict[tuple[Side, str], Change] = {}
    for change in made:
        candidates = gone.get((change.side, change.after.digest)) if isinstance(change.after, File) else None
        if candidates:
            name = change.path.rpartition("/")[2]
            best = min(candidates, key=lambda old: (old.path.rpartition("/")[2] != name, old.path))
            candidates.remove(best)
            pairs[change.side, change.path] = best
    return pairs


def notices(plan: Plan) -> tuple[Notice, ...]:
    """Return what is worth a word: conflicts, kept edits, blocked paths, dropped executable bits, kept folders."""
    found = [notice for decision in plan.decisions if decision.path not in plan.held for notice in _notices(decision)]
    found += [
        Notice(path=shown(change.path), kind="folder-kept", sentence="kept: it holds content that does not travel")
        for change in plan.kept_folders
    ]
    return tuple(sorted(found, key=lambda notice: (notice.path, notice.kind)))


def _notices(decision: Decision) -> Iterable[Notice]:
    path = shown(decision.path)
    if decision.stored:
        yield Notice(
            path=path,
            kind="conflict",
            sentence=decision.reason.sentence,
            command=f"colab-bridge sync conflicts {_quoted(path)}",
        )
    if decision.reason in {Reason.EDIT_BEATS_DELETE, Reason.SURVIVORS}:
        yield Notice(path=path, kind="kept", sentence=decision.reason.sentence)
    if not decision.settled:
        too_large = [_is_too_large(entry) for entry in (decision.local, decision.remote)]
        command = include_command(path) if any(too_large) else ""
        kind = "stays-there" if too_large[1] and not too_large[0] else "blocked"
        yield Notice(path=path, kind=kind, sentence=_blocked_sentence(decision), command=command)
    if decision.remote_keeps_exec:
        yield Notice(path=path, kind="exec-dropped", sentence="the runtime may not make it executable here")


def _is_too_large(entry: Entry | None) -> bool:
    """Return whether only the limits of size keep a file from travelling."""
    return isinstance(entry, Blocked) and entry.why in _SIZES


def _blocked_sentence(decision: Decision) -> str:
    for side, entry in (("here", decision.local), ("on the runtime", decision.remote)):
        if isinstance(entry, (Blocked, Unknown)):
            return f"{side}: {blocked_sentence(entry)}"
    return decision.reason.sentence


def blocked_sentence(entry: Blocked | Unknown) -> str:
    """Return why something stays where it is."""
    if isinstance(entry, Blocked):
        return entry.why.sentence
    return f"the folder could not be listed ({_FAULTS.get(entry.detail) or shown(entry.detail)})"


def _quoted(text: str) -> str:
    plain = text.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    return text if plain.isalnum() and plain.isascii() else "'" + text.replace("'", "'\\''") + "'"


def hold_lines(hold: Hold) -> tuple[str, ...]:
    """Return what is held, with the two commands where a person may decide."""
    where = "here" if hold.side is Side.LOCAL else "on the runtime"
    first = f"held ({hold.stop.value}): {held_amount(hold)} {where}: {hold.sentence}"
    if hold.stop is Stop.ROOT_LOST:
        first = f"stopped (S5): the folder {where}: {hold.sentence}"
    if hold.stop is Stop.LOW_DISK:
        return (first, "  make room on the disk of this folder, then run: colab-bridge sync")
    if not hold.approvable:
        return (first, f"  colab-bridge sync reject {hold.id}") if hold.paths else (first,)
    return (first, f"  colab-bridge sync approve {hold.id}", f"  colab-bridge sync reject {hold.id}")


def held_amount(hold: Hold) -> str:
    """Return what is held as a number of files, or its name where it is one; folders around them are not counted."""
    above = {path[:cut] for path in hold.paths for cut, letter in enumerate(path) if letter == "/"}
    files = [path for path in hold.paths if path not in above]
    if len(files) == 1:
        return shown(files[0])
    return f"{len(files)} {'deletions' if hold.stop is Stop.MASS_DELETION else 'changes'}"


def left_out_line(path: str, sentence: str, *, includable: bool = True) -> str:
    """Return the line for a file that stays at home, with the command that takes it along where there is one."""
    safe = shown(path)
    if not includable:
        return f"{safe}: {sentence}"
    return f"{safe}: {sentence}; to take it along: {include_command(path)}"


def include_command(path: str) -> str:
    """Return the command that takes a path along, as a shell reads it."""
    whole = path.isprintable() and len(path) <= MAX_PATH_BYTES
    return f"colab-bridge sync include {_quoted(path if whole else shown(path))}"


def one_line(plan: Plan) -> str:
    """Return the line after a run, such as ``3 up, 2 down: outputs/plot.png, models/m.pkl``; empty when nothing moved.

    Results that came down are named before what went up.
    """
    folders = {Action.MAKE_FOLDER, Action.REMOVE_FOLDER}
    files = {side: [c.path for c in plan.changes_on(side) if c.action not in folders] for side in Side}
    words = [f"{len(files[side])} {word}" for side, word in ((Side.REMOTE, "up"), (Side.LOCAL, "down")) if files[side]]
    conflicts = sum(1 for decision in plan.decisions if decision.stored and decision.path not in plan.held)
    if conflicts:
        words.append(f"{conflicts} conflict" + ("s" if conflicts > 1 else ""))
    if plan.holds:
        words.append(f"{sum(max(1, len(hold.paths)) for hold in plan.holds)} held")
    names = sorted(files[Side.LOCAL]) + sorted(files[Side.REMOTE])
    if not words:
        return ""
    listed = ", ".join(shown(name) for name in names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    return ", ".join(words) + (f": {listed}" if listed else "")
