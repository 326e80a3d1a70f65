"""``colab-bridge url``."""

from __future__ import annotations

import webbrowser

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.daemon import segment

__all__ = ["url"]


@click.command()
@session_option
@click.option("--open", "opened", is_flag=True, help="Open it in this machine's browser.")
@json_option
@click.pass_obj
def url(invocation: Invocation, session: str | None, opened: bool) -> None:
    """Print the address that opens a session's Colab runtime in a browser.

    The browser must be signed in with the account that the runtime belongs to; the address holds no secret.
    """
    client = invocation.client()
    name = session or default_session(invocation, client)
    found = client.get(f"/v1/account/sessions/{segment(name)}/url")
    if invocation.as_json:
        invocation.console.json(found)
    else:
        invocation.console.out(f"{found['url']}\n")
    if opened and not webbrowser.open(str(found["url"])):
        invocation.console.note("no browser could be opened here; copy the address")
