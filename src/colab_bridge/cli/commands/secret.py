"""``colab-bridge secret``: what `userdata.get` gives to code on a runtime."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import age
from colab_bridge.cli.root import json_option
from colab_bridge.cli.sign_in import STORES, open_credentials
from colab_bridge.errors import UserError

if TYPE_CHECKING:
    from colab_bridge.credentials.secret_box import SecretBox

__all__ = ["secret"]

_MAX_INPUT = 128 * 1024


@click.group()
def secret() -> None:
    """Keep tokens and passwords that `userdata.get("NAME")` gives to code on a runtime.

    \b
      colab-bridge secret set HF_TOKEN            asks for the value; or: ... < FILE
      colab-bridge secret allow HF_TOKEN          this project's code may have it
      colab-bridge secret list

    Values are in the keychain of this system (else in an encrypted file), go nowhere but to the code of projects that
    you have allowed, and are hidden in what that code prints.
    """


@secret.command("set")
@click.argument("name")
@click.option("--allow/--no-allow", default=None, help="Whether this project's code may have it; asked at a terminal.")
@json_option
@click.pass_obj
def set_secret(invocation: Invocation, name: str, allow: bool | None) -> None:
    """Keep a secret as NAME. Its value is asked for, or read from a pipe; never given as an argument."""
    import anyio

    from colab_bridge.credentials.secret_box import check_secret_name
    from colab_bridge.model.runtime import Secret

    if "=" in name:
        raise UserError(
            "a value on the command line can be seen by every user of this machine",
            hint=f"leave it out, it is asked for: colab-bridge secret set {name.partition('=')[0]}",
            code="CB-USER-077",
        )
    check_secret_name(name)
    box = _box(invocation)
    value = Secret(_read_value(invocation, name))
    kind, note = anyio.run(box.put, name, value, time.time())
    project = invocation.project
    if allow is None and invocation.console.interactive:
        allow = click.confirm(f"May code of {project} have it?", default=True, err=True)
    if allow is not None:
        (box.allow if allow else box.deny)(project, name)
    entry = next(entry for entry in box.entries() if entry.name == name)
    if invocation.as_json:
        invocation.console.json(entry.to_json(project))
        return
    invocation.console.note(note or f"{name} is kept {STORES[kind]}")
    if project not in entry.projects:
        invocation.console.note(f"let this project's code have it: colab-bridge secret allow {name}")


def _read_value(invocation: Invocation, name: str) -> str:
    if invocation.console.in_tty:
        import getpass  # here because a pipe needs none of it

        invocation.console.clear_progress()
        return getpass.getpass(f"value of {name}: ", stream=sys.stderr)
    text = sys.stdin.read(_MAX_INPUT) if sys.stdin is not None else ""
    # The line end belongs to the file, not to the secret.
    return text.removesuffix("\n").removesuffix("\r")


@secret.command("list")
@json_option
@click.pass_obj
def list_secrets(invocation: Invocation) -> None:
    """List names, and whether this project's code may have them; never values."""
    box = _box(invocation)
    project = invocation.project
    entries = box.entries()
    if invocation.as_json:
        invocation.console.json({"secrets": [entry.to_json(project) for entry in entries]})
        return
    if not entries:
        invocation.console.note("no secrets; keep one: colab-bridge secret set NAME")
        return
    rows = [
        [entry.name, "yes" if project in entry.projects else "no", len(entry.projects), entry.store, age(entry.set_at)]
        for entry in entries
    ]
    invocation.console.table(("secret", "this project", "projects", "kept in", "set"), rows)


@secret.command("rm")
@click.argument("name")
@json_option
@click.pass_obj
def remove_secret(invocation: Invocation, name: str) -> None:
    """Forget a secret."""
    import anyio

    box = _box(invocation)
    anyio.run(box.remove, name)
    if invocation.as_json:
        invocation.console.json({"removed": name})
    else:
        invocation.console.note(f"removed {name}")


@secret.command()
@click.argument("name")
@json_option
@click.pass_obj
def allow(invocation: Invocation, name: str) -> None:
    """Let this project's code have the secret NAME."""
    _approve(invocation, name, approved=True)


@secret.command()
@click.argument("name")
@json_option
@click.pass_obj
def deny(invocation: Invocation, name: str) -> None:
    """Let this project's code have the secret NAME no more."""
    _approve(invocation, name, approved=False)


def _approve(invocation: Invocation, name: str, *, approved: bool) -> None:
    box = _box(invocation)
    project = invocation.project
    entry = (box.allow if approved else box.deny)(project, name)
    if invocation.as_json:
        invocation.console.json(entry.to_json(project))
    else:
        invocation.console.note(f"code of {project} may {'' if approved else 'not '}have {name}")


def _box(invocation: Invocation) -> SecretBox:
    from colab_bridge.credentials.secret_box import SecretBox

    credentials, _ = open_credentials(invocation)
    return SecretBox(invocation.paths, credentials.vaults)
