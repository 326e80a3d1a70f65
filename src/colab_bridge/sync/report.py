"""What people and programs are told about a sync."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from colab_bridge.agent.sync.disk.ops import TXN
from colab_bridge.agent.sync.disk.scan import LeftOut
from colab_bridge.agent.sync.names import shown
from colab_bridge.sync.carry import Tally
from colab_bridge.sync.troubles import Trouble
from colab_bridge.sync_core.changes import Action
from colab_bridge.sync_core.model import Hold, Side
from colab_bridge.sync_core.plan import Plan
from colab_bridge.sync_core.summary import Notice, diff_lines, hold_lines, left_out_line, notices, one_line

__all__ = [
    "Deferred",
    "SyncReport",
    "diff_view",
    "hold_view",
    "late_write",
    "left_out_lines",
    "make_report",
    "merged",
    "run_line",
]


_TRASH_ID = re.compile(rf"{TXN.pattern}/[0-9]{{1,9}}")
_FOLDERS = frozenset({Action.MAKE_FOLDER, Action.REMOVE_FOLDER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """A large result that comes down in the background.

    Attributes:
        path: Where.
        size: Bytes.
    """

    path: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one sync has done, and what is left.

    Attributes:
        line: One line for people, empty when nothing moved.
        up: Paths that changed on the runtime.
        down: Paths that changed here.
        notices: What is worth a word.
        holds: What waits for a person.
        failed: Paths that could not be done, with the reason.
        deferred: Large results that follow in the background.
        unstable: Files that a program there has open for writing.
        sent: Bytes of content up.
        received: Bytes of content down.
        round_trips: Answers of the runtime that had to be waited for.
        seconds: How long it took.
    """

    line: str = ""
    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    holds: tuple[Hold, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    deferred: tuple[Deferred, ...] = ()
    unstable: tuple[str, ...] = ()
    sent: int = 0
    received: int = 0
    round_trips: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it for the API."""
        return {
            "line": self.line,
            "up": [shown(path) for path in self.up],
            "down": [shown(path) for path in self.down],
            "notices": [
                {"path": n.path, "kind": n.kind, "sentence": n.sentence, "command": n.command} for n in self.notices
            ],
            "holds": [hold_view(hold) for hold in self.holds],
            "failed": [{"path": shown(path), "sentence": why} for path, why in sorted(self.failed.items())],
            "deferred": [{"path": shown(item.path), "size": item.size} for item in self.deferred],
            "unstable": [shown(path) for path in self.unstable],
            "sent": self.sent,
            "received": self.received,
            "round_trips": self.round_trips,
            "seconds": round(self.seconds, 4),
        }


def make_report(
    done: Sequence[Plan],
    *,
    failed: Collection[str],
    troubles: Mapping[str, Trouble],
    deferred: tuple[Deferred, ...],
    unstable: tuple[str, ...],
    more: Sequence[Notice],
    tally: Tally,
    round_trips: int,
    seconds: float,
) -> SyncReport:
    """Sum up the rounds of a sync; their plans hold only what was done."""
    busy = [plan for plan in done if plan.changes]
    last = done[-1] if done else Plan()
    found: dict[tuple[str, str], Notice] = {(n.path, n.kind): n for plan in done for n in notices(plan)}
    found.update({(n.path, n.kind): n for n in more})
    lines = [one_line(replace(plan, holds=())) for plan in busy]
    return SyncReport(
        line="; ".join(line for line in lines if line),
        up=_moved(done, Side.REMOTE),
        down=_moved(done, Side.LOCAL),
        notices=tuple(found.values()),
        holds=last.holds,
        failed={path: troubles[path].words if path in troubles else "it changed meanwhile" for path in failed},
        deferred=deferred,
        unstable=unstable,
        sent=tally.sent,
        received=tally.received,
        round_trips=round_trips,
        seconds=seconds,
    )


def _moved(done: Sequence[Plan], side: Side) -> tuple[str, ...]:
    """Return the files that changed on a side; folders are not counted."""
    changes = (c for plan in done for c in plan.changes_on(side))
    return tuple(dict.fromkeys(c.path for c in changes if c.action not in _FOLDERS))


def merged(reports: Sequence[SyncReport]) -> SyncReport:
    """Return one report for several syncs, the last of which tells how things stand now."""
    notices = {(n.path, n.kind): n for report in reports for n in report.notices}
    return replace(
        reports[-1],
        line="; ".join(report.line for report in reports if report.line),
        up=tuple(dict.fromkeys(path for report in reports for path in report.up)),
        down=tuple(dict.fromkeys(path for report in reports for path in report.down)),
        notices=tuple(notices.values()),
        sent=sum(report.sent for report in reports),
        received=sum(report.received for report in reports),
    )


def run_line(reports: Sequence[SyncReport], without: Collection[str] = (), named: int = 3) -> str:
    """Return the line after a run, such as ``3 up, 2 down: outputs/plot.png, models/m.pkl``; empty when nothing moved.

    Results are named before what went up. What still comes down in the background is not counted, even where a
    beginning of it is here.

    Args:
        reports: Syncs that belong to the run.
        without: Paths that are not counted.
        named: How many are named.
    """
    ups = tuple(dict.fromkeys(path for report in reports for path in report.up if path not in without))
    without = {*without, *(item.path for item in (reports[-1].deferred if reports else ()))}
    downs = tuple(dict.fromkeys(path for report in reports for path in report.down if path not in without))
    words = [f"{len(paths)} {word}" for paths, word in ((ups, "up"), (downs, "down")) if paths]
    if not words:
        return ""
    names = [*sorted(downs), *(path for path in sorted(ups) if path not in downs)]
    return (
        f"{', '.join(words)}: {', '.join(shown(name) for name in names[:named])}{', …' if len(names) > named else ''}"
    )


def late_write(path: str, entry: str) -> Notice:
    """Return the notice for an old version in the runtime's trash into which a program went on writing.

    Args:
        path: Where it stood.
        entry: Its id, as the runtime says.
    """
    command = ""
    if _TRASH_ID.fullmatch(entry):
        command = f"colab-bridge sync trash restore --remote {entry} --to NEW-PATH"
    sentence = "a program on the runtime went on writing into the version that was replaced"
    return Notice(path=shown(path), kind="late-write", sentence=sentence, command=command)


def hold_view(hold: Hold) -> dict[str, Any]:
    """Return a hold for the API."""
    return {
        "id": hold.id,
        "stop": hold.stop.value,
        "side": str(hold.side),
        "sentence": hold.sentence,
        "count": len(hold.paths),
        "paths": [shown(path) for path in hold.paths[:20]],
        "approvable": hold.approvable,
        "lines": list(hold_lines(hold)),
    }


def diff_view(plan: Plan) -> list[dict[str, Any]]:
    """Return the lines of a plan for the API."""
    return [
        {
            "to": str(line.to),
            "kind": str(line.kind),
            "path": line.path,
            "old_path": line.old_path,
            "size": line.size,
            "rule": str(line.rule),
            "sentence": line.sentence,
        }
        for line in diff_lines(plan)
    ]


def left_out_lines(left_out: Sequence[LeftOut], most: int = 1000) -> list[dict[str, Any]]:
    """Return what stays at home, largest first, with the command that takes it along."""
    items: Iterable[Any] = sorted(left_out, key=lambda item: -item.size)
    return [
        {
            "path": shown(item.path),
            "size": item.size,
            "sentence": item.sentence,
            "line": left_out_line(item.path, item.sentence, includable=item.includable),
        }
        for item in list(items)[:most]
    ]
