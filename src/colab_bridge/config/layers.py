"""One layer of settings each: a file, the environment, the command line. Flat, checked for unknown keys, not merged."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from colab_bridge.config.schema import (
    is_secret,
    is_section,
    key_info,
    parse_text,
    printable,
    unknown_key_hint,
)
from colab_bridge.errors import UserError

__all__ = [
    "PROMISED_VARIABLES",
    "PYPROJECT_TABLE",
    "TOKEN_VARIABLE_PREFIX",
    "USER_ONLY",
    "Layer",
    "check_shared",
    "environment_layer",
    "file_layer",
    "flags_layer",
    "has_pyproject_table",
    "others_may_read",
    "parse_toml",
    "project_file",
    "read_text",
    "read_toml",
    "runtime_key",
    "shadowed_file",
    "split_token",
]

PYPROJECT_TABLE: Final = ("tool", "colab-bridge")
PREFIX: Final = "COLAB_BRIDGE_"
# Variables of this form hold tokens that `token_env` names; they are the only ones that a project file may name.
TOKEN_VARIABLE_PREFIX: Final = "COLAB_BRIDGE_TOKEN_"  # noqa: S105  # the beginning of names
# Names that mean something of their own and are therefore no settings.
PROMISED_VARIABLES: Final = frozenset(
    PREFIX + name
    for name in (
        "HOME",
        "ACCESS_TOKEN",
        "PASSPHRASE",
        "COLAB_URL",
        "GAPI_URL",
        "PUBLIC_API_URL",
        "DRIVE_URL",
        "OAUTH_URL",
    )
)
# What a project must not decide: whose OAuth client the user agrees to, and where secrets are kept.
USER_ONLY: Final = frozenset({"oauth_client", "credential_store"})
# A settings file of a person has a few hundred bytes; this only keeps a hostile one from filling the memory.
_MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Settings from one place.

    Attributes:
        name: The place for people, such as ``user file /home/ada/.config/colab-bridge/config.toml``.
        values: By dotted key; types not yet checked.
        origins: Place of single values where it is more precise than ``name``.
        shared: A project file: others get it with the project, and others may have written it.
    """

    name: str
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    shared: bool = False

    def origin(self, key: str) -> str:
        """Return where a value of this layer was set."""
        return self.origins.get(key, self.name)


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; empty when there is none.

    Raises:
        UserError: the file cannot be read, is too large, or is not TOML; the message has the line.
    """
    text = read_text(path)
    return parse_toml(path, text) if text is not None else {}


def read_text(path: Path) -> str | None:
    """Return the text of a settings file, or None when there is no such file.

    Raises:
        UserError: it cannot be read, is no regular file, is too large, or is not UTF-8.
    """
    try:
        # A pipe of this name would block us for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _bad_file(path, "it is not a regular file", "Move it away.")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _bad_file(path, error.strerror or str(error), "Make it readable for you, or move it away.") from error
    if len(data) > _MAX_FILE_BYTES:
        raise _bad_file(path, "it is larger than 1 MiB", "Move it away and set the values again.")
    try:
        return data.decode("utf-8-sig")  # editors on Windows put a mark in front that TOML does not know
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _bad_file(path, f"line {line} is not UTF-8", "Save it as UTF-8.") from error


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """Return the decoded text of a settings file.

    Raises:
        UserError: it is not TOML; names the file and the line.
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise _bad_file(path, "it is nested too deeply", "Remove the nesting.") from error
    except ValueError as error:  # includes TOMLDecodeError; a number of thousands of digits is a plain ValueError
        reason = str(error)
        place = re.search(r" \(at line (\d+), column \d+\)$", reason)
        if place:
            where, reason = f"line {place[1]}", reason[: place.start()]
        else:
            where = f"line {text.rstrip().count(chr(10)) + 1}" if "end of document" in reason else "its text"
            reason = reason.removesuffix(" (at end of document)")
        raise UserError(
            f"{path}, {where}: not valid TOML: {printable(reason)}",
            hint=f"Correct {where} of {path}.",
            code="CB-USER-CONFIG",
        ) from error


