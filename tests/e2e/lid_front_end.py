"""A front end with one notebook, for the lid test: starts the proxy kernel, executes the cell, says what it shows.

Run as ``python lid_front_end.py SESSION NOTEBOOK CONNECTION_FILE``; the first line that it prints is the proxy's
process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file


def main(session: str, notebook: str, connection_file: str) -> None:
    write_connection_file(connection_file, key=b"secret")
    command = [sys.executable, "-m", "colab_bridge.kernels.proxy", "--session", session, "-f", connection_file]
    with subprocess.Popen(command, env={**os.environ, "JPY_SESSION_NAME": notebook}) as proxy:
        print(proxy.pid, flush=True)
        client = BlockingKernelClient(connection_file=connection_file)
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        cell = nbformat.read(notebook, as_version=nbformat.NO_CONVERT).cells[0]
        content = {"code": cell.source, "silent": False, "store_history": True, "allow_stdin": False}
        request = client.session.msg("execute_request", content, metadata={"cellId": cell.id})
        client.shell_channel.send(request)
        while True:
            message = client.get_iopub_msg(timeout=3600)
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                print(message["content"]["text"], end="", flush=True)


if __name__ == "__main__":
    os.chdir(Path(sys.argv[2]).parent)
    main(*sys.argv[1:4])
