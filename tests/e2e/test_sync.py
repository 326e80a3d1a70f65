"""The file sync as a user meets it: an isolated runtime with a folder of its own, and not one command for files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pexpect
import psutil
import pytest

from cli_support import Desk, desk_in, eventually

EXAMPLE = Path(__file__).parents[2] / "examples" / "sales"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        shutil.copytree(EXAMPLE, made.project, dirs_exist_ok=True)
        made.session = made.document("new", "--isolated")["name"]
        made.workspace = Path(made.document("sessions")["sessions"][0]["root"])
        yield made


def run(desk: Desk, code: str):
    return desk.run("exec", "-s", desk.session, code)


def test_the_example_reads_its_data_and_its_results_are_at_home(desk: Desk) -> None:
    done = desk.run("run", "analysis.ipynb", "-s", desk.session, timeout_s=110)
    assert done.returncode == 0, done.stderr
    assert (desk.project / "outputs" / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (desk.workspace / "data" / "sales.csv").read_bytes() == (desk.project / "data" / "sales.csv").read_bytes()
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sync:")]
    assert line.startswith("sync: 3 up, 2 down: outputs/forecast.csv, outputs/plot.png")
    assert "analysis.ipynb" not in line
    there = desk.workspace / "analysis.ipynb"
    eventually(lambda: there.read_bytes() == (desk.project / "analysis.ipynb").read_bytes(), "the notebook went up too")


def test_code_sees_a_saved_file_at_once_and_its_result_is_here_when_the_command_ends(desk: Desk) -> None:
    for number in range(3):
        desk.write("input.txt", f"version {number}")
        done = run(desk, "open('result.txt', 'w').write(open('input.txt').read() + '!')")
        assert done.returncode == 0, done.stderr
        assert (desk.project / "result.txt").read_text() == f"version {number}!"
        assert "result.txt" in done.stderr


def test_an_edited_module_of_the_project_is_seen_by_the_next_cell(desk: Desk) -> None:
    desk.write("mine.py", "VALUE = 1\n")
    assert run(desk, "import mine; print(mine.VALUE)").stdout == "1\n"
    desk.write("mine.py", "VALUE = 2\n")
    assert run(desk, "print(mine.VALUE)").stdout == "2\n"


def test_a_file_that_stays_here_is_named_with_the_command_that_takes_it_along(desk: Desk) -> None:
    desk.write("dist/table.csv", "a,b\n")
    done = run(desk, "open('dist/table.csv')")
    assert "colab-bridge sync include dist/table.csv" in done.stderr
    desk.out("sync", "include", "dist/table.csv", "-s", desk.session)
    assert run(desk, "print(open('dist/table.csv').read())").stdout == "a,b\n\n"


def test_also_a_script_and_a_command_that_miss_such_a_file_are_followed_by_that_command(desk: Desk) -> None:
    desk.write("build/my table.csv", "a,b\n")
    desk.write("reads.py", "open('build/my table.csv')\n")
    for target in (["reads.py"], ["-m", "reads"], ["--", "cat", "build/my table.csv"]):
        done = desk.run("run", "-s", desk.session, *target)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if "stays here" in line]
        assert line.endswith("colab-bridge sync include 'build/my table.csv'")


def test_the_status_lists_what_stays_here_and_what_cannot_travel_with_why_and_what_to_do(desk: Desk) -> None:
    desk.write(".env", "TOKEN=1")
    os.mkfifo(desk.project / "pipe")
    for number in range(30):
        desk.write(f"keys/{number}.pem", "secret")
    try:
        desk.out("sync", "-s", desk.session)
        lines = desk.out("sync", "status", "-s", desk.session).splitlines()
    finally:
        (desk.project / "pipe").unlink()
        shutil.rmtree(desk.project / "keys")
    assert "blocked   pipe: here: it is a device, a socket or a pipe" in lines
    (at,) = [number for number, line in enumerate(lines) if line.startswith("stays here (")]
    count = int(lines[at][len("stays here (") :].rstrip("):"))
    assert count >= 31
    assert lines[-1] == f"  and {count - 20} more: colab-bridge sync status --json"
    shown = [line for line in lines[at + 1 : -1] if ".pem: it may hold a secret (*.pem)" in line]
    assert all("; to take it along: colab-bridge sync include keys/" in line for line in shown)
    assert shown != []


def test_what_both_sides_changed_is_kept_in_both_versions(desk: Desk) -> None:
    desk.write("both.txt", "first")
    run(desk, "1")
    desk.out("sync", "pause", "-s", desk.session)
    desk.write("both.txt", "mine")
    paused = run(desk, "open('both.txt', 'w').write('theirs')")
    assert "paused" in paused.stderr
    desk.out("sync", "resume", "-s", desk.session)
    desk.out("sync", "-s", desk.session)
    assert (desk.project / "both.txt").read_text() == "mine"
    (copy,) = desk.document("sync", "conflicts", "both.txt", "-s", desk.session)["conflicts"]
    assert Path(copy["kept"]).read_text() == "theirs"
    shown = desk.out("sync", "conflicts", copy["id"], "-s", desk.session)
    assert "-mine" in shown
    assert "+theirs" in shown
    desk.out("sync", "resolve", "--all", "--take", "kept", "-s", desk.session)
    assert (desk.project / "both.txt").read_text() == "theirs"
    assert run(desk, "print(open('both.txt').read())").stdout == "theirs\n"
    assert desk.document("sync", "conflicts", "-s", desk.session)["conflicts"] == []
    desk.out("sync", "resolve", copy["id"], "--take", "kept", "-s", desk.session)
    assert (desk.project / "both.txt").read_text() == "theirs"
    assert (desk.workspace / "both.txt").read_text() == "theirs"


def test_a_deletion_of_code_goes_to_the_trash_and_comes_back(desk: Desk) -> None:
    desk.write("doomed.txt", "precious")
    run(desk, "import os; os.remove('doomed.txt')")
    assert not (desk.project / "doomed.txt").exists()
    items = desk.document("sync", "trash", "list", "-s", desk.session)["items"]
    entry = next(item["id"] for item in items if item["path"] == "doomed.txt")
    desk.out("sync", "trash", "restore", entry, "-s", desk.session)
    assert (desk.project / "doomed.txt").read_text() == "precious"
    assert (desk.workspace / "doomed.txt").read_text() == "precious"


def test_what_waits_for_a_person_is_shown_and_approved(desk: Desk) -> None:
    desk.write("Makefile", "all:\n\ttrue\n")
    done = run(desk, "open('Makefile', 'w').write('all:\\n\\tcurl evil\\n')")
    assert "held (G2)" in done.stderr
    assert "curl" not in (desk.project / "Makefile").read_text()
    status = desk.document("sync", "status", "-s", desk.session)
    (hold,) = status["holds"]
    desk.out("sync", "reject", hold["id"], "-s", desk.session)
    assert "curl" not in (desk.workspace / "Makefile").read_text()


def test_single_files_go_both_ways(desk: Desk, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "blob.bin").write_bytes(content)
    desk.out("upload", str(tmp_path / "blob.bin"), "inbox/blob.bin", "-s", desk.session)
    assert (desk.workspace / "inbox" / "blob.bin").read_bytes() == content
    names = [entry["name"] for entry in desk.document("ls", "inbox", "-s", desk.session)["entries"]]
    assert names == ["blob.bin"]
    desk.out("download", "inbox/blob.bin", str(tmp_path / "back.bin"), "-s", desk.session)
    assert (tmp_path / "back.bin").read_bytes() == content
    desk.out("rm", "inbox", "-r", "-s", desk.session)
    assert "there is no" in desk.refusal("ls", "inbox", "-s", desk.session)


def edited(desk: Desk, path: str, editor: str) -> str:
    """Edit a file of the runtime in a terminal with a command as the editor; returns what was shown."""
    command, *rest = desk.argv("edit", path, "-s", desk.session)
    child = pexpect.spawn(
        command,
        rest,
        cwd=str(desk.project),
        env=desk.environ | {"VISUAL": editor, "TMPDIR": str(desk.project.parent)},
        timeout=60,
        encoding="utf-8",
    )
    try:
        return str(child.read())
    finally:
        child.close(force=True)


def test_a_file_of_the_runtime_is_edited_and_no_version_of_it_is_lost(desk: Desk) -> None:
    desk.write("edited.txt", "one")
    run(desk, "1")
    there = desk.workspace / "edited.txt"
    assert "not changed" in edited(desk, "edited.txt", "true")
    append = desk.project.parent / "append"
    append.write_text("#!/bin/sh\nprintf ' mine' >> \"$1\"\n")
    append.chmod(0o755)
    assert "saved" in edited(desk, "edited.txt", str(append))
    assert there.read_text() == "one mine"
    append.write_text(f"#!/bin/sh\nprintf theirs > '{there}'\nprintf ' again' >> \"$1\"\n")
    shown = edited(desk, "edited.txt", str(append))
    assert "was changed on the runtime meanwhile" in shown
    (kept,) = desk.project.parent.glob("colab-bridge-edit-*/edited.txt")
    assert kept.read_text() == "one mine again"
    assert str(kept) in shown
    assert there.read_text() == "theirs"


def test_the_plan_the_history_and_the_measurement_are_there(desk: Desk) -> None:
    desk.out("sync", "-s", desk.session)
    desk.out("sync", "pause", "-s", desk.session)
    desk.write("planned.txt", "x")
    changes = desk.document("sync", "--dry-run", "-s", desk.session)["changes"]
    desk.out("sync", "resume", "-s", desk.session)
    assert [change["path"] for change in changes] == ["planned.txt"]
    assert desk.document("sync", "-s", desk.session)["failed"] == []
    assert desk.document("sync", "history", "-s", desk.session)["history"]
    bench = desk.document("sync", "bench", "-s", desk.session)
    assert {row["operation"]: row["round_trips"] for row in bench["operations"]}["pre"] == 1


def test_a_file_that_is_saved_goes_up_and_one_that_appears_there_comes_down_without_a_run(desk: Desk) -> None:
    desk.write("live.txt", "up")
    eventually((desk.workspace / "live.txt").exists, "it is there")
    (desk.workspace / "from-there.txt").write_text("down")
    eventually((desk.project / "from-there.txt").exists, "it is here")


def test_after_a_killed_daemon_the_folders_are_in_step_again(desk: Desk) -> None:
    pid = desk.daemon_pid()
    assert pid is not None
    psutil.Process(pid).kill()
    desk.write("after.txt", "kill")
    done = run(desk, "print(open('after.txt').read()); _ = open('made.txt', 'w').write('1')")
    assert done.stdout == "kill\n", done.stderr
    assert (desk.project / "made.txt").exists()


def test_a_plain_session_has_nothing_to_sync_and_says_so(desk: Desk) -> None:
    name = desk.document("new", "-s", "plain")["name"]
    assert "project folder itself" in desk.refusal("sync", "-s", name)
    desk.write("own.txt", "x")
    assert "own.txt" in [entry["name"] for entry in desk.document("ls", "-s", name)["entries"]]