def project_file(project: Path) -> Path | None:
    """Return the file that holds a project's settings, or None.

    ``colab-bridge.toml`` wins over ``[tool.colab-bridge]`` in ``pyproject.toml``.

    Raises:
        UserError: ``pyproject.toml`` may hold settings of ours and cannot be read.
    """
    own = project / "colab-bridge.toml"
    if own.exists():
        return own
    shared = project / "pyproject.toml"
    return shared if has_pyproject_table(shared) else None


def shadowed_file(project: Path) -> Path | None:
    """Return the ``pyproject.toml`` whose settings are not read because a ``colab-bridge.toml`` stands beside it.

    Raises:
        UserError: ``pyproject.toml`` mentions us and is not valid TOML.
    """
    pyproject = project / "pyproject.toml"
    return pyproject if (project / "colab-bridge.toml").exists() and has_pyproject_table(pyproject) else None


def has_pyproject_table(path: Path) -> bool:
    """Return whether a ``pyproject.toml`` has settings of ours.

    Raises:
        UserError: it mentions us and is not valid TOML.
    """
    try:
        text = read_text(path)
    except UserError:
        return False  # somebody else's file: its own tools will say what is wrong with it
    # Without our name in it there is nothing of ours, and a slip in somebody else's table is not our business.
    if text is None or PYPROJECT_TABLE[1] not in text:
        return False
    tool = parse_toml(path, text).get("tool")
    return isinstance(tool, dict) and PYPROJECT_TABLE[1] in tool


def file_layer(path: Path, *, shared: bool) -> Layer:
    """Read one settings file.

    Args:
        path: ``config.toml``, ``colab-bridge.toml`` or ``pyproject.toml``.
        shared: True for a file of the project.

    Raises:
        UserError: it cannot be read, has an unknown key, or holds a secret although it is shared.
    """
    name = f"{'project' if shared else 'user'} file {path}"
    tree: Any = read_toml(path)
    if path.name == "pyproject.toml":
        for part in PYPROJECT_TABLE:
            tree = tree.get(part, {}) if isinstance(tree, dict) else {}
        name += " [tool.colab-bridge]"
        if not isinstance(tree, dict):
            raise _bad_file(path, "tool.colab-bridge is not a table", "Write it as [tool.colab-bridge].")
    values = {key: value for key, value in _flatten(tree, "") if _checked_key(key, value, name)}
    values = _with_tokens_apart(values)
    if shared:
        check_shared(values, name)
    return Layer(name=name, values=values, origins={}, shared=shared)


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Read the ``COLAB_BRIDGE_*`` variables; empty ones count as not set.

    Sections are separated by two underscores, and a name of a runtime is written with ``_`` for ``-``:
    ``COLAB_BRIDGE_RUNTIMES__GPU_BOX__URL`` is ``runtimes.gpu-box.url``.

    Raises:
        UserError: a variable names no setting, or its text is not of the setting's type.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for variable, text in sorted(environ.items()):
        if not is_setting_variable(variable) or not text:
            continue
        key = variable_to_key(variable)
        origin = f"environment variable {variable}"
        values[key] = _parsed(key, text, origin)
        origins[key] = origin
    values = _with_tokens_apart(values)
    for key in values.keys() - origins.keys():
        origins[key] = origins[key.rpartition(".")[0] + ".url"]
    return Layer(name="environment", values=values, origins=origins)


def is_setting_variable(variable: str) -> bool:
    """Return whether an environment variable is meant as a setting."""
    return (
        variable.startswith(PREFIX)
        and variable not in PROMISED_VARIABLES
        and not variable.startswith(TOKEN_VARIABLE_PREFIX)
    )


def variable_to_key(variable: str) -> str:
    """Return the dotted key that an environment variable stands for."""
    parts = variable.removeprefix(PREFIX).lower().split("__")
    if len(parts) == 3 and parts[0] == "runtimes":
        parts[1] = parts[1].replace("_", "-")
    return ".".join(parts)


def flags_layer(flags: Mapping[str, Any]) -> Layer:
    """Take what the command line gave; None means not given, text is turned into the key's type.

    Raises:
        UserError: a key is unknown, or a text is not of its type.
    """
    values: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            values[key] = _parsed(key, value, "command line")
    return Layer(name="command line", values=_with_tokens_apart(values), origins={})


