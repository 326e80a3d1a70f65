"""What sessions use of an account's compute units.

Google tells one rate for all runtimes of an account together. It is divided here by what each kind of machine is known
to cost, and added up over time. What was used while no daemon ran is counted at the last known rate when the session is
still there.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colab_bridge._util.atomic import write_atomic
from colab_bridge.ports.clock import Clock

__all__ = ["Meter", "shares"]

log = logging.getLogger(__name__)

_SCHEMA = 1
#: A gap longer than this is no use: the machine was asleep, or the clock was set.
_MOST_GAP_S = 86_400.0


def shares(
    rate_hourly: float, machines: Mapping[str, str], others: int, rates: Mapping[str, float]
) -> dict[str, float]:
    """Divide the rate of an account among its runtimes. Pure.

    Args:
        rate_hourly: Compute units an hour of all runtimes together.
        machines: Kind of machine by session, as :class:`~colab_bridge.model.hardware.Hardware` prints it.
        others: Runtimes of the account that belong to no session.
        rates: What kinds of machines are known to cost.

    Returns:
        Compute units an hour by session.
    """
    if not machines:
        return {}
    weights = {name: rates.get(kind, 0.0) for name, kind in machines.items()}
    if all(weights.values()):
        known = sum(weights.values())
        # Foreign machines have the rest; without any, what is told is right and what was learned may be old.
        scale = 1.0 if others else rate_hourly / known
        return {name: min(weight * scale, rate_hourly) for name, weight in weights.items()}
    return {name: rate_hourly / (len(machines) + others) for name in machines}


@dataclass(slots=True)
class _Account:
    units: float = 0.0
    rate_hourly: float = 0.0
    at: float = 0.0


class Meter:
    """Adds up what sessions and the runs on them use.

    Args:
        path: Where it is kept.
        clock: Time source.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._sessions: dict[str, _Account] = {}
        self._runs: dict[str, tuple[str, float]] = {}  # by run: its session, and what that one had used before
        self._load()

    def note(self, session: str, rate_hourly: float) -> None:
        """Take note of what a session's runtime costs from now on."""
        account = self._brought_up(session)
        account.rate_hourly = rate_hourly

    def spent(self, session: str) -> float | None:
        """Return the compute units that a session has used; None when nothing is known."""
        return self._brought_up(session).units if session in self._sessions else None

    def rate(self, session: str) -> float | None:
        """Return the compute units an hour that a session uses now; None when unknown."""
        account = self._sessions.get(session)
        return account.rate_hourly if account is not None else None

    def begin(self, run: str, session: str) -> None:
        """Count what a run uses from now on; one that is counted already goes on."""
        if run not in self._runs:
            self._runs[run] = (session, self.spent(session) or 0.0)
            self.save()

    def run_units(self, run: str) -> float | None:
        """Return the compute units that a run has used so far; None when it is not counted."""
        if run not in self._runs or self._runs[run][0] not in self._sessions:
            return None
        session, before = self._runs[run]
        return max(0.0, self._brought_up(session).units - before)

    def end(self, run: str) -> float | None:
        """Return the compute units that a run has used, and count it no more; None when it was not counted."""
        units = self.run_units(run)
        if self._runs.pop(run, None) is not None:
            self.save()
        return units

    def forget(self, session: str) -> None:
        """Drop a session that has ended."""
        self._runs = {run: entry for run, entry in self._runs.items() if entry[0] != session}
        if self._sessions.pop(session, None) is not None:
            self.save()

    def _brought_up(self, session: str) -> _Account:
        now = self._clock.time()
        account = self._sessions.setdefault(session, _Account(at=now))
        account.units += account.rate_hourly * min(max(0.0, now - account.at), _MOST_GAP_S) / 3600
        account.at = now
        return account

    def save(self) -> None:
        """Put it on disk; a disk that does not take it costs the figures, nothing else."""
        value = {name: [each.units, each.rate_hourly, each.at] for name, each in self._sessions.items()}
        try:
            document = {"v": _SCHEMA, "sessions": value, "runs": self._runs}
            write_atomic(self._path, json.dumps(document).encode(), mode=0o600)
        except OSError as error:
            log.warning("usage not written down", extra={"why": str(error)})

    def _load(self) -> None:
        try:
            value = json.loads(self._path.read_bytes())
            sessions = {
                str(name): _Account(units=float(units), rate_hourly=float(rate), at=float(at))
                for name, (units, rate, at) in value["sessions"].items()
            }
            runs = {str(run): (str(name), float(before)) for run, (name, before) in value.get("runs", {}).items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.warning("usage cannot be read and begins anew", extra={"why": type(error).__name__})
            return
        self._sessions, self._runs = sessions, runs
