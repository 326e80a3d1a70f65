"""``colab-bridge config``: see and change settings, and learn where each of them comes from."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from colab_bridge.config.edit import check_value, project_target, replace_group, set_values, unset_value
from colab_bridge.config.layers import project_file, runtime_key, shadowed_file, split_token
from colab_bridge.config.paths import Paths
from colab_bridge.config.project import find_root
from colab_bridge.config.schema import BUILT_IN_RUNTIME, KEYS, Scalar, check_runtime_name, is_secret, key_info
from colab_bridge.config.settings import HIDDEN, Resolved, load_settings
from colab_bridge.errors import UserError
from colab_bridge.providers.jupyter import parse_server_url

__all__ = ["config"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
@_json_option
def list_settings(as_json: bool) -> None:
    """Show all settings and what holds now."""
    resolved = _resolve()
    values = {key: resolved.shown(key) for key in _listed(resolved)}
    if as_json:
        _print_json({"settings": values})
        return
    for key, value in values.items():
        click.echo(f"{key} = {_toml(value)}")
    _say_notices(resolved)


@config.command("get")
@click.argument("key")
@_json_option
def get_setting(key: str, as_json: bool) -> None:
    """Show one setting; a secret is shown as ***."""
    resolved = _resolve()
    value = resolved.shown(key)
    if as_json:
        _print_json({"key": key, "value": value, "source": resolved.source_of(key)})
    else:
        click.echo(str(value).lower() if isinstance(value, bool) else str(value))


@config.command("set")
@click.argument("key")
@click.argument("value")
@_project_option
@_json_option
def set_setting(key: str, value: str, in_project: bool, as_json: bool) -> None:
    """Set one setting.

    VALUE "-" is read from standard input, which keeps a token out of your shell's history.
    """
    path = _file(in_project)
    values = _apart(key, _read_value(key) if value == "-" else value)
    set_values(path, values)
    if as_json:
        shown = {name: _hidden(name, check_value(name, given, shared=False)) for name, given in values.items()}
        _print_json({"key": key, "value": shown[key], "file": str(path)})
    click.echo(f"{' and '.join(values)} set in {path}", err=True)
    _say_what_wins(path, list(values))


@config.command("unset")
@click.argument("key")
@_project_option
@_json_option
def unset_setting(key: str, in_project: bool, as_json: bool) -> None:
    """Remove one setting, or a group such as runtimes.gpu, so that a weaker place or the default holds again."""
    path = _file(in_project)
    removed = unset_value(path, key)
    if as_json:
        _print_json({"key": key, "file": str(path), "removed": removed})
    click.echo(f"{key} removed from {path}" if removed else f"{key} was not set in {path}", err=True)


@config.command("explain")
@click.argument("key", required=False)
@_json_option
def explain(key: str | None, as_json: bool) -> None:
    """Say what a setting means, what holds now, and where that comes from."""
    resolved = _resolve()
    rows = [_explained(resolved, name) for name in ([key] if key else _listed(resolved))]
    if as_json:
        _print_json({"settings": rows, "notices": [*resolved.notices, *_shadow_notice()]})
        return
    for row in rows:
        click.echo(f"{row['key']} = {_toml(row['value'])}")
        click.echo(f"    {row['text']}")
        click.echo(
            f"    from: {row['source']}" + ("" if row["default_holds"] else f"; default: {_toml(row['default'])}")
        )
    _say_notices(resolved)


@config.command("path")
@_json_option
def show_paths(as_json: bool) -> None:
    """Show which files and folders are used."""
    paths = Paths.from_env(os.environ)
    found = project_file(_project())
    rows = {
        "user_file": str(paths.user_config),
        "project_file": str(found) if found else None,
        "config_dir": str(paths.config_dir),
        "state_dir": str(paths.state_dir),
        "cache_dir": str(paths.cache_dir),
        "runtime_dir": str(paths.runtime_dir),
    }
    if as_json:
        _print_json(rows)
        return
    for name, value in rows.items():
        click.echo(f"{name.replace('_', ' '):<14}{value or '(none)'}")


@config.command("runtimes")
@_json_option
def list_runtimes(as_json: bool) -> None:
    """List the runtimes that can be used by name."""
    resolved = _resolve()
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
    if as_json:
        _print_json({"runtimes": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        mark = "*" if row["default"] else " "
        where = row["url"] or "this machine"
        click.echo(
            f"{mark} {row['name']:<{width}}  {row['provider']}  {where}  token: {row['token']}  ({row['source']})"
        )


@config.command("add-runtime")
@click.argument("name")
@click.option("--url", required=True, help="Address of a Jupyter server, as its page or its log shows it.")
@click.option("--token-env", metavar="VAR", help="Environment variable that holds the token.")
@click.option("--kernel", metavar="SPEC", help="Kernelspec to use there.")
@click.option("--no-verify-tls", is_flag=True, help="Do not check the server's certificate.")
@_project_option
@_json_option
def add_runtime(
    name: str, url: str, token_env: str | None, kernel: str | None, no_verify_tls: bool, in_project: bool, as_json: bool
) -> None:
    """Give a Jupyter server a name, under which every command finds it.

    A ?token=... in the address is kept apart, in your user file, which only you can read.
    """
    check_runtime_name(name)
    parse_server_url(url)
    path = _file(in_project)
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
    if as_json:
        _print_json({"name": name, "url": address, "token": _token_kind(token, token_env), "file": str(path)})
    click.echo(f"Runtime {name} saved in {path}", err=True)
    click.echo("Offer it to your notebook editors with: colab-bridge kernels install", err=True)


@config.command("remove-runtime")
@click.argument("name")
@_project_option
@_json_option
def remove_runtime(name: str, in_project: bool, as_json: bool) -> None:
    """Forget a configured runtime. The server itself is not touched."""
    check_runtime_name(name)
    path = _file(in_project)
    if not unset_value(path, f"runtimes.{name}"):
        raise UserError(
            f"no runtime is called '{name}' in {path}",
            hint="See them with: colab-bridge config runtimes",
            code="CB-USER-CONFIG",
        )
    if as_json:
        _print_json({"name": name, "file": str(path), "removed": True})
    click.echo(f"Runtime {name} removed from {path}", err=True)


def _project() -> Path:
    return find_root(Path.cwd())


def _resolve() -> Resolved:
    return load_settings(Paths.from_env(os.environ), _project(), os.environ)


def _file(in_project: bool) -> Path:
    """Return the file that a change goes into; its folder exists then."""
    if in_project:
        return project_target(find_root(Path.cwd(), strict=True))
    paths = Paths.from_env(os.environ)
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


def _read_value(key: str) -> str:
    if sys.stdin.isatty():
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


def _say_what_wins(path: Path, keys: list[str]) -> None:
    """Tell when what was just written is covered by a stronger place, or names a runtime that is not there."""
    try:
        resolved = _resolve()
    except UserError as error:
        click.echo(f"Note: the settings as a whole are not usable: {error.message}", err=True)
        click.echo(error.hint, err=True)
        return
    for key in keys:
        source = resolved.source_of(key)
        if str(path) not in source:
            click.echo(f"Note: {key} from the {source} covers it here.", err=True)
    chosen = resolved.settings.runtime
    if "runtime" in keys and chosen != BUILT_IN_RUNTIME and chosen not in resolved.settings.runtimes:
        click.echo(
            f"Note: there is no runtime {chosen} yet: colab-bridge config add-runtime {chosen} --url URL", err=True
        )


def _shadow_notice() -> list[str]:
    shadowed = shadowed_file(_project())
    return [f"[tool.colab-bridge] in {shadowed} is not read: colab-bridge.toml stands beside it"] if shadowed else []


def _say_notices(resolved: Resolved) -> None:
    for notice in (*resolved.notices, *_shadow_notice()):
        click.echo(f"Note: {notice}", err=True)


def _toml(value: Scalar) -> str:
    return json.dumps(value, ensure_ascii=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
