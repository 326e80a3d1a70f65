"""Google's own client works against the emulator as it is, apart from the addresses."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from google_colab_cli import EmulatorProcess, GoogleColabCli, run_emulator, skip_unless_installed

skip_unless_installed()


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorProcess]:
    """An emulator for all tests here, none of which may break the protocol."""
    with run_emulator() as running:
        yield running
        assert running.get("/violations") == {"violations": []}


@pytest.fixture(scope="module")
def colab(emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> GoogleColabCli:
    """A user with the session ``shared`` on a CPU machine."""
    user = GoogleColabCli(tmp_path_factory.mktemp("user"), emulator)
    assert "Session READY" in user("new", "-s", "shared").stdout
    return user


@pytest.fixture
def other(colab: GoogleColabCli, emulator: EmulatorProcess, tmp_path: Path) -> Iterator[GoogleColabCli]:
    """A user with another home on the same account; what they leave behind is taken away."""
    before = endpoints(emulator)
    yield GoogleColabCli(tmp_path / "other", emulator)
    for endpoint in endpoints(emulator) - before:
        emulator.post(f"/vm/{endpoint}/prune", {})


def endpoints(emulator: EmulatorProcess) -> set[str]:
    return {runtime["endpoint"] for runtime in emulator.runtimes()}


def test_a_session_is_listed_with_what_it_is(colab: GoogleColabCli, emulator: EmulatorProcess) -> None:
    endpoint = emulator.runtimes()[0]["endpoint"]
    line = f"[shared] {endpoint} | Hardware: CPU | Shape: Standard | Variant: DEFAULT"
    assert line in colab("sessions").stdout
    assert f"{line} | Status: IDLE" in colab("status").stdout


def test_code_runs_in_content_and_variables_stay(colab: GoogleColabCli) -> None:
    assert colab("exec", "-s", "shared", stdin="x = 20\nprint(x + 1)").stdout == "21\n"
    assert colab("exec", "-s", "shared", stdin="import os\nprint(x * 2, os.getcwd())").stdout == "40 /content\n"


def test_an_error_of_the_code_is_shown(colab: GoogleColabCli) -> None:
    assert "ZeroDivisionError" in colab("exec", "-s", "shared", stdin="1 / 0").stderr


def test_a_restarted_kernel_has_forgotten(colab: GoogleColabCli) -> None:
    colab("exec", "-s", "shared", stdin="kept = 1")
    colab("restart-kernel", "-s", "shared")
    assert colab("exec", "-s", "shared", stdin="print('kept' in dir())").stdout == "False\n"


def test_a_file_goes_there_and_comes_back(colab: GoogleColabCli, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "sent.bin").write_bytes(content)
    colab("upload", "-s", "shared", str(tmp_path / "sent.bin"), "content/data.bin")
    assert "data.bin" in colab("ls", "-s", "shared", "content").stdout
    check = "import hashlib; print(hashlib.md5(open('data.bin', 'rb').read()).hexdigest())"
    seen = colab("exec", "-s", "shared", stdin=check).stdout
    colab("download", "-s", "shared", "content/data.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == content
    assert len(seen.strip()) == 32
    colab("rm", "-s", "shared", "content/data.bin")
    assert "data.bin" not in colab("ls", "-s", "shared", "content").stdout


def test_usage_shows_the_units(colab: GoogleColabCli) -> None:
    lines = colab("usage").stdout.splitlines()
    assert lines[0].startswith("Current balance: ")
    assert lines[1:] == ["Usage rate: 0.08/hr", "Active assignments: 1"]


def test_a_script_runs_on_a_machine_of_its_own_that_is_given_back(
    other: GoogleColabCli, emulator: EmulatorProcess, tmp_path: Path
) -> None:
    before = emulator.runtimes()
    script = tmp_path / "script.py"
    script.write_text("import subprocess, sys\nprint(sys.argv)\nsubprocess.run(['nvidia-smi', '-L'])\nsys.exit(3)\n")
    ended = other("run", "--gpu", "T4", str(script), "a", "--b", status=3)
    assert "['script.py', 'a', '--b']" in ended.stdout
    assert emulator.runtimes() == before


def test_a_card_is_really_there(other: GoogleColabCli) -> None:
    other("new", "-s", "gpu", "--gpu", "T4")
    assert "Hardware: T4" in other("status", "-s", "gpu").stdout
    look = "import subprocess; print(subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True).stdout)"
    assert "Tesla T4" in other("exec", "-s", "gpu", stdin=look).stdout


def test_drive_is_mounted_once_the_user_has_agreed(other: GoogleColabCli) -> None:
    other("new", "-s", "drive")
    with other.start("drivemount", "-s", "drive") as mounting:
        assert mounting.stdout is not None
        assert mounting.stdin is not None
        shown = ""
        while not shown.strip().startswith("http"):
            shown = mounting.stdout.readline()
            assert shown, "it ended without asking for consent"
        assert "close this page" in visit(shown.strip())
        mounting.stdin.write("\n")
        mounting.stdin.close()
        rest = mounting.stdout.read()
        assert mounting.wait(60) == 0
    assert "Credentials propagated" in rest
    assert "Mounted at /content/drive" in rest


def visit(url: str) -> str:
    """Open a page as a browser does."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as page:
        return str(page.read().decode())


def test_stop_gives_the_machine_back(other: GoogleColabCli, emulator: EmulatorProcess) -> None:
    before = endpoints(emulator)
    other("new", "-s", "short")
    [endpoint] = endpoints(emulator) - before
    assert "Session terminated" in other("stop", "-s", "short").stdout
    state = emulator.get("/state")
    assert state["ended"][endpoint] == "unassigned"
    assert "short" not in other("sessions").stdout


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ("too_many", "Allocation refused"),
        ("not_entitled", "Backend rejected accelerator"),
        ("capacity", "Service Unavailable"),
    ],
)
def test_a_refusal_is_understood(other: GoogleColabCli, emulator: EmulatorProcess, refusal: str, said: str) -> None:
    emulator.post("/faults", {"kind": "refuse", "method": "POST", "path": "/tun/m/assign", "refusal": refusal})
    ended = other("new", "-s", "no", "--gpu", "T4", status=1)
    assert said in ended.stdout + ended.stderr


def test_a_machine_made_elsewhere_is_listed_as_a_stranger(other: GoogleColabCli) -> None:
    assert "[?] m-s-kkb" in other("sessions").stdout


def test_a_machine_that_was_pruned_is_forgotten(other: GoogleColabCli, emulator: EmulatorProcess) -> None:
    before = endpoints(emulator)
    other("new", "-s", "idle")
    [endpoint] = endpoints(emulator) - before
    emulator.post(f"/vm/{endpoint}/prune", {})
    assert "Pruned 1 stale" in other("status").stdout
    assert emulator.get("/state")["ended"][endpoint] == "idle"


def test_a_token_near_its_end_is_renewed(other: GoogleColabCli, emulator: EmulatorProcess) -> None:
    emulator.post("/tokens", {"ttl_s": 120})
    try:
        other("new", "-s", "brief")
        emulator.post("/tokens", {"expire": True})
        assert other("exec", "-s", "brief", stdin="print(7)").stdout == "7\n"
    finally:
        emulator.post("/tokens", {"ttl_s": 3600})
