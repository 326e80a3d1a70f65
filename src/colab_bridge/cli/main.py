"""The entry point ``colab-bridge``."""

from __future__ import annotations

import sys

__all__ = ["main", "run"]

# A module of its own for each command; the second text is its line in `colab-bridge --help`.
_HERE = "colab_bridge.cli.commands."
COMMANDS = {
    "run": (_HERE + "run:run", "Run a script, a module, a notebook or a command."),
    "exec": (_HERE + "exec:exec_", "Run code in the session's kernel, which keeps its variables."),
    "execute": (_HERE + "exec:exec_", ""),
    "repl": (_HERE + "repl:repl", "Type code line by line."),
    "status": (_HERE + "status:status", "See daemon, sessions, kernels and what runs."),
    "logs": (_HERE + "logs:logs", "Show the output of a run again."),
    "job": (_HERE + "job:job", "See, follow and end what runs with nobody attached."),
    "schedule": (_HERE + "schedule:schedule", "See and remove what is run again and again."),
    "deploy": (_HERE + "deploy:deploy", "Publish a notebook in Drive, run it, write outputs to both places."),
    "attach": (_HERE + "attach:attach", "Come back to a run that goes on."),
    "interrupt": (_HERE + "interrupt:interrupt", "Stop what runs; variables are kept."),
    "restart": (_HERE + "restart:restart", "Start the session's kernel anew."),
    "new": (_HERE + "new:new", "Make a session on a runtime."),
    "sessions": (_HERE + "sessions:sessions", "List sessions."),
    "ps": (_HERE + "sessions:sessions", ""),
    "adopt": (_HERE + "adopt:adopt", "Use a Colab runtime that is there already."),
    "gc": (_HERE + "gc:gc", "Release Colab runtimes that nobody holds."),
    "gpus": (_HERE + "gpus:gpus", "See which GPUs and TPUs the account may have."),
    "usage": (_HERE + "usage:usage", "See the account's compute units and who uses them."),
    "url": (_HERE + "url:url", "Open a Colab runtime in a browser."),
    "stop": (_HERE + "stop:stop", "End sessions with their kernels and runtimes."),
    "sync": (_HERE + "sync:sync", "Keep this folder and the runtime's in step; see what is held."),
    "ls": (_HERE + "ls:ls", "List files of the runtime."),
    "upload": (_HERE + "upload:upload", "Copy a file or folder to the runtime."),
    "download": (_HERE + "download:download", "Copy a file or folder from the runtime."),
    "rm": (_HERE + "rm:rm", "Remove a file of the runtime."),
    "edit": (_HERE + "edit:edit", "Edit a file of the runtime."),
    "auth": (_HERE + "auth:auth", "Sign in to Google, choose among accounts."),
    "whoami": (_HERE + "whoami:whoami", "Show which Google account would be used."),
    "secret": (_HERE + "secret:secret", "Keep tokens that code on a runtime may ask for."),
    "console": (_HERE + "console:console", "Open a shell on the runtime."),
    "shell": (_HERE + "console:console", ""),
    "ssh": (_HERE + "ssh:ssh", "Log in to a Colab runtime by SSH, where it offers that."),
    "install": (_HERE + "install:install", "Install Python packages on the runtime."),
    "drive": (_HERE + "drive:drive", "Use Google Drive on a Colab runtime."),
    "port-forward": (_HERE + "port_forward:port_forward", "Open ports of the runtime here."),
    "kernels": (_HERE + "kernels:kernels", "Make runtimes appear in JupyterLab, VS Code and others."),
    "config": (_HERE + "config:config", "See and change settings."),
    "doctor": (_HERE + "doctor:doctor", "Check what this machine needs."),
    "daemon": (_HERE + "daemon:daemon", "Start, stop and look after the background process."),
    "emulator": (_HERE + "emulator:emulator", "Run Colab's back end on this machine, for tests."),
    "version": (_HERE + "version:version", "Show the version."),
}


def main() -> None:
    """Run the command line of this process and end it with the right exit status."""
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:  # in the few milliseconds before run() is ready for it
        status = 130
    sys.exit(status)


def run(argv: list[str]) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name.

    Returns:
        The exit status.
    """
    if argv == ["--version"]:
        # Answered before anything is imported: editors and scripts ask this often.
        from colab_bridge import __version__

        sys.stdout.write(f"colab-bridge {__version__}\n")
        return 0
    from colab_bridge.cli.context import Invocation
    from colab_bridge.cli.failure import report
    from colab_bridge.cli.root import build_root

    invocation = Invocation()
    try:
        result = build_root(COMMANDS).main(argv, prog_name="colab-bridge", obj=invocation, standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the root of the process
        return report(error, invocation)
    return result if isinstance(result, int) else 0
