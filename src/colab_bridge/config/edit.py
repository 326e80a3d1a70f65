"""Change one value in a settings file and leave everything else, comments too, as the user wrote it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from colab_bridge._util.atomic import write_atomic
from colab_bridge.config.layers import PYPROJECT_TABLE, check_shared, has_pyproject_table, parse_toml, read_text
from colab_bridge.config.schema import KeyInfo, Scalar, key_info, parse_text, printable, unknown_key_hint
from colab_bridge.config.settings import validate
from colab_bridge.errors import InternalError, UserError

__all__ = ["check_value", "project_target", "replace_group", "set_value", "set_values", "unset_value"]

# The user file may hold tokens; a project file is shared anyway and gets what other new files get.
_USER_MODE: Final = 0o600
_PROJECT_MODE: Final = 0o644
_SHARED_NAMES: Final = frozenset({"pyproject.toml", "colab-bridge.toml"})


def project_target(project: Path) -> Path:
    """Return the file that a change of the project's settings goes into.

    ``colab-bridge.toml`` when it exists or when ``pyproject.toml`` has no table of ours.
    """
    own, pyproject = project / "colab-bridge.toml", project / "pyproject.toml"
    return pyproject if not own.exists() and has_pyproject_table(pyproject) else own


def check_value(key: str, value: Scalar, *, shared: bool) -> Scalar:
    """Return a value in the type of its key, as it would be stored.

    Args:
        key: Dotted key.
        value: The value; text is turned into the key's type.
        shared: True for a file of the project, which may hold no secret.

    Raises:
        UserError: no such key, not such a value, or a secret for a shared file.
    """
    info = key_info(key)
    if info is None:
        raise UserError(f"unknown setting '{printable(key)}'", hint=unknown_key_hint(key), code="CB-USER-CONFIG")
    typed = _typed(info, value) if isinstance(value, str) else value
    validate({key: typed}, {key: "command line"})
    if shared:
        check_shared({key: typed}, "project file")
    return typed


def _typed(info: KeyInfo, text: str) -> Scalar:
    try:
        return parse_text(info, text)
    except ValueError as error:
        raise UserError(
            f"{info.key} {error}, not '{printable(text, 40)}'",
            hint=f"It is: {info.description}.",
            code="CB-USER-CONFIG",
        ) from error


def set_value(path: Path, key: str, value: Scalar) -> None:
    """Write one value into a settings file, which is made when there is none.

    Args:
        path: ``config.toml``, ``colab-bridge.toml`` or ``pyproject.toml``; its folder must exist.
        key: Dotted key.
        value: The value; text is turned into the key's type.

    Raises:
        UserError: the value is not allowed there, or the file is broken or cannot be written; it is then unchanged.
    """
    set_values(path, {key: value})


def set_values(path: Path, values: dict[str, Scalar]) -> None:
    """Write several values at once: all of them or none.

    Raises:
        UserError: as :func:`set_value`.
    """
    shared = path.name in _SHARED_NAMES
    checked = {key: check_value(key, value, shared=shared) for key, value in values.items()}

    def change(document: MutableMapping[str, Any]) -> None:
        for key, value in checked.items():
            _put(document, _steps(path, key), value)

    _edit(path, change)


def replace_group(path: Path, group: str, values: dict[str, Scalar]) -> None:
    """Write a whole group anew, such as ``runtimes.gpu``; what it held before is gone.

    Args:
        path: As for :func:`set_value`.
        group: Dotted name of the group.
        values: By full dotted key.

    Raises:
        UserError: as :func:`set_value`.
    """
    shared = path.name in _SHARED_NAMES
    checked = {key: check_value(key, value, shared=shared) for key, value in values.items()}
    steps = _steps(path, group)

    def change(document: MutableMapping[str, Any]) -> None:
        if _has(document, steps):
            _remove(document, steps)
        for key, value in checked.items():
            _put(document, _steps(path, key), value)

    _edit(path, change)


def unset_value(path: Path, key: str) -> bool:
    """Remove one value, or a whole group such as ``runtimes.gpu``, from a settings file.

    The key need not be a known one: this is also the way to remove what a newer or older version has left.

    Returns:
        Whether it was there.

    Raises:
        UserError: the file is broken or cannot be written; it is then unchanged.
    """
    steps = _steps(path, key)
    text = read_text(path)
    if text is None or not _has(parse_toml(path, text), steps):
        return False
    _edit(path, lambda document: _remove(document, steps))
    return True


def _steps(path: Path, key: str) -> tuple[str, ...]:
    prefix = PYPROJECT_TABLE if path.name == "pyproject.toml" else ()
    return (*prefix, *key.split("."))


def _edit(path: Path, change: Callable[[MutableMapping[str, Any]], None]) -> None:
    """Apply a change to the text and to the decoded values, and write only when both say the same afterwards."""
    text = read_text(path) or ""
    wanted = parse_toml(path, text)
    change(wanted)
    try:
        document = tomlkit.parse(text)
        change(document)
        result = tomlkit.dumps(document)
        data = result.encode()
        faithful = _without_empty(tomllib.loads(result)) == _without_empty(wanted)
    except (TOMLKitError, tomllib.TOMLDecodeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _cannot_edit(path) from error
    if not faithful:
        raise _cannot_edit(path)
    mode = _PROJECT_MODE if path.name in _SHARED_NAMES else _USER_MODE
    if path.name in _SHARED_NAMES and path.exists():
        mode = path.stat().st_mode & 0o777
    try:
        write_atomic(path, data, mode=mode)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}",
            hint="Make the file and its folder writable for you; the file is unchanged.",
            code="CB-USER-CONFIG",
        ) from error


def _cannot_edit(path: Path) -> InternalError:
    return InternalError(f"{path} cannot be changed without losing something", hint="Change it in an editor.")


def _put(document: MutableMapping[str, Any], steps: tuple[str, ...], value: Scalar) -> None:
    table = document
    for number, step in enumerate(steps[:-1]):
        below = table.get(step)
        if not isinstance(below, MutableMapping):
            # Only the last table gets a header of its own: [runtimes.gpu] without an empty [runtimes] above it.
            last = number == len(steps) - 2
            table[step] = tomlkit.table(is_super_table=not last) if isinstance(document, tomlkit.TOMLDocument) else {}
        table = table[step]
    table[steps[-1]] = value


def _remove(document: MutableMapping[str, Any], steps: tuple[str, ...]) -> None:
    table = document
    for step in steps[:-1]:
        table = table[step]
    del table[steps[-1]]


def _has(tree: Any, steps: tuple[str, ...]) -> bool:
    for step in steps:
        if not isinstance(tree, MutableMapping) or step not in tree:
            return False
        tree = tree[step]
    return True


def _without_empty(tree: dict[str, Any]) -> dict[str, Any]:
    """Drop empty groups: whether one stays behind makes no difference to any setting."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        kept = _without_empty(value) if isinstance(value, dict) else value
        if kept != {}:
            result[key] = kept
    return result
