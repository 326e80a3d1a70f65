r"""Reads progress bars in the text that a program prints. Pure.

tqdm's lines are understood as a whole. Of other bars, which write over their line with ``\r`` or backspaces, a count
(``45/100``), a percentage and the words ``ETA`` or ``eta`` are; where a bar names no time left, it is worked out from
how fast it has gone.

Source: tqdm's ``std.py``, ``format_meter``; Keras' ``Progbar``; pip, wget and curl by their output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

__all__ = ["Bar", "BarReader", "parse_bar"]

#: A bar is one line of a terminal; what is longer is no bar, and costs no more than this.
_TAIL_CHARACTERS = 1000
#: Bars inside bars; more at a time are nobody's progress.
_MAX_BARS = 8
_FORGET_AFTER_S = 120.0
_LONGEST_S = 366 * 86_400.0
# A bar that has just begun says nothing about its speed.
_LEAST_PART = 0.01

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_])")
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([kKMGTP]?)"
_TQDM_REST = re.compile(
    rf"\s*{_NUMBER}/{_NUMBER}\s*\[\s*([0-9:]{{1,12}})<\s*([0-9:?]{{1,12}})(?:,\s*([0-9.]{{1,15}}|\?)([kKMGTP]?)([^/\]]{{0,20}})/([^,\]]{{1,20}}))?"
)
_PERCENT = re.compile(r"(?<![0-9.])([0-9]{1,3}(?:\.[0-9]{1,4})?) ?%")
_COUNT = re.compile(r"(?<![0-9./])([0-9]{1,12}) ?/ ?([0-9]{1,12})(?![0-9./])")
_ETA = re.compile(r"\b(?:ETA|eta)\b:?\s*(?:([0-9]{1,3}):)?([0-9]{1,5})(?::([0-9]{2}))?\s?(s\b)?")
_SCALE = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What one progress bar shows.

    Attributes:
        label: Words before it; empty without.
        fraction: From 0 to 1; None when only a time is known.
        n: How many are done; None when only a part of the whole is known.
        of: How many there are.
        rate: How many a second; None when unknown.
        unit: What is counted, such as ``it`` or ``B``.
        eta_s: Seconds left, None when unknown.
    """

    label: str = ""
    fraction: float | None = None
    n: float | None = None
    of: float | None = None
    rate: float | None = None
    unit: str = ""
    eta_s: float | None = None

    @property
    def done(self) -> bool:
        """Whether it has reached its end."""
        return self.fraction is not None and self.fraction >= 1


def parse_bar(line: str) -> Bar | None:
    """Read one line as a progress bar; None when it is none.

    Args:
        line: What a terminal shows at one moment; only its end counts when it is long.
    """
    text = _ESCAPES.sub("", line[-_TAIL_CHARACTERS:])
    return _tqdm(text) or _plain(text)


def _tqdm(text: str) -> Bar | None:
    percent = text.rfind("%|")
    end = text.find("|", percent + 2) if percent >= 0 else -1
    if end < 0 or (found := _TQDM_REST.match(text, end + 1)) is None:
        return None
    n, of = _scaled(found[1], found[2]), _scaled(found[3], found[4])
    if of <= 0:
        return None
    head = text[:percent].rstrip("0123456789").strip().removesuffix(":")
    rate, unit = _rate(found[7], found[8], found[9], found[10])
    return Bar(
        label=head[-60:],
        fraction=min(1.0, n / of),
        n=n,
        of=of,
        rate=rate,
        unit=unit,
        eta_s=_clock(found[6]),
    )


def _rate(number: str | None, scale: str | None, what: str | None, per: str | None) -> tuple[float | None, str]:
    """Return how many a second, of what: tqdm shows ``3.2it/s``, and ``1.5s/it`` when that is easier to read."""
    if number is None or number.count(".") > 1 or not number.strip(".?"):
        return None, (what or "").strip()
    value = float(number) * _SCALE[scale or ""]
    if (per or "").strip() == "s":
        return value, (what or "").strip()
    return (1 / value if value else None), (per or "").strip()


