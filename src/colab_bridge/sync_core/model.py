"""Words of a sync: sides, rules, decisions, holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from colab_bridge.agent.sync.tree import Entry

__all__ = ["Decision", "Hold", "Reason", "Rule", "Side", "Stop", "StoredCopy"]


class Side(StrEnum):
    """Where something is."""

    LOCAL = "local"
    REMOTE = "remote"

    @property
    def other(self) -> Side:
        """The other side."""
        return Side.REMOTE if self is Side.LOCAL else Side.LOCAL


class Rule(StrEnum):
    """The rule of the reconcile table that decided."""

    R0 = "R0"
    R1 = "R1"
    R2 = "R2"
    R3 = "R3"
    R4 = "R4"
    R5 = "R5"
    R6 = "R6"
    R7 = "R7"
    R8 = "R8"
    R9 = "R9"
    R10 = "R10"


class Reason(Enum):
    """Why a path is decided as it is; ``sentence`` is for people and is never built from names."""

    BLOCKED = "blocked", "it cannot travel, so nothing is done here"
    UNKNOWN = "unknown", "a folder could not be listed, so nothing is concluded from it"
    COLLISION = "collision", "another name differs only by case or Unicode form"
    IN_THE_WAY = "in-the-way", "content that does not travel lies in the folder, so it is not replaced"
    AGREED = "agreed", "both sides agree"
    REMOTE_CHANGED = "remote-changed", "only the runtime changed it"
    LOCAL_CHANGED = "local-changed", "only you changed it"
    EDIT_BEATS_DELETE = "edit-beats-delete", "one side deleted it, the other changed it: the change is kept"
    SURVIVORS = "survivors", "one side deleted the folder, what the other changed in it is kept"
    EMPTIED = "emptied", "one side deleted the folder and the other has nothing new in it"
    STRIPPED = "stripped", "one side only deleted things in the folder, so the other side's file takes its place"
    TYPE_CLASH = (
        "type-clash",
        "a folder here, a file there: the winner keeps the path, the rest is stored",
    )
    EXEC_MERGED = "exec-merged", "the content is equal, the executable bit follows the side that changed it"
    COMBINED = "combined", "content of one side and executable bit of the other"
    CONFLICT = "conflict", "both sides changed it: the winner keeps the path, the other version is stored"
    REJECTED = "rejected", "you rejected the change, so it is undone on the other side"
    TORN = "torn", "this machine stopped while it was written and lost its end: the runtime's version comes back"

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Reason:  # noqa: PYI034 - the members of an Enum are final
        """Keep the sentence beside the value."""
        member = object.__new__(cls)
        member._value_ = value
        member.sentence = sentence
        return member


class Stop(Enum):
    """A guard or a safety stop that keeps a decision from being carried out."""

    GUARDED = "G1", "the runtime may never write this path"
    REVIEW = "G2", "changes of the runtime to this path wait for your review"
    LINK = "LINK", "the link does not provably stay inside the folder"
    NAME = "NAME", "the name does not exist on every system, so the runtime may not create it here"
    EMPTIED_ROOT = "S2", "one side is suddenly empty"
    MASS_DELETION = "S3", "very many deletions at once"
    MASS_CHANGE = "S4", "very many changes by the runtime that no run explains"
    ROOT_LOST = "S5", "the folder itself is missing or is not the same any more"
    LOW_DISK = "S7", "too little free space on this machine"
    VOLUME = "S8", "very much new data at once"

    sentence: str

    def __new__(cls, value: str, sentence: str) -> Stop:  # noqa: PYI034 - the members of an Enum are final
        """Keep the sentence beside the value."""
        member = object.__new__(cls)
        member._value_ = value
        member.sentence = sentence
        return member


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCopy:
    """A version that loses its path and goes to the conflict store first.

    Attributes:
        side: Where the bytes are now.
        path: Its path on that side.
        entry: The file or link.
    """

    side: Side
    path: str
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one path.

    Attributes:
        path: Where the outcome stands.
        rule: Which rule decided.
        reason: Why, for people.
        base: Entry at the last agreement; None when there was none.
        local: Entry at home now, with its whole subtree.
        remote: Entry on the runtime now, likewise.
        outcome: What both sides shall have; a folder here is empty, its content has decisions of its own, unless
            ``adopted``. None means nothing.
        settled: False for R0: ``outcome`` means nothing and the base row stays.
        adopted: The outcome is a whole subtree that both sides have already.
        stored: Versions that must be in the conflict store before anything else happens here.
        old_names: Paths of the entry on (base, local, remote) where a folding file system calls it otherwise; the
            parents have their new names already.
        origins: Paths on (local, remote) before anything is renamed: where bytes are fetched from.
        remote_keeps_exec: The runtime's own executable bit, which it may keep there but not hand on (T14).
    """

    path: str
    rule: Rule
    reason: Reason
    base: Entry | None
    local: Entry | None
    remote: Entry | None
    outcome: Entry | None = None
    settled: bool = True
    adopted: bool = False
    stored: tuple[StoredCopy, ...] = ()
    old_names: tuple[str, str, str] | None = None
    origins: tuple[str, str] = ("", "")
    remote_keeps_exec: bool = False

    def on(self, side: Side) -> Entry | None:
        """Return the entry that stands on a side now."""
        return self.local if side is Side.LOCAL else self.remote

    def path_on(self, side: Side) -> str:
        """Return the path of the entry on a side now, its parents renamed already."""
        if self.old_names is None:
            return self.path
        return self.old_names[1 if side is Side.LOCAL else 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A class of decisions that waits for a person.

    Attributes:
        id: Short name for ``sync approve`` and ``sync reject``; other content has another id, so an approval never
            fits a state that the person did not see.
        stop: Why it is held.
        side: The side that would change.
        paths: What is held, sorted.
        approvable: False where only the settings can allow it.
    """

    id: str
    stop: Stop
    side: Side
    paths: tuple[str, ...]
    approvable: bool = True

    @property
    def sentence(self) -> str:
        """Why, for people."""
        return self.stop.sentence
