"""Signing in, as whole processes: loopback with a scripted browser, pasted addresses, refusals, several processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pexpect
import psutil
import pytest

from auth_support import CLIENT_ID, CLIENT_SECRET, EMAIL, browser, client_file, keychain, pages
from cli_support import Desk
from colab_bridge.testing.colab import Consent
from colab_bridge.testing.colab.threaded import ThreadedEmulator, threaded_emulator

COLAB = "https://www.googleapis.com/auth/colaboratory"
DRIVE = "https://www.googleapis.com/auth/drive.file"
ACCOUNT_KEYS = {"account", "name", "current", "scopes", "state", "store", "signed_in_at", "origin"}


@pytest.fixture
def colab() -> Iterator[ThreadedEmulator]:
    with threaded_emulator() as found:
        yield found
        # Of signing in alone: ports are used again, and a daemon of another test may still look for its machine here.
        assert [str(violation) for violation in found.violations if violation.service == "oauth"] == []


@pytest.fixture
def desk(tmp_path: Path, colab: ThreadedEmulator) -> Iterator[Desk]:
    found = Desk(tmp_path)
    try:
        found.environ |= {**colab.urls, "HOME": str(tmp_path / "user"), "NO_PROXY": "127.0.0.1"}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
            found.environ.pop(name, None)
        (tmp_path / "user").mkdir()
        yield found
    finally:
        if found.processes():  # only few of these tests need a daemon
            found.end()


def sign_in(desk: Desk, tmp_path: Path, *options: str, **environ: str) -> Any:
    return desk.document(
        "auth", "login", "--client", str(client_file(tmp_path)), *options, **browser(tmp_path), **environ
    )


def count(colab: ThreadedEmulator, path: str) -> int:
    return sum(record.path == path for record in colab.requests)


def visit(url: str) -> str:
    """Open a page without following where it leads, and return that address."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments: Any) -> None:
            return None

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)
    try:
        opener.open(url, timeout=10)
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.headers["Location"])
    raise AssertionError("the page leads nowhere")


