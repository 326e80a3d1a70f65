"""The path rule: which names may travel, and under which keys names are compared.

One function for everything that arrives: paths, link targets and rename sources. Names on the wire are NFC. A name is
*hostile* when no honest agent can send it (the session ends), *refused* when it can exist but never travels, and
*unportable* when some system cannot hold it: such a name is not created where it does not exist already.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING
from unicodedata import category, normalize

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "MAX_DEPTH",
    "MAX_NAME_BYTES",
    "MAX_PATH_BYTES",
    "MAX_TARGET_BYTES",
    "NameFault",
    "check_name",
    "check_path",
    "check_target",
    "fold_key",
    "guard_key",
    "name_from_disk",
    "pick_names",
    "shown",
]

MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255
MAX_DEPTH = 64
MAX_TARGET_BYTES = 1024

# Controls, zero-width and direction marks, byte order mark, tags: names that look like other names, or that some file
# systems leave out when they compare.
_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_WINDOWS_CHARACTERS = frozenset('<>:"|?*')
_WINDOWS_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "clock$", "conin$", "conout$"]
    + [device + digit for device in ("com", "lpt") for digit in "0123456789\u00b9\u00b2\u00b3"]
)
# Most names and paths; none that begins like a device, those are looked at closely.
_PLAIN = re.compile(
    r"(?![CPANLcpanl](?i:on|rn|ux|ul|lock|om[0-9]|pt[0-9]))[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
)
_PLAIN_PATH = re.compile(rf"{_PLAIN.pattern}(?:/{_PLAIN.pattern})*")
_SHOWN_CHARACTERS = 200


class NameFault(str, Enum):
    """What is wrong with a name; ``grade`` is hostile, refused or unportable."""

    EMPTY = "hostile", "empty", "an empty component"
    DOTS = "hostile", "dots", "a . or .. component"
    ABSOLUTE = "hostile", "absolute", "an absolute path"
    NUL = "hostile", "nul", "a NUL character"
    SEPARATOR = "hostile", "separator", "a separator inside a name"
    NOT_NFC = "hostile", "not-nfc", "a name that is not in Unicode form NFC"
    NOT_UTF8 = "refused", "not-utf8", "a name that is not UTF-8"
    INVISIBLE = "refused", "invisible", "a control or invisible character"
    BACKSLASH = "refused", "backslash", "a backslash"
    HOME = "refused", "home", "a leading ~"
    LONG_NAME = "refused", "long-name", "a name of more than 255 bytes"
    LONG_PATH = "refused", "long-path", "a path of more than 1,024 bytes"
    DEEP = "refused", "deep", "a path of more than 64 folders"
    CHARACTER = "unportable", "character", 'one of < > : " | ? *'
    TRAILING = "unportable", "trailing", "a trailing dot or space"
    DEVICE = "unportable", "device", "a name that Windows reserves"

    grade: str
    sentence: str

    def __new__(cls, grade: str, value: str, sentence: str) -> Self:
        """Keep grade and sentence beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.grade = grade
        member.sentence = sentence
        return member


def _hostile(name: str) -> NameFault | None:
    if not name:
        return NameFault.EMPTY
    if name in {".", ".."}:
        return NameFault.DOTS
    if "\0" in name:
        return NameFault.NUL
    return NameFault.SEPARATOR if "/" in name else None


def _refused(name: str) -> NameFault | None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return NameFault.NOT_UTF8
    if normalize("NFC", name) != name:
        return NameFault.NOT_NFC
    if "\\" in name:
        return NameFault.BACKSLASH
    if _INVISIBLE.search(name):
        return NameFault.INVISIBLE
    return NameFault.LONG_NAME if length > MAX_NAME_BYTES else None


def _unportable(name: str) -> NameFault | None:
    if not _WINDOWS_CHARACTERS.isdisjoint(name):
        return NameFault.CHARACTER
    if name[-1] in ". ":
        return NameFault.TRAILING
    return NameFault.DEVICE if name.split(".", 1)[0].rstrip(" ").casefold() in _WINDOWS_DEVICES else None


