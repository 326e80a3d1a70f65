"""Where a version that lost its path lies in the conflict store or in quarantine (T26).

Outside the tree, never executed, never synced. The path is kept readable, but no name of it means anything to any file
system: everything that is not a plain letter or digit is escaped, and every name gets a start of its own, so that it
is neither hidden nor a device.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

__all__ = ["path_of", "stored_path"]

_LAST = "kept-"
_MORE = "more-"
_MOST_BYTES = 180


def stored_path(moment: str, transaction: str, path: str) -> str:
    """Return the relative path of a stored version.

    Args:
        moment: UTC time as ``20261121T120000Z``, from the caller's clock.
        transaction: Id of the transaction.
        path: Path that the version had.

    Returns:
        ``<moment>-<transaction>/<path>``, names escaped, long ones in several folders.
    """
    names: list[str] = []
    for name in path.split("/"):
        # A dot is escaped too: no hidden file, no ending that a program would act on.
        safe = quote(name, safe="").replace(".", "%2E").replace("~", "%7E")
        pieces = [safe[start : start + _MOST_BYTES] for start in range(0, len(safe), _MOST_BYTES)]
        names += [_MORE + piece for piece in pieces[:-1]] + [_LAST + pieces[-1]]
    return "/".join([f"{moment}-{transaction}", *names])


def path_of(stored: str) -> str:
    """Return the path that a stored version had.

    Raises:
        ValueError: :func:`stored_path` did not make this one.
    """
    _, _, rest = stored.partition("/")
    path, name = [], ""
    for part in rest.split("/"):
        if part.startswith(_MORE):
            name += part.removeprefix(_MORE)
        elif part.startswith(_LAST):
            path.append(unquote(name + part.removeprefix(_LAST), errors="strict"))
            name = ""
        else:
            raise ValueError("this is no path of the conflict store")
    if name or not all(path):
        raise ValueError("this is no path of the conflict store")
    return "/".join(path)
