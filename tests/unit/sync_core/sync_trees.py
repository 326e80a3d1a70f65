"""Trees written as one line, for the tables: ``d/a=1, e/, x=2!, l->a, u/?, p/*``."""

from __future__ import annotations

from hashlib import blake2b

from colab_bridge.agent.sync.tree import (
    EMPTY,
    Blocked,
    Directory,
    Entry,
    File,
    Link,
    TreeEditor,
    Unknown,
    Why,
    file_entries,
    walk,
)


def file(content: str, *, executable: bool = False, size: int | None = None) -> File:
    """A file whose digest stands for its content."""
    return File(blake2b(content.encode(), digest_size=32).digest(), len(content) if size is None else size, executable)


def tree(text: str = "") -> Directory:
    """``a=1`` file, ``a=1!`` executable, ``d/`` empty folder, ``l->t`` link, ``s<special>`` blocked, ``u?`` unknown,
    ``d/*`` folder with ignored content."""
    editor = TreeEditor(EMPTY)
    for item in filter(None, (part.strip() for part in text.split(","))):
        if item.endswith("/*"):
            _mark(editor, item[:-2])
        elif item.endswith("/"):
            editor.make_folder(item[:-1])
        elif item.endswith("?"):
            editor.put(item[:-1], Unknown("EIO"))
        elif item.endswith(">"):
            path, _, why = item[:-1].partition("<")
            editor.put(path, Blocked(Why(why)))
        elif "->" in item:
            path, _, target = item.partition("->")
            editor.put(path, Link(target))
        else:
            path, _, content = item.partition("=")
            editor.put(path, file(content.removesuffix("!"), executable=content.endswith("!")))
    return editor.done()


def _mark(editor: TreeEditor, path: str) -> None:
    editor.make_folder(path)
    now = editor.get(path)
    assert isinstance(now, Directory)
    editor.put(path, Directory(now.children, has_ignored=True))


def leaves(root: Directory) -> dict[str, Entry]:
    """Everything in a tree by path, folders as empty ones."""
    return {path: EMPTY if isinstance(entry, Directory) else entry for path, entry in walk(root)}


def contents(root: Entry | None) -> set[bytes]:
    """Digests of all files."""
    return {entry.digest for _, entry in file_entries(root, "") if isinstance(entry, File)}
