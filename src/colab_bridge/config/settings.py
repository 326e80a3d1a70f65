"""The settings that hold, and where each of them comes from.

``defaults < user file < project file < environment < command line``: the later place wins, key by key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from colab_bridge.config.layers import (
    Layer,
    environment_layer,
    file_layer,
    flags_layer,
    others_may_read,
    project_file,
)
from colab_bridge.config.paths import Paths
from colab_bridge.config.schema import (
    KEYS,
    RUNTIME_KEYS,
    LocalSettings,
    NotebookSettings,
    NotifySettings,
    RecordSettings,
    RuntimeSettings,
    Scalar,
    Settings,
    is_secret,
    key_info,
    nested,
    printable,
    unknown_key_hint,
)
from colab_bridge.errors import UserError

__all__ = [
    "LocalSettings",
    "NotebookSettings",
    "NotifySettings",
    "RecordSettings",
    "Resolved",
    "RuntimeSettings",
    "Settings",
    "load_settings",
]

DEFAULT_SOURCE = "default"
HIDDEN = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Settings with their sources.

    Attributes:
        settings: What holds.
        sources: Place of every value that is not a default, by dotted key.
        notices: What the user should know although nothing is broken, one sentence each.
        user_file: The user's settings file; need not exist.
        project_file: The project's settings file; None when there is none.
    """

    settings: Settings
    sources: Mapping[str, str]
    notices: tuple[str, ...]
    user_file: Path
    project_file: Path | None

    def all_keys(self) -> list[str]:
        """Return all keys: those of the product and those of each configured runtime."""
        names = sorted(self.settings.runtimes)
        return [*KEYS, *(f"runtimes.{name}.{field}" for name in names for field in RUNTIME_KEYS)]

    def source_of(self, key: str) -> str:
        """Return where the value of a key comes from, such as ``user file /.../config.toml`` or ``default``.

        Raises:
            UserError: there is no such key.
        """
        _require(key)
        return self.sources.get(key, DEFAULT_SOURCE)

    def value_of(self, key: str) -> Scalar:
        """Return the value of a key, secrets as well.

        Raises:
            UserError: there is no such key.
        """
        default = _require(key)
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
        return default if value is None else value

    def shown(self, key: str) -> Scalar:
        """Return the value of a key as people may see it: a secret that is set becomes ``***``."""
        value = self.value_of(key)
        return HIDDEN if is_secret(key) and value else value


