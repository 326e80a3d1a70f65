"""The executable bit across a disk that has none: it is carried by the agreement (G05)."""

from __future__ import annotations

from colab_bridge.agent.sync.tree import Directory, File, TreeEditor, entry_at, walk

__all__ = ["with_bits_of"]


def with_bits_of(tree: Directory, base: Directory) -> Directory:
    """Return the tree of a side whose disk keeps no executable bit, with the bits that were agreed.

    Such a disk shows one mode for everything, so what it shows is no news: files stay as executable as they were, also
    with other content.

    Args:
        tree: What the side shows.
        base: Tree at the last agreement.
    """
    agreed = [path for path, entry in walk(base) if isinstance(entry, File) and entry.executable]
    editor = TreeEditor(tree)
    changed = False
    for path in agreed:
        entry = entry_at(tree, path)
        if isinstance(entry, File) and not entry.executable:
            editor.put(path, File(entry.digest, entry.size, True))
            changed = True
    return editor.done() if changed else tree
