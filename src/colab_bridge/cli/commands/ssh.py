"""``colab-bridge ssh``: the runtime's own SSH server, where it has one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.moving import session_of
from colab_bridge.cli.root import session_option
from colab_bridge.client.daemon import segment
from colab_bridge.errors import TransientError, UserError, from_problem

__all__ = ["ssh"]

_READ_BYTES = 65536
_OPEN_S = 60.0
_KEY_FILE = "ssh_ed25519"


@click.command(context_settings={"ignore_unknown_options": True})
@session_option
@click.option("--proxy-mode", is_flag=True, help="Only carry SSH's bytes, for ProxyCommand in ~/.ssh/config.")
@click.option("-i", "--identity", metavar="FILE", help="Private key, with its .pub beside it; one of ours by default.")
@click.argument("arguments", metavar="[SSH ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def ssh(
    invocation: Invocation, session: str | None, identity: str | None, arguments: tuple[str, ...], *, proxy_mode: bool
) -> int:
    """Log in to the runtime by SSH, where Colab offers it.

    \b
      colab-bridge ssh nvidia-smi
      in ~/.ssh/config:  ProxyCommand colab-bridge ssh --proxy-mode -s NAME -i ~/.ssh/id_ed25519
    """
    key = Path(identity).expanduser() if identity else invocation.paths.config_dir / _KEY_FILE
    if identity is None and not key.exists():
        _make_key(key)
    if proxy_mode:
        return _carry(invocation, session, _public(key))
    program = shutil.which("ssh")
    if program is None:
        raise UserError("there is no ssh program here", hint="colab-bridge console needs none")
    name = session_of(invocation, invocation.client(), session)
    ours = [sys.executable, "-m", "colab_bridge", "ssh", "--proxy-mode", "-s", name, "-i", str(key)]
    command = subprocess.list2cmdline(ours) if sys.platform == "win32" else " ".join(map(_quoted, ours))
    # The runtime's host key is a new one each time; what proves the machine is the daemon's connection to it.
    options = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={os.devnull}", "LogLevel=ERROR"]
    asked = [f"ProxyCommand={command}", "IdentitiesOnly=yes", *options]
    argv = [program, "-i", str(key), *(part for option in asked for part in ("-o", option)), "root@colab", *arguments]
    return subprocess.run(argv, check=False).returncode


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text).replace("%", "%%")  # ssh replaces %-sequences in the command


def _make_key(key: Path) -> None:
    """Make a key of ours: ed25519, which Colab takes; RSA it does not."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise UserError("there is no ssh-keygen program here", hint="give a key of your own: -i FILE")
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = subprocess.run(
        [program, "-q", "-t", "ed25519", "-N", "", "-C", "colab-bridge", "-f", str(key)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise UserError(f"ssh-keygen failed: {made.stderr.strip()[:200]}", hint="give a key of your own: -i FILE")


def _public(key: Path) -> str:
    try:
        return key.with_name(key.name + ".pub").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"there is no public key {key}.pub", hint="make one: ssh-keygen -t ed25519") from error


def _carry(invocation: Invocation, session: str | None, public_key: str) -> int:
    """Carry bytes between standard input and output and the runtime, until one of them ends."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake

    from colab_bridge.cli.daemon_socket import open_socket

    client = invocation.client()
    name = session_of(invocation, client, session)
    path = f"/v1/sessions/{segment(name)}/ssh?{urlencode({'key': public_key})}"
    ending: dict[str, Any] = {}
    try:
        with open_socket(client.address, path, timeout_s=_OPEN_S) as socket:

            def send() -> None:
                while data := os.read(sys.stdin.fileno(), _READ_BYTES):
                    try:
                        socket.send(data)
                    except ConnectionClosed:
                        return
                socket.close()

            threading.Thread(target=send, daemon=True).start()
            for frame in socket:
                if isinstance(frame, bytes):
                    _write(frame)
                else:
                    ending = json.loads(frame)
    except ConnectionClosed:
        ending = ending or {"problem": None}
    except (OSError, TimeoutError, InvalidHandshake) as error:
        raise TransientError("the daemon does not keep the connection", hint="colab-bridge daemon logs") from error
    if ending.get("problem"):
        raise from_problem(ending["problem"])
    return 0


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
