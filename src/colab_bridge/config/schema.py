"""What can be set: the typed settings and the dotted keys that name them.

Keys are derived from the models, so that a new field is a new key at once, with its type, bounds and description.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from colab_bridge.errors import UserError
from colab_bridge.model.hardware import parse_ladder

__all__ = [
    "BUILT_IN_RUNTIME",
    "KEYS",
    "RUNTIME_KEYS",
    "ColabSettings",
    "KeyInfo",
    "LocalSettings",
    "NotebookSettings",
    "NotifySettings",
    "RecordSettings",
    "RuntimeSettings",
    "Scalar",
    "Settings",
    "SyncSettings",
    "check_runtime_name",
    "is_secret",
    "is_section",
    "key_info",
    "nearest_key",
    "nested",
    "parse_text",
    "printable",
    "unknown_key_hint",
]

Scalar = str | bool | int | float

BUILT_IN_RUNTIME: Final = "local"
_RUNTIME_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_WORD = re.compile(r"[A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*)?")


def _check_word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("may hold letters, digits, '.', '_' and '-' only")
    return value


def _check_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError("is the name of an environment variable, not its value")
    return value


def _check_url(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        raise ValueError("is not a valid address") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an address such as https://host:8888/")
    if parts.username is not None or parts.password is not None:
        raise ValueError("may not hold a user name or a password; use a token")
    if any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("may not hold spaces or control characters")
    return value


def _check_secret(value: str) -> str:
    # A line break would smuggle a header into the request that carries the token.
    if any(not 33 <= ord(c) <= 126 for c in value):
        raise ValueError("may hold printable ASCII characters without spaces only")
    return value


def _check_account(value: str) -> str:
    if any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("is an e-mail address or the short name of an account")
    return value


def _check_gpus(value: str) -> str:
    return _check_ladder(value, "gpu")


def _check_tpus(value: str) -> str:
    return _check_ladder(value, "tpu")


def _check_ladder(value: str, kind: Literal["gpu", "tpu"]) -> str:
    if value:
        try:
            parse_ladder(value, kind)
        except UserError as error:
            raise ValueError(f"names something else: {error.message}; {error.hint}") from error
    return value


def _check_webhook(value: str) -> str:
    _check_url(value)
    _check_secret(value)
    parts = urlsplit(value)
    # What is sent holds lines of the user's output, and the address itself is a secret.
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise ValueError("must begin with https://")
    return value


Word = Annotated[str, Field(max_length=100), AfterValidator(_check_word)]
Text = Annotated[str, Field(max_length=4096)]
Url = Annotated[str, Field(max_length=4096), AfterValidator(_check_url)]
Token = Annotated[str, Field(max_length=8192), AfterValidator(_check_secret)]
Gpus = Annotated[str, Field(max_length=200), AfterValidator(_check_gpus)]
Tpus = Annotated[str, Field(max_length=200), AfterValidator(_check_tpus)]
Webhook = Annotated[str, Field(max_length=4096), AfterValidator(_check_webhook)]
AccountName = Annotated[str, Field(max_length=254), AfterValidator(_check_account)]
Variable = Annotated[str, Field(max_length=200), AfterValidator(_check_variable)]


class _Section(BaseModel):
    # Strict, because a quoted number in a file is a slip that should be said; text from the environment is parsed
    # before.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class NotebookSettings(_Section):
    """How notebooks are run and written."""

    save_interval_s: float = Field(
        default=2.0,
        ge=0.1,
        le=3600,
        allow_inf_nan=False,
        description="seconds between two writes of a notebook that runs",
    )
    collapse_progress: bool = Field(
        default=True, description="keep only the last state of a progress bar in saved outputs"
    )


class RecordSettings(_Section):
    """How much of what kernels published is kept on this machine."""

    max_mb: int = Field(default=1024, ge=1, le=10_000_000, description="size of all kept outputs together, in MB")
    keep_days: int = Field(
        default=14, ge=0, le=36_500, description="days after which outputs of ended kernels are removed"
    )


class NotifySettings(_Section):
    """When and how the end of a long run is announced."""

    when: Literal["jobs", "asked", "always", "never"] = Field(
        default="jobs",
        description="which runs announce their end: jobs, only those with --notify (asked), always or never",
    )
    after_s: float = Field(
        default=60.0, ge=0, le=86_400, allow_inf_nan=False, description="seconds below which a run announces nothing"
    )
    desktop: bool = Field(default=True, description="show a notice on this machine's desktop")
    webhook: Webhook = Field(
        default="", repr=False, description="https address that notices are posted to; kept in the user file only"
    )


class LocalSettings(_Section):
    """The built-in runtime on this machine."""

    python: Text = Field(
        default="", description="interpreter for local kernels; empty: the project's own where there is one"
    )
    isolated: bool = Field(default=False, description="give the local runtime a workspace folder of its own")


class SyncSettings(_Section):
    """How this folder and the workspace on a runtime are kept in step."""

    enabled: bool = Field(default=True, description="keep the project and the runtime's workspace in step")
    respect_gitignore: bool = Field(default=False, description="leave out everything that Git ignores")
    max_file_mb: int = Field(default=512, ge=1, le=1_000_000, description="largest file that travels, in MB")
    max_ignored_file_mb: int = Field(
        default=100, ge=0, le=1_000_000, description="largest file that travels though Git ignores it, in MB"
    )
    max_ignored_total_mb: int = Field(
        default=2048, ge=0, le=10_000_000, description="all files that travel though Git ignores them, in MB"
    )
    barrier_mb: int = Field(
        default=8, ge=0, le=1_000_000, description="larger results come down in the background, in MB"
    )
    prefer: Literal["local", "remote"] = Field(
        default="local", description="whose version keeps its place when both sides changed a file"
    )
    review: Literal["review", "trust"] = Field(
        default="review",
        description="what becomes of files that tools execute when a run changed them: wait for review, or trust",
    )
    allow_remote_exec: bool = Field(default=False, description="the runtime may make files executable here")
    allow_stale: bool = Field(default=False, description="run code although the files could not be brought up")
    autoreload: bool = Field(default=True, description="edited project modules are seen by the next cell")


class ColabSettings(_Section):
    """How long runtimes of a Google account are kept, and what they may cost."""

    keep_alive_s: float = Field(
        default=240.0, ge=30, le=3600, allow_inf_nan=False, description="seconds between two signs that it is in use"
    )
    keep_alive_minutes: float = Field(
        default=60.0,
        ge=0,
        le=1440,
        allow_inf_nan=False,
        description="minutes after your last act in which an idle runtime is kept",
    )
    idle_minutes: float = Field(
        default=60.0,
        ge=0,
        le=1440,
        allow_inf_nan=False,
        description="minutes until an idle runtime is released; 0: never",
    )
    most_hours: float = Field(
        default=24.0,
        gt=0,
        le=168,
        allow_inf_nan=False,
        description="hours after your last act in which a busy runtime is kept",
    )
    budget: float = Field(
        default=0.0, ge=0, le=1_000_000, allow_inf_nan=False, description="compute units a session may spend; 0: any"
    )


class RuntimeSettings(_Section):
    """One configured runtime."""

    provider: Word = Field(
        default="jupyter", min_length=1, description="who provides it: jupyter, colab, local or a plug-in"
    )
    url: Url = Field(default="", description="address of the Jupyter server, without its token")
    token: Token = Field(default="", repr=False, description="token of the server; kept in the user file only")
    token_env: Variable = Field(default="", description="environment variable that holds the token")
    verify_tls: bool = Field(default=True, description="check the server's certificate")
    isolated: bool = Field(default=False, description="give the runtime a workspace folder of its own")
    python: Text = Field(default="", description="interpreter for its kernels, where the provider starts them")
    kernel: Text = Field(default="", description="kernelspec to use there; empty: the server's default")
    gpu: Gpus = Field(default="", description="Colab: GPU, or an order of preference such as A100,L4,T4")
    tpu: Tpus = Field(default="", description="Colab: TPU, or an order of preference such as V6E1,V5E1")
    high_mem: bool = Field(default=False, description="Colab: a machine with more memory, where there is a choice")
    runtime_version: Word = Field(default="", description="Colab: label of the image, such as 2026.01; empty: newest")
    wait_s: float = Field(
        default=0.0, ge=0, le=86_400, allow_inf_nan=False, description="Colab: seconds to wait for a free machine"
    )
    account: AccountName = Field(default="", description="Colab: account that pays; empty: the one in use")
    api: Literal["v1", "v1beta"] = Field(default="v1", description="Colab: which of its interfaces is used")


class Settings(_Section):
    """Everything that can be set."""

    provider: Word = Field(default="local", min_length=1, description="provider of the runtime when none is named")
    runtime: Word = Field(default="local", min_length=1, description="runtime that is used when none is named")
    account: AccountName = Field(
        default="", description="Google account that is used here, address or short name; empty: the one in use"
    )
    oauth_client: Text = Field(
        default="", description="file of your own OAuth client for `auth login`; in the user file only"
    )
    credential_store: Literal["auto", "keychain", "file"] = Field(
        default="auto",
        description="where new sign-ins and secrets are kept: keychain, an encrypted file, or auto for the better one",
    )
    reattach: Literal["always", "busy", "never"] = Field(
        default="busy", description="whether a front end that comes back finds its old kernel: always, busy or never"
    )
    restart_window_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="seconds in which a new start of the same notebook counts as a restart",
    )
    transport: Literal["auto", "tunnel", "websocket"] = Field(
        default="auto",
        description="how kernels are reached: tunnel (through the agent), websocket, or auto for the best there is",
    )
    port: int = Field(default=0, ge=0, le=65535, description="port of the daemon on this machine; 0: any free one")
    notebook: NotebookSettings = Field(default_factory=NotebookSettings)
    record: RecordSettings = Field(default_factory=RecordSettings)
    notify: NotifySettings = Field(default_factory=NotifySettings)
    sync: SyncSettings = Field(default_factory=SyncSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    colab: ColabSettings = Field(default_factory=ColabSettings)
    runtimes: dict[str, RuntimeSettings] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """One thing that can be set.

    Attributes:
        key: Dotted key; ``runtimes.NAME.FIELD`` with the real name for runtimes.
        kind: Python type of the value.
        default: Value when nobody sets it.
        description: One phrase for people.
        choices: Allowed texts; empty when any value of the type may be tried.
    """

    key: str
    kind: type[str | bool | int | float]
    default: Scalar
    description: str
    choices: tuple[str, ...] = ()


def _keys_of(model: type[BaseModel], prefix: str) -> dict[str, KeyInfo]:
    found: dict[str, KeyInfo] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            found |= _keys_of(type(default), f"{prefix}{name}.")
        elif not isinstance(default, dict):
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            found[prefix + name] = KeyInfo(
                key=prefix + name,
                kind=type(default),
                default=default,
                description=field.description or "",
                choices=tuple(choices),
            )
    return found


KEYS: Final[Mapping[str, KeyInfo]] = MappingProxyType(_keys_of(Settings, ""))
RUNTIME_KEYS: Final[Mapping[str, KeyInfo]] = MappingProxyType(_keys_of(RuntimeSettings, ""))
_SECTIONS: Final = frozenset({key.partition(".")[0] for key in KEYS if "." in key} | {"runtimes"})


def key_info(key: str) -> KeyInfo | None:
    """Return what is known about a dotted key, or None when there is no such key.

    Raises:
        UserError: the key names a runtime by a name that no runtime may have.
    """
    if key in KEYS:
        return KEYS[key]
    parts = key.split(".")
    if len(parts) != 3 or parts[0] != "runtimes" or parts[2] not in RUNTIME_KEYS:
        return None
    check_runtime_name(parts[1])
    info = RUNTIME_KEYS[parts[2]]
    return KeyInfo(key=key, kind=info.kind, default=info.default, description=info.description, choices=info.choices)


def check_runtime_name(name: str) -> None:
    """Refuse what cannot be the name of a configured runtime.

    Raises:
        UserError: the name is reserved, or holds other characters than ``a-z``, ``0-9`` and ``-``.
    """
    if name == BUILT_IN_RUNTIME:
        raise UserError(
            "'local' is the name of the built-in runtime and cannot be configured as another one",
            hint="Choose another name, or set local.python and local.isolated.",
            code="CB-USER-CONFIG",
        )
    if not _RUNTIME_NAME.fullmatch(name):
        raise UserError(
            f"'{printable(name)}' cannot be the name of a runtime",
            hint="Use up to 41 of a-z, 0-9 and '-', starting with a letter or a digit, for example gpu-box.",
            code="CB-USER-CONFIG",
        )


def is_section(key: str) -> bool:
    """Return whether a dotted key names a group of settings, such as ``notebook`` or ``runtimes.gpu``."""
    parts = key.split(".")
    return key in _SECTIONS or (len(parts) == 2 and parts[0] == "runtimes" and bool(_RUNTIME_NAME.fullmatch(parts[1])))


def is_secret(key: str) -> bool:
    """Return whether the value of a key must never be shown."""
    return key == "notify.webhook" or (key.startswith("runtimes.") and key.endswith(".token"))


def nearest_key(key: str) -> str | None:
    """Return the known key that an unknown one probably means, or None when nothing is near."""
    parts = key.split(".")
    candidates = list(KEYS)
    if len(parts) == 3 and _RUNTIME_NAME.fullmatch(parts[1]):
        candidates += [f"runtimes.{parts[1]}.{name}" for name in RUNTIME_KEYS]
    found = difflib.get_close_matches(key.lower(), candidates, n=1, cutoff=0.6)
    if found:
        return found[0]
    # Somebody who forgot the section, as in `max_mb`.
    return next((known for known in KEYS if known.rpartition(".")[2] == parts[-1].lower()), None)


def unknown_key_hint(key: str) -> str:
    """Return the sentence that helps with an unknown key."""
    if is_section(key):
        return f"It is a group of settings: name one of them, for example {_first_of(key)}."
    near = nearest_key(key)
    if near:
        return f"Did you mean '{near}'? All keys: colab-bridge config list"
    return "Remove it, or see all keys with: colab-bridge config list"


def _first_of(section: str) -> str:
    if section == "runtimes":
        return "runtimes.gpu.url"
    if section.startswith("runtimes."):
        return f"{section}.url"
    return next(key for key in KEYS if key.startswith(f"{section}."))


def parse_text(info: KeyInfo, text: str) -> Scalar:
    """Turn text from the environment or the command line into the type of a key.

    Raises:
        ValueError: the text is no such value; the message continues ``KEY ...``.
    """
    if info.kind is bool:
        word = text.strip().lower()
        if word in {"true", "yes", "on", "1"}:
            return True
        if word in {"false", "no", "off", "0"}:
            return False
        raise ValueError("must be true or false")
    if info.kind is int:
        return _parse_int(text)
    if info.kind is float:
        return _parse_float(text)
    return text


def _parse_int(text: str) -> int:
    # The length keeps Python's own limit on huge numbers out of sight.
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text):
        raise ValueError("must be a whole number")
    return int(text)


def _parse_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("must be a number")
    return number


def printable(text: str, limit: int = 80) -> str:
    """Return text from a file or a variable so that it can go into a message: one line, bounded, no control codes."""
    shown = "".join(c if c.isprintable() else "?" for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"a.b": 1}`` into ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
