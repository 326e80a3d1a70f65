"""What the tests of signing in share: scripted browsers, keychains in a file, the file of an OAuth client."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from pathlib import Path

from cli_support import Desk

__all__ = ["CLIENT_ID", "CLIENT_SECRET", "EMAIL", "KEYCHAINS", "browser", "client_file", "keychain"]

EMAIL = "dev@example.com"
CLIENT_ID = "407408718192-emulator.apps.googleusercontent.com"
CLIENT_SECRET = "GOCSPX-emulator"

# What a person's browser does: opens the page, agrees, goes where it is sent.
_BROWSER = """
import sys, urllib.error, urllib.parse, urllib.request

class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)

def get(url):
    try:
        return opener.open(url)
    except urllib.error.HTTPError as answer:
        return answer

target = get(sys.argv[-1]).headers["Location"]
if "--wrong-state" in sys.argv:
    parts = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(parts.query), state="x" * 43)
    target = parts._replace(query=urllib.parse.urlencode(query)).geturl()
with open(sys.argv[1], "a") as log:
    log.write(f"{get(target).status}\\n")
"""

KEYCHAINS = '''
import json, os
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError


class FileKeychain(KeyringBackend):
    """Stands for the keychain of a desktop, which no test machine has."""

    priority = 5

    def _read(self):
        try:
            with open(os.environ["TEST_KEYCHAIN"]) as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def _write(self, entries):
        with open(os.environ["TEST_KEYCHAIN"], "w") as file:
            json.dump(entries, file)

    def get_password(self, service, username):
        return self._read().get(f"{service}|{username}")

    def set_password(self, service, username, password):
        self._write({**self._read(), f"{service}|{username}": password})

    def delete_password(self, service, username):
        entries = self._read()
        if entries.pop(f"{service}|{username}", None) is None:
            raise PasswordDeleteError("not found")
        self._write(entries)


class LockedKeychain(KeyringBackend):
    priority = 5

    def _locked(self, *arguments):
        raise KeyringLocked("nobody typed the password")

    get_password = set_password = delete_password = _locked
'''


def client_file(folder: Path) -> Path:
    """Return an OAuth client's file as Google's console hands it out."""
    path = folder / "client_secret.json"
    path.write_text(json.dumps({"installed": {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}}))
    return path


def browser(folder: Path, *options: str) -> dict[str, str]:
    """Return the environment in which a scripted browser is opened; it notes the status of its last page."""
    script = folder / "browser.py"
    script.write_text(textwrap.dedent(_BROWSER))
    words = [sys.executable, str(script), str(folder / "pages.txt"), *options]
    return {"BROWSER": f"{shlex.join(words)} %s"}


def pages(folder: Path) -> list[str]:
    """Return the statuses that scripted browsers have seen."""
    path = folder / "pages.txt"
    return path.read_text().split() if path.exists() else []


def keychain(desk: Desk, name: str) -> dict[str, str]:
    """Return the environment in which a keychain of :data:`KEYCHAINS` is the one of this system."""
    folder = desk.home.parent / "keychains"
    folder.mkdir(exist_ok=True)
    (folder / "test_keychains.py").write_text(KEYCHAINS)
    return {
        "PYTHON_KEYRING_BACKEND": f"test_keychains.{name}",
        "PYTHONPATH": f"{desk.environ['PYTHONPATH']}:{folder}",
        "TEST_KEYCHAIN": str(folder / "entries.json"),
    }
