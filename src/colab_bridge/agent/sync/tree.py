"""A folder as a value: immutable trees with cached Merkle digests.

Kinds of entries: :class:`File`, :class:`Link`, :class:`Directory`, :class:`Blocked` (something is there that does not
travel) and :class:`Unknown` (nobody could look). Paths are NFC, relative, ``/`` separated; the root is ``""``.
Trees share what they have in common, so an edit costs the folders on the way to it and a comparison of two trees costs
their differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from .reasons import Reason

__all__ = [
    "EMPTY",
    "Blocked",
    "Directory",
    "Entry",
    "File",
    "Kept",
    "Link",
    "TreeEditor",
    "Unknown",
    "Why",
    "build_tree",
    "entry_at",
    "file_entries",
    "is_tracked",
    "join",
    "root_digest",
    "same",
    "walk",
]

_PERSON = b"cb-sync-tree-1"


class Why(Reason):
    """Reason for which an entry is there but does not travel (``X`` in the rules), with a sentence for people."""

    SPECIAL = "special", "it is a device, a socket or a pipe"
    UNREADABLE = "unreadable", "it cannot be read"
    UNSTABLE = "unstable", "it changed while it was read"
    BAD_NAME = "bad-name", "its name cannot travel"
    COLLISION = "collision", "another name differs only by case or Unicode form"
    TOO_BIG = "too-big", "it is larger than the limit for one file"
    OVER_BUDGET = "over-budget", "the budget for files that Git ignores is used up"
    TOO_DEEP = "too-deep", "its path is too deep or too long"
    LINK_OUTSIDE = "link-outside", "the link does not provably stay inside the folder"
    OTHER_DEVICE = "other-device", "it lies on another device"
    MAPPED = "mapped", "a program has it mapped into memory"


@dataclass(frozen=True, slots=True)
class File:
    """A regular file.

    Attributes:
        digest: Keyed blake2b-256 of the content, 32 bytes.
        size: Content length in bytes; not compared, the digest decides.
        executable: Whether the owner may execute it.
    """

    digest: bytes
    size: int = field(default=0, compare=False)
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, opaque: never followed by the engine.

    Attributes:
        target: Text of the link.
    """

    target: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """Something exists here that does not travel; nothing is derived from it or below it.

    Attributes:
        why: Reason.
        size: Size in bytes where that is the reason, else 0.
    """

    why: Why
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A folder that could not be listed completely: no deletion may be derived from it.

    Attributes:
        detail: Name of the error, such as ``EIO``.
    """

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """Facts about a folder and all below it, computed once.

    Attributes:
        digest: Merkle digest over everything tracked, 32 bytes.
        files: Number of files and links.
        links: Number of links.
        size: Their bytes.
        clean: Nothing blocked or unknown at any depth.
        plain: ``clean``, and nothing ignored lies inside on disk: the folder may be replaced as a whole.
        known: Nothing unknown at any depth.
        tracked: Empty on disk, or something tracked or unknown inside; otherwise the folder is a phantom.
    """

    digest: bytes
    files: int
    links: int
    size: int
    clean: bool
    plain: bool
    known: bool
    tracked: bool


class Directory:
    """A folder; never changed after it was made.

    Args:
        children: Entries by name; the mapping must not be changed afterwards.
        has_ignored: On disk the folder also holds ignored content, so it cannot be removed or replaced.
    """

    __slots__ = ("_kept", "children", "has_ignored")

    children: Mapping[str, Entry]
    has_ignored: bool

    def __init__(self, children: Mapping[str, Entry] | None = None, *, has_ignored: bool = False) -> None:
        self.children = {} if children is None else children
        self.has_ignored = has_ignored
        self._kept: Kept | None = None

    def __eq__(self, other: object) -> bool:
        """Compare everything, blocked entries included; :func:`same` is what the rules mean by equal."""
        if not isinstance(other, Directory):
            return NotImplemented
        return self is other or (self.has_ignored == other.has_ignored and self.children == other.children)

    def __hash__(self) -> int:
        return hash(self.kept.digest)

    def __repr__(self) -> str:
        mark = ", has_ignored=True" if self.has_ignored else ""
        return f"Directory({dict(self.children)!r}{mark})"

    @property
    def kept(self) -> Kept:
        """Facts about the whole subtree, computed at the first use."""
        if self._kept is None:
            self._kept = _summarise(self)
        return self._kept


Entry = File | Link | Directory | Blocked | Unknown
EMPTY = Directory()


def is_tracked(entry: Entry | None) -> bool:
    """Return whether the entry takes part in the merge; phantoms and blocked entries do not."""
    if isinstance(entry, Directory):
        return entry.kept.tracked
    return isinstance(entry, (File, Link, Unknown))


def _frame(kind: bytes, name: str, payload: bytes) -> bytes:
    raw = name.encode("utf-8", "surrogatepass")
    return kind + len(raw).to_bytes(4, "big") + raw + len(payload).to_bytes(4, "big") + payload


def _summarise(directory: Directory) -> Kept:
    pieces: list[bytes] = []
    files = links = size = 0
    clean = known = True
    plain = not directory.has_ignored
    tracked = not directory.children and not directory.has_ignored
    for name in sorted(directory.children):
        entry = directory.children[name]
        if isinstance(entry, File):
            pieces.append(_frame(b"X" if entry.executable else b"F", name, entry.digest))
            files, size, tracked = files + 1, size + entry.size, True
        elif isinstance(entry, Directory):
            below = entry.kept
            files, links, size = files + below.files, links + below.links, size + below.size
            clean, plain, known = clean and below.clean, plain and below.plain, known and below.known
            if below.tracked:
                pieces.append(_frame(b"D", name, below.digest))
                tracked = True
        elif isinstance(entry, Link):
            pieces.append(_frame(b"L", name, entry.target.encode("utf-8", "surrogatepass")))
            files, links, tracked = files + 1, links + 1, True
        elif isinstance(entry, Unknown):
            # Counted, so that no incomplete tree ever has the digest of a complete one.
            pieces.append(_frame(b"U", name, b""))
            clean = plain = known = False
            tracked = True
        else:
            clean = plain = False
    return Kept(
        digest=blake2b(b"".join(pieces), digest_size=32, person=_PERSON).digest(),
        files=files,
        links=links,
        size=size,
        clean=clean,
        plain=plain,
        known=known,
        tracked=tracked,
    )


def root_digest(root: Directory) -> bytes:
    """Return the 32-byte digest that proves equality of everything synced; blocked entries do not count."""
    return root.kept.digest


def same(one: Entry | None, two: Entry | None) -> bool:
    """Return whether two entries are equal for the rules (kind, executable bit, digest, target, whole subtree).

    Nothing is equal to a blocked or unknown entry, or to a folder with one inside.
    """
    if one is two:
        return not isinstance(one, (Blocked, Unknown)) and (not isinstance(one, Directory) or one.kept.clean)
    if one is None or two is None:
        return False
    if isinstance(one, File) and isinstance(two, File):
        return one.digest == two.digest and one.executable is two.executable
    if isinstance(one, Directory) and isinstance(two, Directory):
        return one.kept.clean and two.kept.clean and one.kept.digest == two.kept.digest
    if isinstance(one, (Blocked, Unknown)):
        return False
    return one == two


def join(parent: str, name: str) -> str:
    """Return the path of a name inside a folder."""
    return f"{parent}/{name}" if parent else name


def entry_at(root: Directory, path: str) -> Entry | None:
    """Return the entry at a path, or None when there is none."""
    entry: Entry | None = root
    for name in path.split("/") if path else ():
        if not isinstance(entry, Directory):
            return None
        entry = entry.children.get(name)
    return entry


def walk(root: Directory, prefix: str = "") -> Iterator[tuple[str, Entry]]:
    """Yield every entry below a folder with its path, depth first, names sorted, parents before children."""
    # The folders on the way, each with its names that are still to come.
    way = [(prefix, root.children, iter(sorted(root.children)))]
    while way:
        above, children, names = way[-1]
        for name in names:
            entry = children[name]
            path = join(above, name)
            yield path, entry
            if isinstance(entry, Directory):
                way.append((path, entry.children, iter(sorted(entry.children))))
                break
        else:
            way.pop()


def file_entries(entry: Entry | None, path: str) -> Iterator[tuple[str, File | Link]]:
    """Yield the files and links at and below an entry, with their paths."""
    if isinstance(entry, (File, Link)):
        yield path, entry
    elif isinstance(entry, Directory):
        for below, child in walk(entry, path):
            if isinstance(child, (File, Link)):
                yield below, child


class _Node:
    """A folder that is being edited."""

    __slots__ = ("children", "has_ignored")

    def __init__(self, directory: Directory) -> None:
        self.children: dict[str, Entry | _Node] = dict(directory.children)
        self.has_ignored = directory.has_ignored

    def frozen(self) -> Directory:
        children: dict[str, Entry] = {
            name: child.frozen() if isinstance(child, _Node) else child for name, child in self.children.items()
        }
        return Directory(children, has_ignored=self.has_ignored)


class TreeEditor:
    """Makes a new tree out of an old one; each touched folder is copied once, the rest is shared."""

    def __init__(self, root: Directory) -> None:
        self._root = _Node(root)
        self._last: tuple[str, _Node] = ("", self._root)  # changes come folder by folder

    def _open(self, path: str, *, create: bool) -> _Node | None:
        if self._last[0] == path:
            return self._last[1]
        node = self._root
        for name in path.split("/") if path else ():
            child = node.children.get(name)
            if isinstance(child, Directory):
                child = node.children[name] = _Node(child)
            elif not isinstance(child, _Node):
                if not create:
                    return None
                child = node.children[name] = _Node(EMPTY)
            node = child
        self._last = (path, node)
        return node

    def get(self, path: str) -> Entry | None:
        """Return what stands at the path now; a folder as it is at this moment."""
        parent, _, name = path.rpartition("/")
        node = self._open(parent, create=False)
        found = None if node is None else node.children.get(name)
        return found.frozen() if isinstance(found, _Node) else found

    def put(self, path: str, entry: Entry) -> None:
        """Set the entry at a path; missing parents are made, parents that are no folders are replaced."""
        parent, _, name = path.rpartition("/")
        node = self._open(parent, create=True)
        if node is not None:
            if isinstance(node.children.get(name), _Node):
                self._last = ("", self._root)
            node.children[name] = entry

    def make_folder(self, path: str) -> None:
        """Make sure that a folder stands at the path, keeping what is in one that is there."""
        self._open(path, create=True)

    def remove(self, path: str) -> None:
        """Remove the entry at a path with everything below it, if it is there."""
        parent, _, name = path.rpartition("/")
        node = self._open(parent, create=False)
        if node is not None and isinstance(node.children.pop(name, None), _Node):
            self._last = ("", self._root)

    def is_bare(self, path: str) -> bool:
        """Return whether a folder stands at the path and nothing is in it."""
        node = self._open(path, create=False)
        return node is not None and not node.children

    def remove_bare(self, path: str) -> None:
        """Remove the folder at the path unless an entry is in it."""
        if self.is_bare(path):
            self.remove(path)

    def done(self) -> Directory:
        """Return the new tree; the editor may be used further."""
        return self._root.frozen()


def build_tree(entries: Mapping[str, Entry] | Iterable[tuple[str, Entry]]) -> Directory:
    """Return the tree with these entries; parents that are not named are made."""
    editor = TreeEditor(EMPTY)
    for path, entry in entries.items() if isinstance(entries, Mapping) else entries:
        editor.put(path, entry)
    return editor.done()
