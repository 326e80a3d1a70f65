"""``deploy``: a notebook in emulated Drive, run on an emulated T4, its outputs in both places."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from cli_support import Desk, eventually
from colab_bridge.testing.colab.threaded import ThreadedEmulator
from colab_desk import desk_on

EMAIL = "dev@example.com"
COLAB_ONLY = frozenset(
    {"https://www.googleapis.com/auth/colaboratory", "https://www.googleapis.com/auth/userinfo.email"}
)
DEPLOY_S = 90.0


@pytest.fixture(scope="module")
def desk(colab: ThreadedEmulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_on(colab, tmp_path_factory) as found:
        yield found


def in_drive(colab: ThreadedEmulator, name: str) -> dict[str, Any]:
    """Return the one notebook of that name in Drive."""
    (path,) = [path for path in drive_folder(colab).rglob("*") if path.name == name]
    return dict(json.loads(path.read_text()))


def drive_folder(colab: ThreadedEmulator) -> Path:
    return Path(colab.state.drive_folder(colab.state.account(EMAIL)))


def outputs(notebook: dict[str, Any]) -> str:
    return "".join("".join(out.get("text", "")) for cell in notebook["cells"] for out in cell["outputs"])


def test_a_notebook_is_published_shared_run_and_written_back_to_both_places(
    desk: Desk, colab: ThreadedEmulator
) -> None:
    path = desk.notebook("report.ipynb", "print('sum', 6 * 7)")
    done = desk.run("deploy", "report.ipynb", "--gpu", "T4", "--share-with", "ada@example.org", timeout_s=DEPLOY_S)
    assert done.returncode == 0, done.stderr
    assert "published report.ipynb in Drive" in done.stderr
    assert "shared with ada@example.org" in done.stderr
    assert "outputs are in Drive too" in done.stderr
    assert outputs(json.loads(path.read_text())) == "sum 42\n"
    assert outputs(in_drive(colab, "report.ipynb")) == "sum 42\n"
    (link,) = [word for word in done.stderr.split() if word.startswith("http")]
    (runtime,) = colab.state.runtimes.values()
    parts = urlsplit(link)
    assert parts.path.startswith("/drive/")
    assert "dbu" in parse_qs(parts.query)
    assert parts.fragment.startswith("datalabBackendUrl=")
    assert runtime.endpoint in link


def test_a_second_deployment_updates_the_same_file(desk: Desk, colab: ThreadedEmulator) -> None:
    desk.notebook("twice.ipynb", "print('first')")
    desk.out("deploy", "twice.ipynb", "--gpu", "T4", timeout_s=DEPLOY_S)
    desk.notebook("twice.ipynb", "print('second')")
    done = desk.run("deploy", "twice.ipynb", "--gpu", "T4", timeout_s=DEPLOY_S)
    assert "updated twice.ipynb in Drive" in done.stderr
    assert outputs(in_drive(colab, "twice.ipynb")) == "second\n"


def test_outputs_reach_drive_though_the_daemon_was_killed_during_the_run(desk: Desk, colab: ThreadedEmulator) -> None:
    desk.notebook(
        "long.ipynb",
        "print('begun')\nopen('/content/begun', 'w').close()",
        "import os, time\nwhile not os.path.exists('/content/go'): time.sleep(0.1)\nprint('ended')",
    )
    made = desk.document("deploy", "long.ipynb", "--gpu", "T4", "--detach", timeout_s=DEPLOY_S)["deployment"]
    run_id = made["run"]["id"]
    eventually(lambda: "begun" in desk.run("logs", run_id).stdout, "the run has begun", timeout_s=60, pause_s=0.3)
    pid = desk.daemon_pid()
    assert pid is not None
    psutil.Process(pid).kill()
    desk.out("run", "--gpu", "T4", "--", "touch", "/content/go", timeout_s=DEPLOY_S)
    eventually(
        lambda: outputs(in_drive(colab, "long.ipynb")) == "begun\nended\n",
        "outputs in Drive",
        timeout_s=60,
        pause_s=0.2,
    )
    assert outputs(json.loads((desk.project / "long.ipynb").read_text())) == "begun\nended\n"


def test_a_sign_in_without_drive_names_the_command_and_runs_nothing(desk: Desk, colab: ThreadedEmulator) -> None:
    grant = colab.identity.access_token(account="bob@example.com", scopes=COLAB_ONLY, ttl_s=None)
    colab.state.account("bob@example.com")
    desk.notebook("no.ipynb", "print(1)")
    before = len(colab.state.runtimes)
    said = desk.refusal("deploy", "no.ipynb", "--gpu", "T4", COLAB_BRIDGE_ACCESS_TOKEN=grant.value, timeout_s=DEPLOY_S)

    assert "scope drive.file" in said
    assert said.rstrip().endswith("colab-bridge auth login")
    assert len(colab.state.runtimes) == before


PROGRAM = """
import json
from colab_bridge import AutoColabDeployer
done = AutoColabDeployer().deploy_notebook("api.ipynb", gpu="T4", share_with=["ada@example.org"])
print(json.dumps([done.link, done.created, done.shared, done.problem, str(done.result.status)]))
"""


def test_a_program_deploys_a_notebook(desk: Desk, colab: ThreadedEmulator) -> None:
    desk.notebook("api.ipynb", "print('from a program')")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=desk.project,
        env=desk.environ,
        capture_output=True,
        text=True,
        timeout=DEPLOY_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    link, created, shared, problem, status = json.loads(done.stdout)
    assert "#datalabBackendUrl=" in link
    assert (created, shared, problem, status) == (True, ["ada@example.org"], "", "ok")
    assert outputs(in_drive(colab, "api.ipynb")) == "from a program\n"
