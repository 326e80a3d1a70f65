"""Shells in a pseudo terminal, and ports of a runtime, as a user at a desk has them."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from typing import Any

import pexpect

from cli_support import Desk

ROWS, COLUMNS = 30, 100

#: Run in a kernel: starts a small web server and prints its port.
SERVE = """
import http.server, threading
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1])
"""


def open_console(desk: Desk, *argv: str) -> Any:
    """Start ``colab-bridge console`` in a terminal of 30 rows and 100 columns; returns once the shell is there."""
    command, *rest = desk.argv("console", *argv)
    child = pexpect.spawn(
        command,
        rest,
        env=desk.environ | {"SHELL": "/bin/sh", "PS1": "$ "},
        cwd=str(desk.project),
        encoding="utf-8",
        timeout=30,
        dimensions=(ROWS, COLUMNS),
    )
    child.expect("Ctrl-]")
    return child


def exit_status(child: Any) -> int:
    """Wait until the program in a terminal has ended."""
    child.expect(pexpect.EOF)
    child.close()
    return int(child.exitstatus)


def forwarded_port(process: subprocess.Popen[str]) -> int:
    """Return the local port that ``colab-bridge port-forward --json`` has opened."""
    assert process.stdout is not None
    document = ""
    while not document.endswith("\n}\n"):
        document += process.stdout.readline()
    return int(json.loads(document)["forwards"][0]["local_port"])


def fetch(port: int) -> str:
    """Ask the web server behind a local port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/x", timeout=20) as answer:
        return str(answer.read().decode())
