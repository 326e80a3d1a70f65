"""``colab-bridge new``."""

from __future__ import annotations

import dataclasses

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options
from colab_bridge.cli.start_run import signed_in, starting_text
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

__all__ = ["new"]


@click.command()
@target_options
@json_option
@click.argument("name", required=False)
@click.pass_obj
def new(invocation: Invocation, /, name: str | None, **options: str | bool | None) -> None:
    """Make a session and wait until its runtime answers.

    \b
      colab-bridge new -s gpu --url 'http://gpubox:8888/?token=...'
      colab-bridge new -s clean --provider local --isolated
      colab-bridge exec -s clean 'print(1)'
    """
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    if name and target.session and name != target.session:
        raise UserError(f"two names were given: {name} and {target.session}", hint="Give one.")
    wanted = name or target.session
    body = {
        "name": wanted,
        "project": invocation.project,
        "env": invocation.environment(),
        "choose": True,
        **target.for_session(),
    }
    invocation.doing = starting_text(dataclasses.replace(target, session=None))
    client = invocation.client()
    said = invocation.show_start(client)
    # A machine may be waited for as long as the user says.
    timeout_s = client.timeout_s + float(body["options"].get("wait_s") or 0.0)
    session = signed_in(invocation, lambda: client.post("/v1/sessions", body, timeout_s=timeout_s))
    said.show()
    invocation.console.clear_progress()
    if invocation.as_json:
        invocation.console.json(session)
        return
    invocation.console.account(session.get("account"))
    invocation.console.note(
        f"session {session.get('name')} is ready ({session.get('label') or session.get('provider')})"
    )
    invocation.console.hint("commands in this project use it now: colab-bridge exec 'print(1)'")
