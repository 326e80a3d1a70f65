"""``colab-bridge config``: see and change settings, and learn where each of them comes from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option
from colab_bridge.config.edit import check_value, project_target, replace_group, set_values, unset_value
from colab_bridge.config.layers import TOKEN_VARIABLE_PREFIX, project_file, runtime_key, shadowed_file, split_token
from colab_bridge.config.project import find_root
from colab_bridge.config.schema import BUILT_IN_RUNTIME, KEYS, Scalar, check_runtime_name, is_secret, key_info
from colab_bridge.config.settings import HIDDEN, Resolved, load_settings
from colab_bridge.errors import UserError
from colab_bridge.providers.jupyter import parse_server_url

__all__ = ["config"]

_project_option = click.option(
    "--project", "in_project", is_flag=True, help="In the project's file, which others get with the project."
)


@click.group()
def config() -> None:
    """See and change settings.

    Defaults are covered by your user file, that by the project's file (colab-bridge.toml, or [tool.colab-bridge] in
    pyproject.toml), that by COLAB_BRIDGE_* variables, and all of them by options on the command line.
    """


@config.command("list")
@json_option
@click.pass_obj
def list_settings(invocation: Invocation) -> None:
    """Show all settings and what holds now."""
    resolved = _resolve(invocation)
    values = {key: resolved.shown(key) for key in _listed(resolved)}
    if invocation.as_json:
        invocation.console.json({"settings": values})
        return
    for key, value in values.items():
        invocation.console.out(f"{key} = {_toml(value)}\n")
    _say_notices(invocation, resolved)


@config.command("get")
@click.argument("key")
@json_option
@click.pass_obj
def get_setting(invocation: Invocation, key: str) -> None:
    """Show one setting; a secret is shown as ***."""
    resolved = _resolve(invocation)
    value = resolved.shown(key)
    if invocation.as_json:
        invocation.console.json({"key": key, "value": value, "source": resolved.source_of(key)})
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        invocation.console.out(f"{text}\n")


@config.command("set")
@click.argument("key")
@click.argument("value")
@_project_option
@json_option
@click.pass_obj
def set_setting(invocation: Invocation, key: str, value: str, in_project: bool) -> None:
    """Set one setting.

    VALUE "-" is read from standard input, which keeps a token out of your shell's history.
    """
    path = _file(invocation, in_project)
    values = _apart(key, _read_value(invocation, key) if value == "-" else value)
    set_values(path, values)
    if invocation.as_json:
        shown = {name: _hidden(name, check_value(name, given, shared=False)) for name, given in values.items()}
        invocation.console.json({"key": key, "value": shown[key], "file": str(path)})
    invocation.console.note(f"{' and '.join(values)} set in {path}")
    _say_what_wins(invocation, path, list(values))


@config.command("unset")
@click.argument("key")
@_project_option
@json_option
@click.pass_obj
def unset_setting(invocation: Invocation, key: str, in_project: bool) -> None:
    """Remove one setting, or a group such as runtimes.gpu, so that a weaker place or the default holds again."""
    path = _file(invocation, in_project)
    removed = unset_value(path, key)
    if invocation.as_json:
        invocation.console.json({"key": key, "file": str(path), "removed": removed})
    invocation.console.note(f"{key} removed from {path}" if removed else f"{key} was not set in {path}")


@config.command("explain")
@click.argument("key", required=False)
@json_option
@click.pass_obj
def explain(invocation: Invocation, key: str | None) -> None:
    """Say what a setting means, what holds now, and where that comes from."""
    resolved = _resolve(invocation)
    rows = [_explained(resolved, name) for name in ([key] if key else _listed(resolved))]
    if invocation.as_json:
        invocation.console.json({"settings": rows, "notices": [*resolved.notices, *_shadow_notice(invocation)]})
        return
    for row in rows:
        invocation.console.out(f"{row['key']} = {_toml(row['value'])}\n")
        invocation.console.out(f"    {row['text']}\n")
        default = "" if row["default_holds"] else f"; default: {_toml(row['default'])}"
        invocation.console.out(f"    from: {row['source']}{default}\n")
    _say_notices(invocation, resolved)


@config.command("path")
@json_option
@click.pass_obj
def show_paths(invocation: Invocation) -> None:
    """Show which files and folders are used."""
    paths = invocation.paths
    found = project_file(Path(invocation.project))
    rows = {
        "user_file": str(paths.user_config),
        "project_file": str(found) if found else None,
        "config_dir": str(paths.config_dir),
        "state_dir": str(paths.state_dir),
        "cache_dir": str(paths.cache_dir),
        "runtime_dir": str(paths.runtime_dir),
    }
    if invocation.as_json:
        invocation.console.json(rows)
        return
    for name, value in rows.items():
        invocation.console.out(f"{name.replace('_', ' '):<14}{value or '(none)'}\n")


@config.command("runtimes")
@json_option
@click.pass_obj
def list_runtimes(invocation: Invocation) -> None:
    """List the runtimes that can be used by name."""
    resolved = _resolve(invocation)
    rows = [_runtime_row(resolved, name) for name in sorted(resolved.settings.runtimes)]
    built_in: dict[str, Any] = {
        "name": BUILT_IN_RUNTIME,
        "provider": "local",
        "url": "",
        "token": "none",
        "default": resolved.settings.runtime == BUILT_IN_RUNTIME,
        "source": "built in",
    }
    rows.insert(0, built_in)
    if invocation.as_json:
        invocation.console.json({"runtimes": rows})
        return
    head = ("NAME", "PROVIDER", "ADDRESS", "TOKEN", "SET IN")
    cells = [
        (
            row["name"] + (" (default)" if row["default"] else ""),
            row["provider"],
            row["url"] or "this machine",
            row["token"],
            row["source"],
        )
        for row in rows
    ]
    invocation.console.table(head, cells)


@config.command("add-runtime")
@click.argument("name")
@click.option("--url", required=True, help="Address of a Jupyter server, as its page or its log shows it.")
@click.option("--token-env", metavar="VAR", help="Environment variable that holds the token.")
@click.option("--kernel", metavar="SPEC", help="Kernelspec to use there.")
@click.option("--no-verify-tls", is_flag=True, help="Do not check the server's certificate.")
@_project_option
@json_option
@click.pass_obj
def add_runtime(
    invocation: Invocation,
    name: str,
    url: str,
    token_env: str | None,
    kernel: str | None,
    no_verify_tls: bool,
    in_project: bool,
) -> None:
    """Give a Jupyter server a name, under which every command finds it.

    A ?token=... in the address is kept apart, in your user file, which only you can read.
    """
    check_runtime_name(name)
    parse_server_url(url)
    path = _file(invocation, in_project)
    address, token = split_token(url)
    values: dict[str, Scalar] = {runtime_key(name, "url"): address}
    optional: dict[str, Scalar | None] = {
        "token": token,
        "token_env": token_env,
        "kernel": kernel,
        "verify_tls": False if no_verify_tls else None,
    }
    values |= {runtime_key(name, field): value for field, value in optional.items() if value not in (None, "")}
    replace_group(path, f"runtimes.{name}", values)
    if invocation.as_json:
        invocation.console.json(
            {"name": name, "url": address, "token": _token_kind(token, token_env), "file": str(path)}
        )
    invocation.console.note(f"Runtime {name} saved in {path}")
    if token_env and not token_env.startswith(TOKEN_VARIABLE_PREFIX):
        invocation.console.note(
            f"Note: {token_env} must be set when the daemon starts; only names that begin with "
            f"{TOKEN_VARIABLE_PREFIX} are passed on with each command"
        )
    invocation.console.note("Offer it to your notebook editors with: colab-bridge kernels install")


@config.command("remove-runtime")
@click.argument("name")
@_project_option
@json_option
@click.pass_obj
def remove_runtime(invocation: Invocation, name: str, in_project: bool) -> None:
    """Forget a configured runtime. The server itself is not touched."""
    check_runtime_name(name)
    path = _file(invocation, in_project)
    if not unset_value(path, f"runtimes.{name}"):
        raise UserError(
            f"no runtime is called '{name}' in {path}",
            hint="See them with: colab-bridge config runtimes",
            code="CB-USER-CONFIG",
        )
    if invocation.as_json:
        invocation.console.json({"name": name, "file": str(path), "removed": True})
    invocation.console.note(f"Runtime {name} removed from {path}")


def _resolve(invocation: Invocation) -> Resolved:
    return load_settings(invocation.paths, Path(invocation.project), os.environ)


def _file(invocation: Invocation, in_project: bool) -> Path:
    """Return the file that a change goes into; its folder exists then."""
    if in_project:
        return project_target(find_root(Path(invocation.cwd), strict=True))
    paths = invocation.paths
    paths.ensure()
    return paths.user_config


def _listed(resolved: Resolved) -> list[str]:
    """Return all keys of the product and, of each runtime, those that somebody has set."""
    return [key for key in resolved.all_keys() if key in KEYS or key in resolved.sources]


def _apart(key: str, value: str) -> dict[str, Scalar]:
    """Split a token off an address, because the address is shown and the token is not."""
    if not (key.startswith("runtimes.") and key.endswith(".url")):
        return {key: value}
    url, token = split_token(value)
    values: dict[str, Scalar] = {key: url}
    if token:
        values[key.removesuffix("url") + "token"] = token
    return values


def _read_value(invocation: Invocation, key: str) -> str:
    if invocation.console.in_tty:
        return str(click.prompt(key, hide_input=is_secret(key), err=True))
    return sys.stdin.readline(16_384).strip()


def _hidden(key: str, value: Scalar) -> Scalar:
    return HIDDEN if is_secret(key) and value else value


def _explained(resolved: Resolved, key: str) -> dict[str, Any]:
    source = resolved.source_of(key)
    info = key_info(key)
    assert info is not None  # source_of has refused unknown keys
    return {
        "key": key,
        "value": resolved.shown(key),
        "source": source,
        "default": info.default,
        "default_holds": key not in resolved.sources,
        "text": info.description,
    }


def _runtime_row(resolved: Resolved, name: str) -> dict[str, Any]:
    runtime = resolved.settings.runtimes[name]
    keys = [key for key in resolved.sources if key.startswith(f"runtimes.{name}.")]
    address = runtime_key(name, "url")
    return {
        "name": name,
        "provider": runtime.provider,
        "url": runtime.url,
        "token": _token_kind(runtime.token, runtime.token_env),
        "default": resolved.settings.runtime == name,
        "source": resolved.source_of(address if address in keys else keys[0]),
    }


def _token_kind(token: str, variable: str | None) -> str:
    if variable:
        return f"from {variable}"
    return HIDDEN if token else "none"


def _say_what_wins(invocation: Invocation, path: Path, keys: list[str]) -> None:
    """Tell when what was just written is covered by a stronger place, or names a runtime that is not there."""
    try:
        resolved = _resolve(invocation)
    except UserError as error:
        invocation.console.note(f"Note: the settings as a whole are not usable: {error.message}")
        invocation.console.note(error.hint)
        return
    for key in keys:
        source = resolved.source_of(key)
        if str(path) not in source:
            invocation.console.note(f"Note: {key} from the {source} covers it here.")
    chosen = resolved.settings.runtime
    if "runtime" in keys and chosen != BUILT_IN_RUNTIME and chosen not in resolved.settings.runtimes:
        fix = f"colab-bridge config add-runtime {chosen} --url URL"
        invocation.console.note(f"Note: there is no runtime {chosen} yet: {fix}")


def _shadow_notice(invocation: Invocation) -> list[str]:
    shadowed = shadowed_file(Path(invocation.project))
    return [f"[tool.colab-bridge] in {shadowed} is not read: colab-bridge.toml stands beside it"] if shadowed else []


def _say_notices(invocation: Invocation, resolved: Resolved) -> None:
    for notice in (*resolved.notices, *_shadow_notice(invocation)):
        invocation.console.note(f"Note: {notice}")


def _toml(value: Scalar) -> str:
    return json.dumps(value, ensure_ascii=False)
