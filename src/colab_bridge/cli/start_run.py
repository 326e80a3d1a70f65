"""Send a run request and follow it, for all commands that run something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from colab_bridge._util.ids import new_id
from colab_bridge.cli.context import Invocation
from colab_bridge.cli.printer import JsonPrinter, Printer, ProgramPrinter
from colab_bridge.cli.start_lines import StartLines
from colab_bridge.cli.target import Target
from colab_bridge.cli.watch import watch
from colab_bridge.client.connect import revive
from colab_bridge.client.daemon import DaemonClient
from colab_bridge.errors import AuthError, TransientError

__all__ = ["signed_in", "start_job", "start_run", "starting_text"]

_T = TypeVar("_T")


def start_run(invocation: Invocation, target: Target, request: dict[str, Any]) -> int:
    """Start a run, follow it to its end and return its exit status.

    Args:
        invocation: This call.
        target: Where it is to run.
        request: The members that say what to run.

    Raises:
        ColabBridgeError: it could not be started or followed.
    """
    body = {**invocation.base(), **target.for_run(), **request}
    client = invocation.client()
    said = StartLines(client, str(body["project"]), invocation.console)

    def follow() -> int:
        return watch(client, body, _printer(invocation, target, request), invocation.console, starting=said.show)

    return signed_in(invocation, follow)


def signed_in(invocation: Invocation, call: Callable[[], _T], *, drive: bool = False) -> _T:
    """Do something, and once more after a sign-in where it fails for want of one and a person is there.

    Args:
        invocation: This call.
        call: What is done; it must have begun nothing when it fails so.
        drive: Whether it needs Drive, which is then asked for in the same consent.
    """
    try:
        return call()
    except AuthError as error:
        from colab_bridge.cli.sign_in import offer_sign_in  # only who is not signed in needs it

        if not offer_sign_in(invocation, error, drive=drive):
            raise
    return call()


def start_job(invocation: Invocation, target: Target, request: dict[str, Any]) -> int:
    """Start a run that goes on with nobody attached, and say how to come back to it.

    The id alone goes to stdout, so that a script can keep it.

    Args:
        invocation: This call.
        target: Where it is to run.
        request: The members that say what to run.

    Returns:
        0 as soon as it is on its kernel.

    Raises:
        ColabBridgeError: it could not be started.
    """
    body = {**invocation.base(), **target.for_run(), **request, "detached": True, "run_id": new_id("run")}
    invocation.doing = starting_text(target)
    client = invocation.client()
    invocation.show_start(client)
    run = signed_in(invocation, lambda: _post_once(client, body))
    console = invocation.console
    if invocation.as_json:
        console.json({"job": run})
        return 0
    console.account(run.get("account"))
    name = str(run.get("id"))
    console.out(f"{name}\n")
    console.note(f"follow it: colab-bridge job attach {name}    what it says: colab-bridge job logs {name}")
    console.note(f"its result: colab-bridge job result {name}    end it: colab-bridge job cancel {name}")
    return 0


def _post_once(client: DaemonClient, body: dict[str, Any]) -> dict[str, Any]:
    """Send a run request; again when the daemon died before it answered, which starts the same run."""
    try:
        return client.post("/v1/runs", body)
    except TransientError as error:
        if error.code != "CB-TRANSIENT-DAEMON":
            raise
        return revive().post("/v1/runs", body)


def _printer(invocation: Invocation, target: Target, request: dict[str, Any]) -> Printer:
    console, outputs = invocation.console, invocation.paths.outputs_dir
    if invocation.as_json:
        return JsonPrinter(console, outputs)
    starting = starting_text(target)
    notebook = request.get("notebook")
    if notebook:
        from colab_bridge.cli.notebook_printer import NotebookPrinter  # only a notebook needs it

        return NotebookPrinter(
            console, notebook.get("output_path") or notebook["path"], invocation.cwd, starting=starting
        )
    return ProgramPrinter(console, outputs, starting=starting)


def starting_text(target: Target) -> str:
    """Say what is being waited for before a run begins."""
    if target.session:
        return f"waiting for session {target.session}"
    if target.url:
        return "reaching the Jupyter server"
    if target.gpu or target.tpu or target.provider == "colab":
        return "getting a Colab runtime"
    if target.runtime and target.runtime != "local":
        return f"starting the runtime {target.runtime}"
    return "starting the local runtime"
