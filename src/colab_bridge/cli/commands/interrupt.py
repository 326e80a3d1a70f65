"""``colab-bridge interrupt``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.daemon import segment
from colab_bridge.errors import UserError

__all__ = ["interrupt"]


@click.command()
@session_option
@click.option("--kill", is_flag=True, help="End the run's kernel instead; its variables are lost.")
@json_option
@click.argument("name", metavar="[SESSION|RUN]", required=False)
@click.pass_obj
def interrupt(invocation: Invocation, name: str | None, session: str | None, kill: bool) -> None:
    """Stop what runs in a session, or one run; variables are kept.

    \b
      colab-bridge interrupt              everything that runs in this project's session
      colab-bridge interrupt RUN          one run
      colab-bridge interrupt RUN --kill   one that ignores it: end its kernel
    """
    client = invocation.client()
    wanted = name or session or default_session(invocation, client)
    done: dict[str, object]
    if wanted.startswith("run-"):
        path = f"/v1/runs/{segment(wanted)}/"
        client.post(path + "kill", {"restart": False}) if kill else client.post(path + "interrupt")
        done = {"interrupted": [wanted], "killed": kill}
    elif kill:
        raise UserError("--kill needs the id of a run", hint="See what runs: colab-bridge status")
    else:
        done = {**client.post(f"/v1/sessions/{segment(wanted)}/interrupt"), "killed": False}
    if invocation.as_json:
        invocation.console.json(done)
        return
    what = "ended its kernel" if kill else "interrupted" if done.get("interrupted") else "nothing runs there"
    invocation.console.note(f"{wanted}: {what}")
