"""When a schedule is due. Pure: no clock; the time zone is an argument.

An interval of hours or less counts seconds that really pass. One of days keeps its time of day, also when the clocks
change. A crontab line is read as Debian's cron reads it, which the library cronsim mimics: a fixed time that the clocks
skip comes right after the gap, one that comes twice counts once, and ``*`` counts every hour that passes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from colab_bridge.errors import UserError

__all__ = ["LocalZone", "Rule", "next_time", "parse_rule"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY_S = 86_400
_LONGEST_S = 366 * _DAY_S
_CRON_LENGTH = 200


class LocalZone(tzinfo):
    """The time zone of this machine, by the system's own rules.

    The standard library has no such class: ``datetime.astimezone()`` gives an offset that is right for one moment only,
    and the name of the zone that ``zoneinfo`` needs is not to be had on Windows.
    """

    def utcoffset(self, moment: datetime | None) -> timedelta:
        """Return the offset that holds then; in a gap that before it, in a repeated hour as ``fold`` says (PEP 495)."""
        if moment is None:
            return timedelta(0)
        naive = moment.replace(tzinfo=None)
        return naive - datetime.fromtimestamp(naive.timestamp(), UTC).replace(tzinfo=None)

    def dst(self, moment: datetime | None) -> None:
        """Return None: not known, and not needed."""

    def tzname(self, moment: datetime | None) -> str:
        """Return a name for people."""
        return "local"

    def fromutc(self, moment: datetime) -> datetime:
        """Return the local time of a moment in UTC."""
        seconds = moment.replace(tzinfo=UTC).timestamp()
        return datetime.fromtimestamp(seconds).replace(tzinfo=self)  # noqa: DTZ006  # the system's rules are wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When something is to happen; exactly one of the two is set.

    Attributes:
        every_s: Seconds between two times; 0 for a crontab line.
        cron: The five fields of a crontab line; empty for an interval.
    """

    every_s: int = 0
    cron: str = ""

    def text(self) -> str:
        """Return the rule as it is stored and shown; :func:`parse_rule` reads it."""
        if self.cron:
            return f"cron {self.cron}"
        unit = next(unit for unit in ("w", "d", "h", "m", "s") if self.every_s % _UNITS[unit] == 0)
        return f"every {self.every_s // _UNITS[unit]}{unit}"


def parse_rule(text: str) -> Rule:
    """Read ``every 30m`` or ``cron 0 7 * * 1-5``.

    Raises:
        UserError: it is neither, or a time that never comes.
    """
    kind, _, rest = text.strip().partition(" ")
    if kind == "every":
        return _parse_interval(rest.strip())
    if kind == "cron":
        return _parse_cron(rest.strip())
    raise UserError(
        "a schedule begins with 'every' or 'cron'",
        hint="for example: every 30m, or: cron 0 7 * * 1-5",
        code="CB-USER-061",
    )


def _parse_interval(text: str) -> Rule:
    found = re.fullmatch(r"([0-9]{1,8})\s*([smhdw])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise UserError(
            f"'{text[:40]}' is no interval",
            hint="for example: --every 30m, 6h, 1d or 2w, a year at most",
            code="CB-USER-062",
        )
    return Rule(every_s=seconds)


def _parse_cron(text: str) -> Rule:
    text = " ".join(text.split())
    try:
        # The library also takes a sixth field for seconds, which other crons do not.
        if len(text) > _CRON_LENGTH or text.count(" ") != 4:
            raise CronSimError("five fields are needed")
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        reason = str(error) or "such a time never comes"
        raise UserError(
            f"'{text[:60]}' is no crontab line: {reason[:1].lower()}{reason[1:]}",
            hint='minute, hour, day, month, weekday; for example: --cron "0 7 * * 1-5"',
            code="CB-USER-063",
        ) from error
    return Rule(cron=text)


def next_time(rule: Rule, anchor: float, after: float, zone: tzinfo) -> float:
    """Return the first time of a rule that is later than a moment.

    Args:
        rule: The rule.
        anchor: Unix seconds that an interval counts from.
        after: Unix seconds.
        zone: What "local" means.
    """
    if rule.cron:
        return _next_cron(rule.cron, after, zone)
    # Whole seconds, because fractions do not survive the way through a calendar unchanged.
    anchor = math.floor(anchor)
    if rule.every_s % _DAY_S == 0:
        return _next_day(rule.every_s // _DAY_S, anchor, after, zone)
    return float(anchor + max(0, math.floor(after - anchor) // rule.every_s + 1) * rule.every_s)


def _next_cron(line: str, after: float, zone: tzinfo) -> float:
    for moment in CronSim(line, datetime.fromtimestamp(after, zone)):
        # In the hour that comes twice, fixed times are those of its first pass, which may be over.
        if (found := moment.timestamp()) > after:
            return found
    raise AssertionError("a line that was parsed has a next time")


def _next_day(days: int, anchor: float, after: float, zone: tzinfo) -> float:
    first = datetime.fromtimestamp(anchor, zone).replace(tzinfo=None, fold=0)
    here = datetime.fromtimestamp(after, zone).replace(tzinfo=None, fold=0)
    steps = max(0, (here - first) // timedelta(days=days))
    while (found := (first + timedelta(days=days * steps)).replace(tzinfo=zone).timestamp()) <= after:
        steps += 1
    return found