def check_name(name: str) -> NameFault | None:
    """Return what is wrong with one component, the worst first; None when it may travel anywhere."""
    if len(name) <= MAX_NAME_BYTES and _PLAIN.fullmatch(name):
        return None
    return _hostile(name) or _refused(name) or _unportable(name)


def check_path(path: str) -> NameFault | None:
    """Return what is wrong with a relative path, the worst first; None when it may travel anywhere."""
    if len(path) <= MAX_NAME_BYTES and _PLAIN_PATH.fullmatch(path) and path.count("/") < MAX_DEPTH:
        # So short that no name in it is too long.
        return None
    if path.startswith("/"):
        return NameFault.ABSOLUTE
    names = path.split("/")
    if len(names) > MAX_DEPTH:
        faults = {_hostile(name) for name in names}
        return next((fault for fault in NameFault if fault in faults), NameFault.DEEP)
    faults = {check_name(name) for name in names}
    if path.startswith("~"):
        faults.add(NameFault.HOME)
    if len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        faults.add(NameFault.LONG_PATH)
    faults.discard(None)
    # Members stand in the order of their weight.
    return None if not faults else next((fault for fault in NameFault if fault in faults), None)


def check_target(target: str) -> NameFault | None:
    """Return what is wrong with the text of a link; whether it stays inside is another question.

    ``.`` and ``..`` are allowed here, absolute targets are not.
    """
    if not target:
        return NameFault.EMPTY
    if "\0" in target:
        return NameFault.NUL
    if target.startswith("/"):
        return NameFault.ABSOLUTE
    if target.startswith("~"):
        return NameFault.HOME
    try:
        length = len(target.encode())
    except UnicodeEncodeError:
        return NameFault.NOT_UTF8
    if length > MAX_TARGET_BYTES:
        return NameFault.LONG_PATH
    faults = {check_name(name) for name in target.split("/") if name not in {"", ".", ".."}}
    return next((fault for fault in NameFault if fault in faults), None)


def fold_key(name: str) -> str:
    """Return the key under which a folding file system would find the name (NFC, then casefold)."""
    return normalize("NFC", normalize("NFC", name).casefold())


def guard_key(name: str) -> str:
    """Return the key under which names are compared with the guard lists, on every system.

    Wider than any one file system: compatibility forms, case, ignorable code points, trailing dots and spaces and
    ``:stream`` suffixes are all taken away, so every alias of ``.git`` has the key ``.git``.
    """
    if name.isascii() and ":" not in name and name[-1:] not in {".", " "} and name.isprintable():
        return name.lower()
    visible = "".join(letter for letter in name if category(letter) not in {"Cf", "Cc"})
    visible = normalize("NFKC", normalize("NFKC", visible).casefold())
    return visible.split(":", 1)[0].rstrip(". ")


def name_from_disk(raw: bytes) -> tuple[str, NameFault | None]:
    """Return the travelling form of a name as a file system gave it, and what is wrong with it.

    A name that is not UTF-8 comes back escaped; the escape has a backslash, so it equals no name that may travel.
    """
    try:
        name = normalize("NFC", raw.decode())
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace"), NameFault.NOT_UTF8
    return name, check_name(name)


def pick_names(names: list[str], first_choices: tuple[str | None, ...]) -> tuple[str | None, list[str]]:
    """Choose among names with one key the one that stays.

    Args:
        names: Names of one folder of one side that have the same key.
        first_choices: Names that win when they are there, best first; None is skipped.

    Returns:
        The name that stays (None when there is no name) and the others, which are blocked.
    """
    if not names:
        return None, []
    chosen = next((choice for choice in first_choices if choice in names), None) or min(names)
    return chosen, sorted(name for name in names if name != chosen)


def shown(text: str) -> str:
    """Return a text from elsewhere so that it is safe on a terminal: escaped and at most 200 characters."""
    short = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    if short.isprintable() and not _INVISIBLE.search(short):
        return short
    return "".join(
        letter if letter.isprintable() and not _INVISIBLE.match(letter) else ascii(letter)[1:-1] for letter in short
    )
