"""``colab-bridge stop``."""

from __future__ import annotations

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.listing import default_session
from colab_bridge.cli.root import json_option, session_option
from colab_bridge.client.daemon import DaemonClient, segment
from colab_bridge.errors import AuthError, ColabBridgeError, UserError

__all__ = ["stop"]


@click.command()
@session_option
@click.option("--all", "everything", is_flag=True, help="All sessions of all projects.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_obj
def stop(invocation: Invocation, names: tuple[str, ...], session: str | None, everything: bool, yes: bool) -> int:
    """End sessions: their kernels with all variables, and the runtimes that we started.

    Without a name it is this project's own session. A Jupyter server that we did not start goes on. The id of a Colab
    runtime, as `ps --all` shows it, ends that runtime, whoever made it.
    """
    client = invocation.client()
    wanted = _wanted(invocation, client, [*names, *([session] if session else [])], everything=everything, yes=yes)
    invocation.doing = "stopping"
    stopped: list[dict[str, object]] = []
    failed: ColabBridgeError | None = None
    for name in wanted:
        try:
            stopped.append(_stop(invocation, client, name))
        except ColabBridgeError as error:
            failed = error
        else:
            if not invocation.as_json:
                ended = stopped[-1].get("kernels") or 0
                invocation.console.note(f"{name}: stopped, {ended} kernel{'' if ended == 1 else 's'} ended")
    if failed is not None:
        raise failed
    if invocation.as_json:
        invocation.console.json({"stopped": stopped})
    elif not wanted:
        invocation.console.note("there are no sessions")
    return 0


def _stop(invocation: Invocation, client: DaemonClient, name: str) -> dict[str, object]:
    try:
        return client.delete(f"/v1/sessions/{segment(name)}")
    except UserError as error:
        # Ids of machines have dashes and digits as names may have; an account is asked only for what may be one.
        if error.code != "CB-USER-022" or "-" not in name:
            raise
        unknown = error
    try:
        return client.post("/v1/account/release", {"runtime": name, "env": invocation.environment()})
    except (AuthError, UserError):
        raise unknown from None


def _wanted(
    invocation: Invocation, client: DaemonClient, names: list[str], *, everything: bool, yes: bool
) -> list[str]:
    if not everything:
        return names or [default_session(invocation, client)]
    if names:
        raise UserError(
            "--all and names do not go together", hint="colab-bridge stop --all   or: colab-bridge stop NAME"
        )
    found = [str(session["name"]) for session in client.get("/v1/sessions").get("sessions") or []]
    if not found or yes:
        return found
    if not invocation.console.interactive:
        raise UserError(
            f"--all would end {len(found)} sessions ({', '.join(found)[:200]})",
            hint="Say so: colab-bridge stop --all --yes",
        )
    click.confirm(f"End {len(found)} sessions ({', '.join(found)}) with all their variables?", abort=True, err=True)
    return found
