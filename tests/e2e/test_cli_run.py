"""``run`` and ``exec`` as a user sees them: output, arguments, exit status, questions, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_support import Desk, desk_in


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        yield made


def test_the_first_command_on_a_fresh_machine_just_runs(desk: Desk) -> None:
    done = desk.run("exec", "print(6 * 7)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")


def test_variables_are_kept_between_calls(desk: Desk) -> None:
    desk.out("exec", "kept = 20")
    assert desk.out("execute", "--code", "kept + 22") == "42\n"


def test_code_comes_from_a_file_or_from_standard_input(desk: Desk) -> None:
    desk.write("setup.py", "value = 'from a file'")
    desk.out("exec", "-f", "setup.py")
    assert desk.out("exec", "-", stdin="print(value)") == "from a file\n"


def test_code_that_raises_prints_its_traceback_on_stderr_and_ends_with_1(desk: Desk) -> None:
    done = desk.run("exec", "print('before'); 1 / 0")
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_script_gets_its_arguments_and_gives_its_exit_status(desk: Desk) -> None:
    desk.write("train.py", "import sys; print(sys.argv[1:]); print('bad', file=sys.stderr); sys.exit(7)")
    done = desk.run("run", "train.py", "--lr", "0.1", "-s", "x", "--json", "--", "-m")
    assert (done.returncode, done.stderr) == (7, "bad\n")
    assert done.stdout == "['--lr', '0.1', '-s', 'x', '--json', '--', '-m']\n"


def test_a_script_finds_its_neighbours_and_works_in_the_callers_folder(desk: Desk) -> None:
    desk.write("pkg/helper.py", "WORD = 'found'")
    desk.write("pkg/main.py", "import os, helper; print(helper.WORD, os.path.basename(os.getcwd()), __name__)")
    folder = desk.project / "data"
    folder.mkdir()
    assert desk.out("run", "../pkg/main.py", cwd=folder) == "found data __main__\n"


def test_a_script_leaves_nothing_behind_for_the_next_one(desk: Desk) -> None:
    desk.write("one.py", "import builtins; secret = 1; print('secret' in globals())")
    assert [desk.out("run", "one.py"), desk.out("run", "-", stdin="print('secret' in globals())")] == [
        "True\n",
        "False\n",
    ]


def test_a_module_runs_with_its_arguments(desk: Desk) -> None:
    desk.write("tool/__main__.py", "import sys; print('tool', sys.argv[1:])")
    desk.write("tool/__init__.py", "")
    assert desk.out("run", "-m", "tool", "-m", "--x") == "tool ['-m', '--x']\n"


def test_a_script_from_standard_input_sees_its_arguments(desk: Desk) -> None:
    assert desk.out("run", "-", "a", "-b", stdin="import sys; print(sys.argv)") == "['-', 'a', '-b']\n"


def test_a_command_keeps_stdout_stderr_and_exit_status_apart(desk: Desk) -> None:
    done = desk.run(
        "run", "--", sys.executable, "-c", "import sys; print('o'); print('e', file=sys.stderr); sys.exit(3)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "o\n", "e\n")


def test_a_command_that_does_not_exist_ends_as_in_a_shell(desk: Desk) -> None:
    assert desk.run("run", "--", "no-such-command-here").returncode == 127


@pytest.mark.skipif(sys.platform == "win32", reason="shebang lines are for POSIX")
def test_an_executable_script_may_name_us_in_its_first_line(desk: Desk, tmp_path: Path) -> None:
    command = tmp_path / "colab-bridge"
    command.write_text(f"#!{sys.executable}\nfrom colab_bridge.cli.main import main\nmain()\n")
    command.chmod(0o755)
    script = desk.write("tool.sh-less", "#!/usr/bin/env -S colab-bridge run\nimport sys\nprint('ran', sys.argv[1:])\n")
    script.chmod(0o755)
    environ = desk.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(script), "-x", "1"], env=environ, cwd=desk.project, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("ran ['-x', '1']\n", 0), done.stderr


def test_lines_of_a_pipe_answer_the_programs_questions(desk: Desk) -> None:
    code = "a = input('first? ')\nb = input()\nprint(a + b)"
    done = desk.run("exec", code, stdin="one\r\ntwo\n")
    assert (done.returncode, done.stdout) == (0, "onetwo\n")
    assert done.stderr == "first? "


def test_the_end_of_a_pipe_is_the_end_of_the_programs_input(desk: Desk) -> None:
    code = "try:\n    input()\nexcept EOFError:\n    print('end')"
    script = desk.write("eof.py", "import sys\nprint(sys.stdin.read().split())\n" + code)
    assert desk.out("run", str(script), stdin="x y\nz\n") == "['x', 'y', 'z']\nend\n"


def test_pictures_are_saved_and_named_on_stderr(desk: Desk) -> None:
    code = (
        "import base64\nfrom IPython.display import display, Image\n"
        "display(Image(data=base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))"
    )
    done = desk.run("exec", code)
    path = Path(done.stderr.strip().removeprefix("saved: "))
    assert (done.returncode, done.stdout) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.is_relative_to(desk.home)


def test_a_reader_that_goes_away_ends_the_program_quietly(desk: Desk) -> None:
    process = desk.popen("exec", "for i in range(10**7): print(i, 'x' * 100)")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith("0 ")
    process.stdout.close()
    assert (process.wait(20), process.stderr.read()) == (141, "")
    process.stderr.close()
    assert desk.out("exec", "'free again'") == "'free again'\n"


def test_odd_characters_arrive_unharmed_on_any_terminal(desk: Desk) -> None:
    assert desk.out("exec", r"print('ü \U0001f600')") == "ü \U0001f600\n"
    assert desk.run("exec", r"print('\U0001f600')", PYTHONIOENCODING="ascii").stdout == "\\U0001f600\n"


def test_a_notebook_gets_its_outputs_and_says_each_cell(desk: Desk) -> None:
    path = desk.notebook(
        "a.ipynb",
        "print('one')",
        "import os\nos.makedirs('out', exist_ok=True)\nopen('out/plot.png', 'w').close()",
        "3 * 14",
    )
    done = desk.run("run", "a.ipynb")
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert [line.partition("]")[0] for line in lines[:3]] == ["[1/3", "[2/3", "[3/3"]
    assert f"plot: {Path('out') / 'plot.png'}" in lines
    assert lines[-1].startswith("done after ")
    assert lines[-1].endswith(": a.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert "".join(cells[0]["outputs"][0]["text"]) == "one\n"
    assert "".join(cells[2]["outputs"][0]["data"]["text/plain"]) == "42"


def test_a_notebook_can_be_written_elsewhere_with_parameters(desk: Desk) -> None:
    path = desk.notebook("b.ipynb", ("year = 2000", ["parameters"]), "print(year)")
    before = path.read_bytes()
    desk.out("run", "b.ipynb", "-o", "b-out.ipynb", "--param", "year=2026")
    assert path.read_bytes() == before
    assert "2026" in (desk.project / "b-out.ipynb").read_text(encoding="utf-8")


def test_a_notebook_that_failed_goes_on_where_it_failed(desk: Desk) -> None:
    desk.notebook("c.ipynb", "n = 41", "open('flag')", "print(n + 1)")
    failed = desk.run("run", "c.ipynb")
    assert failed.returncode == 1
    assert "FileNotFoundError" in failed.stderr
    assert failed.stderr.splitlines()[-1].endswith("colab-bridge run c.ipynb --resume")
    desk.write("flag", "")
    resumed = desk.run("run", "c.ipynb", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "42" in (desk.project / "c.ipynb").read_text(encoding="utf-8")


def test_a_session_in_a_folder_of_its_own_keeps_out_of_the_project_where_the_sync_is_off(desk: Desk) -> None:
    desk.out("config", "set", "sync.enabled", "false")
    made = desk.document("new", "-s", "clean", "--provider", "local", "--isolated")
    assert (made["name"], made["isolated"], made["provider"]) == ("clean", True, "local")
    desk.out("exec", "-s", "clean", "open('only-there.txt', 'w').close()")
    assert not (desk.project / "only-there.txt").exists()
    desk.out("config", "unset", "sync.enabled")
    assert "clean" in [session["name"] for session in desk.document("sessions")["sessions"]]
    assert desk.document("stop", "clean")["stopped"][0]["stopped"] == "clean"
    assert "clean" not in desk.out("ps")


def test_what_was_run_can_be_read_again(desk: Desk) -> None:
    run = json.loads(desk.out("exec", "--json", "print('remember me'); 7"))
    assert run["stdout"] == "remember me\n"
    assert run["result"] == "7"
    assert desk.out("logs", run["run"]) == "remember me\n7\n"
    assert desk.out("attach", run["run"]) == "remember me\n7\n"
    assert run["run"] in desk.out("logs", "--list")


def test_the_lines_of_a_repl_share_the_kernel(desk: Desk) -> None:
    done = desk.run("repl", stdin="def twice(x):\n    return 2 * x\n\ntwice(21)\n")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert desk.out("exec", "twice(4)") == "8\n"
