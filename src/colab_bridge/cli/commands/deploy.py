"""``colab-bridge deploy``: a notebook in Drive, run on a runtime, with its outputs in both places."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from colab_bridge._util.ids import new_id
from colab_bridge.cli.commands.attach import follow_run_of
from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option, target_options
from colab_bridge.cli.start_run import signed_in
from colab_bridge.cli.target import Target
from colab_bridge.client.daemon import segment
from colab_bridge.errors import UserError

__all__ = ["deploy"]

#: Longer than the daemon itself waits for Drive.
_WRITTEN_S = 180.0


@click.command()
@target_options
@click.option("--share-with", metavar="EMAIL", multiple=True, help="Let this person see the notebook; may be repeated.")
@click.option(
    "--role", type=click.Choice(["reader", "commenter", "writer"]), default="reader", help="What they may do with it."
)
@click.option("--notify", is_flag=True, help="Tell me when it has ended, fails or asks something (if over a minute).")
@click.option("-d", "--detach", is_flag=True, help="Return when it runs; outputs go to Drive when it has ended.")
@json_option
@click.argument("notebook", type=click.Path(dir_okay=False))
@click.pass_obj
def deploy(
    invocation: Invocation,
    /,
    notebook: str,
    share_with: tuple[str, ...],
    role: str,
    notify: bool,
    detach: bool,
    **options: str | bool | None,
) -> int:
    """Publish NOTEBOOK in Google Drive, share it, run it, and write its outputs back to both places.

    Deploying it again updates the same file in Drive. The link that is printed opens the notebook in Colab, on the
    runtime where it runs.

    \b
      colab-bridge deploy report.ipynb --gpu T4 --share-with ada@example.org
    """
    path = Path(notebook)
    if path.suffix != ".ipynb" or not path.exists():
        raise UserError(
            f"there is no notebook {path}", hint="Check the name; `ls` shows what is here.", code="CB-USER-NOFILE"
        )
    target = Target(**options)  # type: ignore[arg-type]  # the options are the fields, see target_options
    run = {
        **invocation.base(),
        **target.for_run(),
        "kind": "notebook",
        "notebook": {"path": os.path.normpath(os.path.join(invocation.cwd, path))},
        "notify": notify,
        "detached": detach,
        "run_id": new_id("run"),
    }
    client = invocation.client()
    invocation.doing = "deploying"
    invocation.show_start(client)
    body = {"run": run, "share_with": list(share_with), "role": role}
    made = signed_in(invocation, lambda: client.post("/v1/deployments", body), drive=True)
    if not invocation.as_json:
        invocation.console.account(made["run"].get("account"))
    _announce(invocation, made)
    if detach:
        if invocation.as_json:
            invocation.console.json({"deployment": made})
        return 0
    status = follow_run_of(invocation, client, made["run"])
    written = client.get(f"/v1/deployments/{segment(str(made['run']['id']))}", timeout_s=_WRITTEN_S)
    if written["written"]:
        invocation.console.note("outputs are in Drive too")
        return status
    invocation.console.note(f"outputs are here, but not in Drive: {written['problem'] or 'it did not answer in time'}")
    return status or 1


def _announce(invocation: Invocation, made: dict[str, Any]) -> None:
    console, file = invocation.console, made["file"]
    console.note(f"{'published' if file['created'] else 'updated'} {file['name']} in Drive")
    if made["shared"]:
        console.note(f"shared with {', '.join(made['shared'])}")
    if made["link"]:
        console.note(f"open it: {made['link']}")