def _plain(text: str) -> Bar | None:
    counts, percents = _COUNT.findall(text), _PERCENT.findall(text)
    n = of = fraction = None
    if counts and 0 < int(counts[0][1]) >= int(counts[0][0]):
        n, of = float(counts[0][0]), float(counts[0][1])
        fraction = n / of
    elif percents and float(percents[-1]) <= 100:
        fraction = float(percents[-1]) / 100
    if fraction is None:
        return None
    label = re.split(r"[0-9\[(|━#=]", text.strip(), maxsplit=1)[0].strip().removesuffix(":")
    return Bar(label=label[-60:], fraction=fraction, n=n, of=of, eta_s=_eta_word(text))


def _eta_word(text: str) -> float | None:
    found = _ETA.search(text)
    if found is None:
        return None
    if found[1] is None and found[3] is None:
        return float(found[2]) if found[4] else None
    return _clock(":".join(part for part in found.group(1, 2, 3) if part is not None))


def _clock(text: str) -> float | None:
    """Return the seconds of ``12:34`` or ``1:02:03``; None for what is no time."""
    seconds = 0.0
    for part in text.split(":"):
        if not part.isascii() or not part.isdigit():
            return None
        seconds = seconds * 60 + int(part)
    return min(seconds, _LONGEST_S)


def _scaled(number: str, scale: str) -> float:
    return float(number) * _SCALE[scale]


@dataclass(slots=True)
class _Seen:
    """A bar over time."""

    bar: Bar
    first_fraction: float
    first_at: float
    at: float


class BarReader:
    """Follows the bars in the output of one cell."""

    def __init__(self) -> None:
        self._bars: dict[tuple[str, float | None], _Seen] = {}

    def feed(self, text: str, now: float) -> None:
        """Take in printed text.

        Args:
            text: As it came, with control characters.
            now: Seconds, of a clock that does not go backwards.
        """
        # Most output has no bar; finding that out must cost next to nothing.
        if "\r" not in text and "\x08" not in text and "%|" not in text:
            return
        lines = re.split(r"[\r\n\x08]+", text[-_TAIL_CHARACTERS:])
        # The first one of a long text is cut off in its middle.
        for line in lines[max(len(text) > _TAIL_CHARACTERS, len(lines) - _MAX_BARS) :]:
            if line.strip() and (bar := parse_bar(line)) is not None:
                self._take(bar, now)

    def _take(self, bar: Bar, now: float) -> None:
        key = (bar.label, bar.of)
        fraction = bar.fraction or 0.0
        seen = self._bars.pop(key, None)
        if seen is None or fraction < (seen.bar.fraction or 0.0):
            seen = _Seen(bar, fraction, now, now)  # a bar that begins anew, as inner ones do
        seen.bar, seen.at = bar, now
        self._bars[key] = seen
        while len(self._bars) > _MAX_BARS:
            del self._bars[next(iter(self._bars))]

    def current(self, now: float) -> Bar | None:
        """Return the bar that says most about the time left: of several the one that takes longest.

        Args:
            now: Of the same clock; time left goes down with it while a bar stands still.
        """
        open_bars = [
            _with_eta(seen, now)
            for seen in self._bars.values()
            if not seen.bar.done and now - seen.at <= max(_FORGET_AFTER_S, 3 * (seen.bar.eta_s or 0))
        ]
        return max(open_bars, key=lambda bar: -1.0 if bar.eta_s is None else bar.eta_s, default=None)


def _with_eta(seen: _Seen, now: float) -> Bar:
    bar, since = seen.bar, now - seen.at
    if bar.eta_s is not None:
        return replace(bar, eta_s=max(0.0, bar.eta_s - since))
    part = (bar.fraction or 0.0) - seen.first_fraction
    passed = seen.at - seen.first_at
    if part < _LEAST_PART or passed <= 0:
        return bar
    left = (1 - (bar.fraction or 0.0)) * passed / part
    rate = part * bar.of / passed if bar.of is not None else None
    return replace(bar, eta_s=max(0.0, min(left, _LONGEST_S) - since), rate=rate)