def load_settings(
    paths: Paths, project: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Resolved:
    """Read and merge all places that hold settings.

    Args:
        paths: Our folders.
        project: Root of the project; None when there is none.
        environ: The caller's environment; only ``COLAB_BRIDGE_*`` and what ``token_env`` names are looked at.
        flags: From the command line, by dotted key; None values count as not given.

    Raises:
        UserError: a file is broken, a key is unknown, a value is not allowed, or a project file asks for a secret.
    """
    layers = [file_layer(paths.user_config, shared=False)]
    found = project_file(project) if project is not None else None
    if found is not None:
        layers.append(file_layer(found, shared=True))
    layers += [environment_layer(environ), flags_layer(flags or {})]
    return merge(layers, user_file=paths.user_config, found=found, project=project, environ=environ)


def merge(
    layers: Sequence[Layer], *, user_file: Path, found: Path | None, project: Path | None, environ: Mapping[str, str]
) -> Resolved:
    """Lay places over one another, the last one on top, and check the values.

    Args:
        layers: From weak to strong.
        user_file: For the result.
        found: The project's settings file, for the result.
        project: Root of the project, which relative paths of interpreters count from.
        environ: Where the variables that ``token_env`` names are looked up.

    Raises:
        UserError: a value is not allowed, or a project file redirects a runtime of the user.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        values |= layer.values
        sources |= {key: layer.origin(key) for key in layer.values}
    _check_redirects(layers)
    _take_tokens(values, sources, environ)
    _place_interpreters(values, project)
    settings = validate(values, sources)
    return Resolved(
        settings=settings,
        sources=sources,
        notices=tuple(_notices(layers, user_file)),
        user_file=user_file,
        project_file=found,
    )


def validate(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    """Check types and bounds.

    Raises:
        UserError: names the first bad key, its place and what it must be; never the value of a secret.
    """
    try:
        return Settings.model_validate(nested(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = _key_at(first["loc"])
        place = sources.get(key, "settings")
        raise UserError(
            f"{key} in the {place} is not right: {_reason(str(first['msg']))}" + _given(key, values.get(key)),
            hint=f"Correct it there or remove it; it is: {_description(key)}.",
            code="CB-USER-CONFIG",
        ) from error


def _key_at(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


def _reason(text: str) -> str:
    text = text.removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:]


def _given(key: str, value: Any) -> str:
    # An address may carry a password, and a token is one.
    if is_secret(key) or key.endswith(".url"):
        return ""
    return f" (it is {printable(repr(value), 40)})"


def _description(key: str) -> str:
    info = key_info(key)
    return info.description if info else "not a setting"


def _require(key: str) -> Scalar:
    """Return the default of a key that must exist."""
    info = key_info(key)
    if info is None:
        raise UserError(f"unknown setting '{printable(key)}'", hint=unknown_key_hint(key), code="CB-USER-CONFIG")
    return info.default


def _check_redirects(layers: Sequence[Layer]) -> None:
    """Refuse a project file that would send the user's token for a runtime to another server.

    A token that the user keeps without an address is meant for the address that projects give; a token that stands
    beside an address is meant for that server only.
    """
    own: dict[str, Any] = {}
    for layer in layers:
        own |= {} if layer.shared else layer.values
    for number, layer in enumerate(layers):
        stronger = {key for later in layers[number + 1 :] for key in later.values}
        for key, value in layer.values.items() if layer.shared else ():
            if key not in stronger and _redirects(key, value, own):
                raise UserError(
                    f"the {layer.name} changes {key}, but your own token belongs to the server that you have set",
                    hint=f"Remove {key} from the project file, or name that runtime differently.",
                    code="CB-USER-SECRET",
                )


def _redirects(key: str, value: Any, own: Mapping[str, Any]) -> bool:
    prefix, _, field = key.rpartition(".")
    if not prefix.startswith("runtimes.") or field not in {"url", "verify_tls", "provider"}:
        return False
    has_secret = own.get(f"{prefix}.token") or own.get(f"{prefix}.token_env")
    return bool(has_secret and own.get(f"{prefix}.url")) and own.get(key, _default(key)) != value


def _default(key: str) -> Scalar | None:
    info = key_info(key)
    return info.default if info else None


def _take_tokens(values: dict[str, Any], sources: dict[str, str], environ: Mapping[str, str]) -> None:
    for key, variable in list(values.items()):
        if key.startswith("runtimes.") and key.endswith(".token_env") and isinstance(variable, str):
            token = environ.get(variable, "")
            target = key.removesuffix("_env")
            stronger = sources.get(target, "").startswith(("environment", "command line"))
            if token and not stronger:
                values[target] = token.strip()
                sources[target] = f"environment variable {variable}"


def _place_interpreters(values: dict[str, Any], project: Path | None) -> None:
    """Make paths of interpreters absolute: ``~`` is the home folder, ``./x`` counts from the project's root.

    A bare name stays one and is looked up on the search path.
    """
    for key, value in values.items():
        if not isinstance(value, str) or not (key == "local.python" or _is_runtime_python(key)):
            continue
        path = os.path.expanduser(value)
        if project is not None and any(separator in path for separator in filter(None, (os.sep, os.altsep))):
            path = os.path.normpath(project / path)
        values[key] = path


def _is_runtime_python(key: str) -> bool:
    return key.startswith("runtimes.") and key.endswith(".python")


def _notices(layers: Sequence[Layer], user_file: Path) -> list[str]:
    notices: list[str] = []
    user_layer = next((layer for layer in layers if str(user_file) in layer.name), None)
    holds_token = user_layer is not None and any(is_secret(key) and value for key, value in user_layer.values.items())
    if holds_token and others_may_read(user_file):
        notices.append(f"{user_file} holds a token and other users can read it; close it with: chmod 600 {user_file}")
    return notices