def test_one_consent_in_the_browser_signs_in(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    done = sign_in(desk, tmp_path)
    assert set(done) == ACCOUNT_KEYS | {"missing", "note"}
    assert (done["account"], done["current"], done["missing"], done["store"]) == (EMAIL, True, [], "file")
    assert pages(tmp_path) == ["200"]
    assert count(colab, "/o/oauth2/v2/auth") == 1
    who = desk.document("whoami")
    assert set(who) == {"account", "source", "scopes", "expires_at", "checked"}
    assert (who["account"], who["checked"]) == (EMAIL, True)
    assert desk.out("whoami") == f"{EMAIL}\n"


def test_where_the_sign_in_is_kept_is_said_in_one_line(desk: Desk, tmp_path: Path) -> None:
    done = desk.run("auth", "login", "--client", str(client_file(tmp_path)), **browser(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"signed in as {EMAIL}; allowed: Google Colab and your e-mail address" in done.stderr
    assert done.stderr.count("this system has no keychain that can be used; kept in the encrypted file") == 1


def test_the_client_is_given_once(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    sign_in(desk, tmp_path)
    client_file(tmp_path).unlink()
    desk.out("auth", "logout")
    assert desk.document("auth", "login", **browser(tmp_path))["account"] == EMAIL


def test_without_a_client_the_way_to_one_is_shown(desk: Desk) -> None:
    said = desk.refusal("auth", "login", status=2)
    assert said.splitlines()[-1].strip() == "colab-bridge auth login --client FILE"


def test_the_address_is_pasted_where_there_is_no_browser(desk: Desk, tmp_path: Path) -> None:
    command = desk.argv("auth", "login", "--client", str(client_file(tmp_path)), "--no-browser", "--json")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=desk.project, env=desk.environ, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            url = next(line for line in map(bytes.decode, process.stderr) if "/o/oauth2/v2/auth?" in line).strip()
            process.stdin.write(b"nonsense\n" + visit(url).encode() + b"\n")
            process.stdin.flush()
            out, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert json.loads(out)["account"] == EMAIL
    assert b"that is not the address that the browser ended at" in said


def test_an_answer_with_a_wrong_state_signs_nobody_in(desk: Desk, tmp_path: Path) -> None:
    options = ["--client", str(client_file(tmp_path)), "--timeout", "3"]
    done = desk.run("auth", "login", *options, **browser(tmp_path, "--wrong-state"))
    assert done.returncode == 77
    assert pages(tmp_path) == ["400"]
    assert "1 answers to another question were turned away" in done.stderr
    assert desk.run("auth", "status").returncode == 77


def test_a_box_that_was_not_ticked_is_named(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    colab.identity.consent = Consent(withheld=frozenset({COLAB}))
    done = desk.run("auth", "login", "--client", str(client_file(tmp_path)), **browser(tmp_path))
    assert done.returncode == 77
    assert done.stderr.splitlines()[-2:] == [
        "colab-bridge: the box for Google Colab was not ticked on Google's page (scope colaboratory)",
        "  colab-bridge auth login, and tick it this time",
    ]
    colab.identity.consent = Consent()
    assert sign_in(desk, tmp_path)["missing"] == []


def test_drive_may_be_left_out_and_is_asked_for_later(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    colab.identity.consent = Consent(withheld=frozenset({DRIVE}))
    assert sign_in(desk, tmp_path, "--drive")["missing"] == [DRIVE]
    colab.identity.consent = Consent()
    assert DRIVE in desk.document("auth", "login", "--drive", **browser(tmp_path))["scopes"]
    assert count(colab, "/o/oauth2/v2/auth") == 2


def test_a_revoked_sign_in_is_one_line_with_the_next_command(
    desk: Desk, colab: ThreadedEmulator, tmp_path: Path
) -> None:
    sign_in(desk, tmp_path)
    colab.identity.break_refresh(EMAIL)
    colab.identity.accesses.clear()
    said = desk.refusal("whoami", status=77)
    assert said == (
        f"colab-bridge: the sign-in of {EMAIL} has expired or was revoked\n"
        f"  colab-bridge auth login --account {EMAIL}\n"
    )
    assert count(colab, "/revoke") == 0
    assert desk.document("auth", "list")["accounts"][0]["state"] == "revoked"
    assert desk.run("auth", "status").returncode == 77
    assert desk.document("auth", "login", "--account", EMAIL, **browser(tmp_path))["state"] == "ok"


def test_processes_that_renew_at_once_cause_one_refresh(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    sign_in(desk, tmp_path)
    for file in (desk.home / "state" / "credentials").glob("access-*"):
        file.unlink()
    before = count(colab, "/token")
    processes = [desk.popen("whoami", "--json") for _ in range(4)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    assert [answer["account"] for answer in answers] == [EMAIL] * 4
    assert len({answer["expires_at"] for answer in answers}) == 1
    assert count(colab, "/token") == before + 1


def test_accounts_are_listed_chosen_and_signed_out(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    sign_in(desk, tmp_path, "--name", "private")
    colab.identity.consent = Consent(account="ada@work.example")
    sign_in(desk, tmp_path, "--name", "work")
    found = desk.document("auth", "list")
    assert set(found) == {"accounts", "current"}
    assert [(one["account"], one["name"]) for one in found["accounts"]] == [
        (EMAIL, "private"),
        ("ada@work.example", "work"),
    ]
    assert found["current"] == "ada@work.example"
    assert set(desk.document("auth", "use", "priv")) == ACCOUNT_KEYS
    assert desk.out("whoami") == f"{EMAIL}\n"
    desk.out("config", "set", "account", "work", "--project")
    assert desk.out("whoami") == "ada@work.example\n"
    assert desk.document("auth", "logout", "--all") == {"signed_out": [EMAIL, "ada@work.example"], "current": None}
    assert count(colab, "/revoke") == 0


def test_status_tells_programs_what_there_is(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    done = desk.run("auth", "status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 77
    assert set(found) == {"source", "account", "accounts", "client_id", "adc", "google_colab_cli", "place"}
    assert (found["source"], found["accounts"]) == (None, [])
    sign_in(desk, tmp_path)
    found = desk.document("auth", "status")
    assert (found["source"], found["account"], found["client_id"]) == ("login", EMAIL, CLIENT_ID)
    given = desk.document("auth", "status", COLAB_BRIDGE_ACCESS_TOKEN=colab.access_token)
    assert given["source"] == "given"
    assert colab.access_token not in json.dumps(given)


def test_a_google_colab_cli_sign_in_is_offered_and_never_taken_silently(
    desk: Desk, colab: ThreadedEmulator, tmp_path: Path
) -> None:
    grant = colab.identity.refresh_token(
        client_id=CLIENT_ID, account=EMAIL, scopes=frozenset({COLAB, f"{COLAB}.email"})
    )
    grant.scopes = frozenset({COLAB, "https://www.googleapis.com/auth/userinfo.email"})
    path = tmp_path / "user" / ".config" / "colab-cli" / "token.json"
    path.parent.mkdir(parents=True)
    members = {"refresh_token": grant.value, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "token": "t"}
    path.write_text(json.dumps(members))
    assert desk.run("auth", "status").returncode == 77
    assert "auth login --from-google-colab-cli" in desk.run("auth", "status").stderr
    desk.refusal("auth", "login", status=2)
    assert count(colab, "/token") == 0
    done = desk.document("auth", "login", "--from-google-colab-cli")
    assert (done["account"], done["origin"]) == (EMAIL, "google-colab-cli")
    assert json.loads(path.read_text()) == members


def test_with_a_keychain_the_sign_in_is_in_it_and_in_no_file(desk: Desk, tmp_path: Path) -> None:
    environ = keychain(desk, "FileKeychain")
    done = sign_in(desk, tmp_path, **environ)
    assert (done["store"], done["note"]) == ("keychain", "")
    entries = json.loads(Path(environ["TEST_KEYCHAIN"]).read_text())
    assert any("refresh_token" in value for value in entries.values())
    assert not list((desk.home / "state" / "credentials").glob("vault*"))
    assert desk.out("whoami", **environ) == f"{EMAIL}\n"
    desk.out("auth", "logout", **environ)
    assert not any(
        "refresh_token" in value for value in json.loads(Path(environ["TEST_KEYCHAIN"]).read_text()).values()
    )


def test_a_keychain_that_cannot_be_used_is_replaced_by_the_file_and_that_is_said(desk: Desk, tmp_path: Path) -> None:
    done = sign_in(desk, tmp_path, **keychain(desk, "LockedKeychain"))
    assert done["store"] == "file"
    assert "KeyringLocked; kept in the encrypted file" in done["note"]
    assert desk.out("whoami", **keychain(desk, "LockedKeychain")) == f"{EMAIL}\n"


def test_a_sign_in_in_a_keychain_that_is_out_of_reach_names_the_way_out(desk: Desk, tmp_path: Path) -> None:
    sign_in(desk, tmp_path, **keychain(desk, "FileKeychain"))
    said = desk.refusal("whoami", status=77)
    assert "the keychain of this system cannot be reached from here" in said
    assert "colab-bridge config set credential_store file" in said


def test_doctor_names_the_account_and_the_place_of_secrets(desk: Desk, tmp_path: Path) -> None:
    sign_in(desk, tmp_path)
    checks = {check["id"]: check for check in json.loads(desk.run("doctor", "--json").stdout)["checks"]}
    assert checks["account"]["text"].startswith(f"Google account: {EMAIL}, allowed: Google Colab")
    assert checks["secrets"]["text"].startswith("secrets are kept in the encrypted file")


def test_secrets_are_set_from_a_pipe_and_allowed_for_one_project(desk: Desk) -> None:
    made = desk.document("secret", "set", "HF_TOKEN", stdin="hf_very_secret\n")
    assert set(made) == {"name", "allowed", "projects", "store", "set_at"}
    assert (made["name"], made["allowed"]) == ("HF_TOKEN", False)
    assert desk.document("secret", "allow", "HF_TOKEN")["projects"] == [str(desk.project)]
    assert [one["allowed"] for one in desk.document("secret", "list")["secrets"]] == [True]
    other = desk.home.parent / "other"
    (other / ".colab-bridge").mkdir(parents=True)
    assert [one["allowed"] for one in desk.document("secret", "list", cwd=other)["secrets"]] == [False]
    assert desk.document("secret", "deny", "HF_TOKEN")["allowed"] is False
    assert desk.document("secret", "rm", "HF_TOKEN") == {"removed": "HF_TOKEN"}
    assert desk.document("secret", "list") == {"secrets": []}


def test_a_value_on_the_command_line_is_refused(desk: Desk) -> None:
    said = desk.refusal("secret", "set", "HF_TOKEN=hf_very_secret", status=2)
    assert "hf_very_secret" not in said
    assert "colab-bridge secret set HF_TOKEN" in said


def test_an_empty_value_is_refused(desk: Desk) -> None:
    assert "is empty" in desk.refusal("secret", "set", "HF_TOKEN", status=2)


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a pseudo-terminal")
def test_the_first_cell_on_a_gpu_takes_one_command_and_one_consent(
    desk: Desk, colab: ThreadedEmulator, tmp_path: Path
) -> None:
    environ = desk.environ | browser(tmp_path) | {"COLAB_BRIDGE_OAUTH_CLIENT": str(client_file(tmp_path))}
    code = "print('on', 6 * 7, input('name? '))"
    program, *argv = desk.argv("exec", "--provider", "colab", "--gpu", "T4", code)
    child = pexpect.spawn(program, argv, cwd=str(desk.project), env=environ, encoding="utf-8", timeout=90)
    try:
        child.expect("nobody is signed in to Google")
        child.expect(f"signed in as {EMAIL}")
        child.expect("name\\? ")
        child.sendline("Ada")  # for the program: the sign-in does not read the terminal any more
        child.expect("on 42 Ada")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert count(colab, "/o/oauth2/v2/auth") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pexpect needs a pseudo-terminal")
def test_a_deployment_asks_for_drive_in_the_same_consent(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    environ = desk.environ | browser(tmp_path) | {"COLAB_BRIDGE_OAUTH_CLIENT": str(client_file(tmp_path))}
    desk.notebook("a.ipynb", "print('in', 'Drive')")
    program, *argv = desk.argv("deploy", "--provider", "colab", "a.ipynb")
    child = pexpect.spawn(program, argv, cwd=str(desk.project), env=environ, encoding="utf-8", timeout=90)
    try:
        child.expect(f"signed in as {EMAIL}; allowed: Google Colab, Google Drive files of this app and your e-mail")
        child.expect("published a.ipynb in Drive")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 0
    assert count(colab, "/o/oauth2/v2/auth") == 1


PROGRAM = """
import sys
from colab_bridge import CredentialManager
manager = CredentialManager()
print(manager.setup_credentials(sys.argv[1] if len(sys.argv) > 1 else None))
print(manager.current, [account.email for account in manager.accounts()])
"""


def test_a_program_signs_in_once_and_finds_it_the_next_time(
    desk: Desk, colab: ThreadedEmulator, tmp_path: Path
) -> None:
    environ = desk.environ | browser(tmp_path)
    first = [sys.executable, "-c", PROGRAM, str(client_file(tmp_path))]
    for command in (first, [sys.executable, "-c", PROGRAM]):
        done = subprocess.run(
            command, cwd=desk.project, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-2:] == [EMAIL, f"{EMAIL} ['{EMAIL}']"]
    assert count(colab, "/o/oauth2/v2/auth") == 1


USERDATA = """
from google.colab import userdata
value = userdata.get("HF_TOKEN")
print("length", len(value))
print("it is", value)
value
"""


def test_code_gets_an_allowed_secret_and_its_value_is_nowhere_afterwards(
    desk: Desk, colab: ThreadedEmulator, tmp_path: Path
) -> None:
    desk.environ["COLAB_BRIDGE_ACCESS_TOKEN"] = colab.access_token
    desk.out("secret", "set", "HF_TOKEN", stdin="hf_4f9c8e7d6b5a")
    notebook = desk.notebook("a.ipynb", USERDATA)
    refused = desk.run("exec", "--provider", "colab", USERDATA)
    assert refused.returncode == 1
    assert "colab-bridge secret allow HF_TOKEN" in refused.stdout + refused.stderr
    desk.out("secret", "allow", "HF_TOKEN")
    done = desk.run("exec", "--provider", "colab", USERDATA)
    assert done.returncode == 0, done.stderr
    assert "length 15" in done.stdout
    assert "it is [secret hidden by colab-bridge]" in done.stdout
    desk.out("run", "--provider", "colab", "a.ipynb")
    assert "it is [secret hidden by colab-bridge]" in notebook.read_text()
    files = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    found = [name for name, data in files.items() if b"hf_4f9c8e7d6b5a" in data or colab.access_token.encode() in data]
    assert found == []
    assert "hf_4f9c8e7d6b5a" not in refused.stdout + refused.stderr + done.stdout + done.stderr


class ProcessWatch:
    """Notes the arguments of every process on this machine, as any user of it can."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            for process in psutil.process_iter(["cmdline"]):
                self.seen.add("\0".join(process.info["cmdline"] or ()))


def test_no_token_and_no_secret_shows_anywhere(desk: Desk, colab: ThreadedEmulator, tmp_path: Path) -> None:
    said: list[str] = []

    def run(*argv: str, stdin: str = "", **environ: str) -> None:
        done = desk.run(*argv, stdin=stdin, **environ)
        said.append(done.stdout + done.stderr)
        assert done.returncode == 0, done.stderr

    given = {"COLAB_BRIDGE_ACCESS_TOKEN": colab.access_token}
    with ProcessWatch() as watch:
        run("auth", "login", "--client", str(client_file(tmp_path)), "--drive", **browser(tmp_path))
        run("whoami", "--json")
        run("secret", "set", "HF_TOKEN", "--allow", stdin="hf_4f9c8e7d6b5a")
        run("secret", "list")
        run("doctor")
        # A daemon, a run and a schedule that are begun with a ready token.
        run("exec", "print('hello')", **given)
        run("run", "--every", "7d", str(desk.write("job.py", "print('again')")), **given)
        run("whoami", **given)
        run("auth", "status", "--json", **given)
        run("status", "--json", **given)
        identity = colab.identity
        secrets = {*identity.refreshes, *identity.accesses, colab.access_token, CLIENT_SECRET, "hf_4f9c8e7d6b5a"}
        run("auth", "logout", "--revoke")
    assert len(secrets) == 5
    (tmp_path / "client_secret.json").unlink()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.name == "daemon.log" for file in files)
    assert any(file.name.startswith("state.db") and b"job.py" in file.read_bytes() for file in files)
    assert any("colab-bridge" in line or "whoami" in line for line in watch.seen)
    places = {str(file): file.read_bytes() for file in files}
    places |= {"output": "\n".join(said).encode(), "processes": "\n".join(watch.seen).encode()}
    found = [place for place, data in places.items() for secret in secrets if secret.encode() in data]
    assert found == []
    codes = re.findall(rb"[?&]code=4[^&\s]+", b"\n".join(places.values()))
    assert codes == []
