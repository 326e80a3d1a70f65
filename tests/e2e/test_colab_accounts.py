"""One user with two Google accounts: every runtime of both is seen, used and ended from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auth_support import EMAIL, browser, client_file
from cli_support import Desk, desk_in
from colab_bridge.testing.colab import Consent
from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_browser import opened_in_a_browser

WORK = "ada@work.example"
START_S = 90.0


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Signed in with both; the private account is the one in use."""
    folder = tmp_path_factory.mktemp("desk")
    with desk_in(folder) as found:
        found.environ |= {**colab.urls, "HOME": str(folder / "user"), "NO_PROXY": "127.0.0.1"}
        for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
            found.environ.pop(name, None)
        (folder / "user").mkdir()
        for email, name in ((EMAIL, "private"), (WORK, "work")):
            colab.identity.consent = Consent(account=email)
            client = ("--client", str(client_file(folder)))
            found.out("auth", "login", *client, "--name", name, **browser(folder))
        found.out("auth", "use", "private")
        yield found
    assert dict(colab.state.runtimes) == {}


@pytest.fixture
def theirs(colab: ThreadedEmulator) -> str:
    """A runtime that a browser has opened with the account that is not in use."""
    return opened_in_a_browser(colab, WORK)


def row_of(text: str, runtime: str) -> list[str]:
    """Return the cells of a runtime's row in the table of ``ps --all``."""
    (line,) = [line for line in text.splitlines() if line.startswith(runtime)]
    return [cell for cell in line.split("  ") if cell]


def test_ps_shows_the_runtimes_of_all_accounts_with_age_and_rate(
    desk: Desk, colab: ThreadedEmulator, theirs: str
) -> None:
    desk.out("new", "-s", "mine", "--gpu", "T4", timeout_s=START_S)
    (mine,) = set(colab.state.runtimes) - {theirs}
    desk.out("usage")  # the rate of a machine that is alone in its account is learned then
    done = desk.run("ps", "--all", timeout_s=START_S)
    assert f"account {EMAIL}: 1 Colab runtime\n" in done.stderr
    assert f"account {WORK}: 1 Colab runtime\n" in done.stderr
    runtime, hardware, rate, age, session, _, account = [cell.strip() for cell in row_of(done.stdout, mine)]
    assert (runtime, hardware, session, account) == (mine, "T4", "mine", EMAIL)
    assert float(rate) > 0
    assert age != "-"
    _, hardware, _, age, session, made_by, account = [cell.strip() for cell in row_of(done.stdout, theirs)]
    assert (hardware, session, made_by, account) == ("CPU", "-", "browser or another program", WORK)
    assert age != "-"
    desk.out("stop", "mine", timeout_s=START_S)
    desk.out("stop", theirs, timeout_s=START_S)


def test_a_runtime_of_an_account_that_is_not_in_use_is_adopted_and_ended(
    desk: Desk, colab: ThreadedEmulator, theirs: str
) -> None:
    done = desk.run("adopt", theirs, "-s", "taken", timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    assert f"account {WORK}" in done.stderr.splitlines()
    assert desk.out("exec", "-s", "taken", "6 * 7", timeout_s=START_S) == "42\n"
    desk.out("stop", "taken", timeout_s=START_S)
    assert dict(colab.state.runtimes) == {}


def test_an_account_that_cannot_be_asked_is_one_line_and_hides_no_other(
    desk: Desk, colab: ThreadedEmulator, theirs: str, tmp_path: Path
) -> None:
    kept = dict(colab.identity.accesses)
    colab.identity.break_refresh(EMAIL)
    for value, grant in kept.items():
        if grant.account == EMAIL:
            del colab.identity.accesses[value]
    done = desk.run("ps", "--all", timeout_s=START_S)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(f"account {EMAIL}")]
    assert "expired or was revoked" in line
    assert f"colab-bridge auth login --account {EMAIL}" in line
    assert row_of(done.stdout, theirs)
    colab.identity.consent = Consent(account=EMAIL)
    desk.out("auth", "login", "--account", EMAIL, "--client", str(client_file(tmp_path)), **browser(tmp_path))
    desk.out("stop", theirs, timeout_s=START_S)
