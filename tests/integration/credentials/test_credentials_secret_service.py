"""The keychain of a Linux desktop, for real: gnome-keyring on a bus of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon_home import SOURCE

pytestmark = pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="needs dbus-run-session and gnome-keyring-daemon; on Debian: apt-get install dbus gnome-keyring",
)

# The daemon is unlocked through its standard input, as a login does it, and says when it listens by owning its name.
SESSION = """
set -eu
mkfifo "$HOME/password"
gnome-keyring-daemon --unlock --components=secrets --foreground <"$HOME/password" >"$HOME/log" 2>&1 &
keyring=$!
printf 'the login password' >"$HOME/password"
gdbus wait --session --timeout 20 org.freedesktop.secrets 2>/dev/null || "$PYTHON" -c "$WAIT"
status=0
"$PYTHON" -c "$FIRST" && "$PYTHON" -c "$SECOND" || status=$?
kill "$keyring"
exit $status
"""

WAIT = """
import time
import jeepney.io.blocking, jeepney
bus = jeepney.io.blocking.open_dbus_connection()
deadline = time.monotonic() + 20
while not bus.send_and_get_reply(jeepney.bus_messages.message_bus.NameHasOwner("org.freedesktop.secrets")).body[0]:
    assert time.monotonic() < deadline, "the keychain did not start"
    time.sleep(0.05)
"""

OPEN = """
import anyio, os
from colab_bridge.config.paths import Paths
from colab_bridge.credentials.vaults import Vaults
vaults = Vaults(Paths.from_env(os.environ), "auto", lambda: None)
"""

FIRST = f"""{OPEN}
print(anyio.run(vaults.place)[1])
print(anyio.run(vaults.put, "account ada@example.org", "1//refresh"))
print(anyio.run(vaults.put, "secret KEY", "k" * 5000))
"""

SECOND = f"""{OPEN}
print(anyio.run(vaults.get, "keychain", "account ada@example.org"))
print(len(anyio.run(vaults.get, "keychain", "secret KEY")))
anyio.run(vaults.drop, "keychain", "secret KEY")
print(anyio.run(vaults.get, "keychain", "secret KEY"))
"""


def test_what_one_process_keeps_in_the_secret_service_another_one_finds(tmp_path: Path) -> None:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("COLAB_BRIDGE_", "PYTHON_KEYRING"))
    }
    (tmp_path / "run").mkdir(mode=0o700)
    own = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "XDG_DATA_HOME": str(tmp_path / "share"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLAB_BRIDGE_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(SOURCE),
        "PYTHON": sys.executable,
        "WAIT": WAIT,
        "FIRST": FIRST,
        "SECOND": SECOND,
    }
    done = subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", SESSION],
        env=kept | own,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    place, *lines = done.stdout.splitlines()
    assert place.startswith("keychain of this system (SecretService Keyring)")
    assert lines == ["('keychain', '')", "('keychain', '')", "1//refresh", "5000", "None"]
    files = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert [file for file in files if b"1//refresh" in file.read_bytes()] == []