def split_token(url: str) -> tuple[str, str]:
    """Take ``token=...`` out of the query of an address.

    Returns:
        The address without it, and the token; empty when there is none. What cannot be split is returned as it is.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, ""
    query = parse_qsl(parts.query, keep_blank_values=True)
    token = next((value for name, value in query if name == "token"), "")
    if not any(name == "token" for name, _ in query):
        return url, ""
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    return urlunsplit(parts._replace(query=rest)), token


def check_shared(values: Mapping[str, Any], name: str) -> None:
    """Refuse what has no place in a file that is shared with the project.

    A token would be committed. A name of any environment variable would let the author of the project send a secret of
    this user (a cloud key, say) to a server of their own, therefore only names made for this purpose are allowed.

    Raises:
        UserError: with the way to do it.
    """
    for key, value in values.items():
        if key in USER_ONLY and value:
            raise UserError(
                f"{key} has no place in the {name}: it is about you, not about the project",
                hint=f"Move it to your user file: colab-bridge config set {key} VALUE",
                code="CB-USER-SECRET",
            )
        runtime = key.split(".")[1] if key.startswith("runtimes.") else ""
        wanted = TOKEN_VARIABLE_PREFIX + runtime.upper().replace("-", "_")
        if is_secret(key) and value and not runtime:
            raise UserError(
                f"{key} has no place in the {name}: whoever knows it can use it",
                hint="Move it to your user file: colab-bridge config set notify.webhook URL",
                code="CB-USER-SECRET",
            )
        if is_secret(key) and value:
            raise UserError(
                f"a token has no place in the {name} ({key}): it would be shared with the project",
                hint=f'Set {runtime_key(runtime, "token_env")} = "{wanted}" there, or move it to your user file.',
                code="CB-USER-SECRET",
            )
        if key.endswith(".token_env") and value and not str(value).startswith(TOKEN_VARIABLE_PREFIX):
            raise UserError(
                f"the {name} may not name the variable {printable(str(value))} ({key})",
                hint=f"Use a name that starts with {TOKEN_VARIABLE_PREFIX}, for example {wanted}, or your user file.",
                code="CB-USER-SECRET",
            )


def runtime_key(runtime: str, field: str) -> str:
    """Return the dotted key of one field of a configured runtime."""
    return f"runtimes.{runtime}.{field}"


def _flatten(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict) and value and key.count(".") < 8:
            yield from _flatten(value, key + ".")
        else:
            yield key, value


def _checked_key(key: str, value: Any, place: str) -> bool:
    """Return whether a key holds a value; an empty group holds none."""
    if is_section(key) and value == {}:
        return False
    if key_info(key) is None:
        raise UserError(
            f"unknown setting '{printable(key)}' in the {place}", hint=unknown_key_hint(key), code="CB-USER-CONFIG"
        )
    return True


def _parsed(key: str, value: Any, place: str) -> Any:
    info = key_info(key)
    if info is None:
        raise UserError(
            f"unknown setting '{printable(key)}' from the {place}", hint=unknown_key_hint(key), code="CB-USER-CONFIG"
        )
    if not isinstance(value, str):
        return value
    try:
        return parse_text(info, value)
    except ValueError as error:
        raise UserError(
            f"{key} from the {place} {error}, not '{printable(value, 40)}'",
            hint=f"{key}: {info.description}",
            code="CB-USER-CONFIG",
        ) from error


def _with_tokens_apart(values: Mapping[str, Any]) -> dict[str, Any]:
    """Move tokens out of addresses, because addresses are shown and tokens are not."""
    result = dict(values)
    for key, value in values.items():
        if key.startswith("runtimes.") and key.endswith(".url") and isinstance(value, str):
            url, token = split_token(value)
            result[key] = url
            if token:
                result.setdefault(key.removesuffix("url") + "token", token)
    return result


def _bad_file(path: Path, reason: str, fix: str) -> UserError:
    return UserError(f"cannot use {path}: {reason}", hint=fix, code="CB-USER-CONFIG")


def others_may_read(path: Path) -> bool:
    """Return whether other users of this machine can read a file; False where there are no mode bits."""
    if os.name != "posix":
        return False  # the profile folder's access list keeps others out
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False
