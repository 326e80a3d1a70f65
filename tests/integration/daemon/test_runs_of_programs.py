"""Code, scripts, modules and commands, through the real daemon on the local runtime."""

from __future__ import annotations

import threading
import time

import pytest

from colab_bridge.client.daemon import EventStream
from colab_bridge.errors import ConflictError, UserError
from daemon_home import DaemonHome, Seen, eventually


@pytest.fixture
def home(shared_home: DaemonHome) -> DaemonHome:
    return shared_home


def script(home: DaemonHome, source: str, *argv: str, allow_stdin: bool = False) -> Seen:
    path = home.project / "prog.py"
    return home.run("script", path=str(path), source=source, argv=list(argv), allow_stdin=allow_stdin)


def test_code_keeps_its_variables_from_one_run_to_the_next(home: DaemonHome) -> None:
    assert home.code("kept = 41").status == "ok"
    seen = home.code("kept + 1")
    assert [event["data"]["text/plain"] for event in seen.of("result")] == ["42"]


def test_code_that_raises_ends_with_status_1_and_its_traceback(home: DaemonHome) -> None:
    seen = home.code("def broken():\n    return 1 / 0\nbroken()")
    assert (seen.status, seen.finished["exit_code"]) == ("error", 1)
    (error,) = seen.of("error")
    assert error["ename"] == "ZeroDivisionError"
    assert "broken" in "".join(error["traceback"])


def test_code_works_in_the_project_folder(home: DaemonHome) -> None:
    seen = home.code("import os; print(os.getcwd())")
    assert seen.text() == f"{home.project}\n"


def test_the_events_come_numbered_from_started_to_finished(home: DaemonHome) -> None:
    seen = home.code("print('x')")
    numbers = [event["seq"] for event in seen.events]
    assert numbers == sorted(set(numbers))
    assert (seen.events[0]["type"], seen.events[-1]["type"]) == ("started", "finished")


def test_a_script_gets_its_arguments_and_its_own_name(home: DaemonHome) -> None:
    seen = script(home, "import sys; print(sys.argv, __name__)", "a b", "--flag")
    assert seen.text() == f"{[str(home.project / 'prog.py'), 'a b', '--flag']} __main__\n"
    assert seen.finished["exit_code"] == 0


@pytest.mark.parametrize(
    ("source", "status", "stderr"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("import sys; sys.exit('went wrong')", 1, "went wrong\n"),
        ("import sys; sys.exit()", 0, ""),
    ],
)
def test_the_exit_code_of_a_script_is_the_run_s(home: DaemonHome, source: str, status: int, stderr: str) -> None:
    seen = script(home, source)
    assert (seen.finished["exit_code"], seen.text("stderr")) == (status, stderr)


def test_a_script_that_raises_shows_the_traceback_of_python_alone(home: DaemonHome) -> None:
    seen = script(home, "def f():\n    raise ValueError('bad')\n\nf()\n")
    lines = seen.text("stderr").splitlines()
    assert seen.finished["exit_code"] == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{home.project / "prog.py"}", line 4, in <module>'
    assert lines[-1] == "ValueError: bad"


def test_two_scripts_do_not_share_their_variables(home: DaemonHome) -> None:
    script(home, "leak = 1")
    assert script(home, "print('leak' in globals())").text() == "False\n"


def test_a_script_reads_its_standard_input_line_by_line(home: DaemonHome) -> None:
    source = "import sys\nfor line in sys.stdin:\n    print(line.strip().upper())\nprint('end')"
    request = home.request("script", path="-", source=source, argv=[], allow_stdin=True)
    answers = iter([{"value": "one"}, {"value": "two"}, {"value": "", "eof": True}])
    seen = Seen()
    with home.client().stream("POST", "/v1/runs", request, follow=1) as stream:
        for event in stream:
            seen.events.append(event)
            if event["type"] == "input_request":
                home.client().post(f"/v1/runs/{seen.run_id}/input", next(answers))
    assert seen.text() == "ONE\nTWO\nend\n"


def test_a_module_runs_as_with_dash_m(home: DaemonHome) -> None:
    package = home.project / "pkg_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text("import sys; print(__package__, sys.argv[1:]); sys.exit(3)")
    seen = home.run("module", module="pkg_of_mine", argv=["x"])
    assert (seen.text(), seen.finished["exit_code"]) == ("pkg_of_mine ['x']\n", 3)


def test_a_command_passes_on_both_streams_and_its_exit_code(home: DaemonHome) -> None:
    seen = home.run("command", command=["sh", "-c", "echo out; echo err >&2; exit 5"])
    assert (seen.text(), seen.text("stderr"), seen.finished["exit_code"]) == ("out\n", "err\n", 5)


def test_a_command_that_does_not_exist_ends_with_127(home: DaemonHome) -> None:
    seen = home.run("command", command=["no-such-program-here"])
    assert seen.finished["exit_code"] == 127
    assert "no-such-program-here" in seen.text("stderr")


def test_the_kernel_of_a_script_is_gone_after_it(home: DaemonHome) -> None:
    seen = script(home, "print(1)")
    eventually(
        lambda: seen.kernel not in [k["id"] for k in home.client().get("/v1/kernels")["kernels"]], "kernel removed"
    )


def test_input_is_asked_for_and_answered(home: DaemonHome) -> None:
    request = home.request("code", code="name = input('who? '); print('hello', name)", allow_stdin=True)
    seen = Seen()
    with home.client().stream("POST", "/v1/runs", request, follow=1) as stream:
        for event in stream:
            seen.events.append(event)
            if event["type"] == "input_request":
                assert (event["prompt"], event["password"]) == ("who? ", False)
                home.client().post(f"/v1/runs/{seen.run_id}/input", {"value": "Ada"})
    assert seen.text() == "hello Ada\n"


def test_a_password_is_asked_for_as_one(home: DaemonHome) -> None:
    request = home.request("code", code="import getpass; print(len(getpass.getpass('pw: ')))", allow_stdin=True)
    seen = Seen()
    with home.client().stream("POST", "/v1/runs", request, follow=1) as stream:
        for event in stream:
            seen.events.append(event)
            if event["type"] == "input_request":
                assert event["password"] is True
                home.client().post(f"/v1/runs/{seen.run_id}/input", {"value": "secret"})
    assert seen.text() == "6\n"


def test_code_that_may_not_ask_raises_instead_of_hanging(home: DaemonHome) -> None:
    seen = home.code("input('who? ')")
    assert seen.of("error")[0]["ename"] == "StdinNotImplementedError"


def test_an_answer_that_nobody_asked_for_is_refused(home: DaemonHome) -> None:
    run = home.start("code", code="import time; time.sleep(30)")
    with pytest.raises(ConflictError, match="does not wait for input"):
        home.client().post(f"/v1/runs/{run['id']}/input", {"value": "x"})
    home.client().post(f"/v1/runs/{run['id']}/interrupt")
    assert home.follow(run["id"]).status == "interrupted"


def test_an_interrupt_arrives_within_a_second_and_keeps_the_variables(home: DaemonHome) -> None:
    run = home.start("code", code="before = 5\nprint('begun')\nwhile True: pass")
    home.until_text(run["id"], "begun")
    started = time.monotonic()
    home.client().post(f"/v1/runs/{run['id']}/interrupt")
    seen = home.follow(run["id"])
    assert time.monotonic() - started < 1
    assert (seen.status, seen.finished["exit_code"]) == ("interrupted", 130)
    assert seen.of("error")[0]["ename"] == "KeyboardInterrupt"
    assert home.code("print(before)").text() == "5\n"


def test_an_interrupted_script_ends_with_130(home: DaemonHome) -> None:
    source = "print('up')\nimport time\ntime.sleep(60)"
    run = home.start("script", path=str(home.project / "p.py"), source=source, argv=[])
    home.until_text(run["id"], "up")
    home.client().post(f"/v1/runs/{run['id']}/interrupt")
    assert home.follow(run["id"]).finished["exit_code"] == 130


def test_a_killed_run_ends_and_the_next_one_gets_a_new_kernel(home: DaemonHome) -> None:
    stubborn = "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    run = home.start("code", code="mine = 1\nprint('up')\n" + stubborn)
    home.until_text(run["id"], "up")
    started = time.monotonic()
    home.client().post(f"/v1/runs/{run['id']}/kill", {"restart": False})
    seen = home.follow(run["id"])
    assert time.monotonic() - started < 5
    assert (seen.status, seen.finished["exit_code"]) == ("interrupted", 130)
    after = home.code("print('mine' in globals())")
    assert (after.text(), after.kernel == seen.kernel) == ("False\n", False)


def test_a_run_killed_with_a_restart_leaves_a_fresh_kernel_under_the_same_id(home: DaemonHome) -> None:
    run = home.start("code", code="mine = 1\nprint('up')\nimport time\ntime.sleep(60)")
    home.until_text(run["id"], "up")
    home.client().post(f"/v1/runs/{run['id']}/kill", {"restart": True})
    seen = home.follow(run["id"])
    after = home.code("print('mine' in globals())")
    assert (seen.status, after.text(), after.kernel == seen.kernel) == ("interrupted", "False\n", True)


def test_a_session_restart_forgets_the_variables(home: DaemonHome) -> None:
    seen = home.code("gone = 1")
    session = home.view(seen.run_id)["session"]
    home.client().post(f"/v1/sessions/{session}/restart")
    assert home.code("print('gone' in globals())").text() == "False\n"


def test_the_first_output_after_each_of_five_restarts_arrives(home: DaemonHome) -> None:
    session = home.view(home.code("1").run_id)["session"]
    for n in range(5):
        home.client().post(f"/v1/sessions/{session}/restart")
        seen = home.code(f"print({n})")
        assert (seen.text(), seen.of("lost")) == (f"{n}\n", [])


def test_runs_on_one_kernel_wait_for_one_another_and_keep_their_outputs(home: DaemonHome) -> None:
    runs = [home.start("code", code=f"import time; time.sleep(0.2); print('run {n}')") for n in range(4)]
    assert [home.follow(run["id"]).text() for run in runs] == [f"run {n}\n" for n in range(4)]


def test_a_failure_does_not_drop_what_others_have_queued_behind_it(home: DaemonHome) -> None:
    first = home.start("code", code="import time; time.sleep(0.5); 1/0")
    second = home.start("code", code="print('second')")
    assert home.follow(first["id"]).finished["error"]["ename"] == "ZeroDivisionError"
    after = home.follow(second["id"])
    assert (after.status, after.text()) == ("ok", "second\n")


def test_a_viewer_that_comes_late_sees_what_the_first_one_saw(home: DaemonHome) -> None:
    first = home.code("print('a')\nprint('b')\n3")
    again = home.follow(first.run_id)
    assert again.events[1:] == first.events[1:]
    # The first event shows the run as it is when it is asked for.
    assert again.events[0]["seq"] == first.events[0]["seq"]
    assert again.events[0]["run"]["status"] == "ok"


def test_a_viewer_that_comes_back_gets_exactly_the_rest(home: DaemonHome) -> None:
    first = home.code("import time\nfor n in range(5):\n    print(n, flush=True); time.sleep(0.05)")
    middle = first.events[len(first.events) // 2]["seq"]
    rest = home.follow(first.run_id, after=middle)
    assert rest.events == [event for event in first.events if event["seq"] > middle]


def test_a_viewer_that_does_not_read_holds_up_nobody(home: DaemonHome) -> None:
    run = home.start("code", code="for n in range(30):\n    print('x' * 1_000_000)")
    stalled: EventStream = home.client().stream("GET", f"/v1/runs/{run['id']}/events", after=0, follow=1)
    try:
        started = time.monotonic()
        assert len(home.follow(run["id"]).text()) == 30 * 1_000_001
        assert time.monotonic() - started < 15
    finally:
        stalled.close()


def test_two_starts_at_once_share_the_project_s_main_kernel(home: DaemonHome) -> None:
    project = home.new_project("race")
    found: list[Seen] = []
    starts = [threading.Thread(target=lambda: found.append(home.code("1", project=project))) for _ in range(3)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert len({seen.kernel for seen in found}) == 1


def test_a_run_id_that_does_not_exist_is_a_user_error(home: DaemonHome) -> None:
    with pytest.raises(UserError, match="no run has the id") as caught:
        home.view("run-nothing")
    assert caught.value.hint


def test_a_request_that_is_sent_again_with_its_id_is_one_run(home: DaemonHome) -> None:
    request = {
        **home.request("code", code="seen = globals().get('seen', 0) + 1; print(seen)"),
        "run_id": "run-sent-twice-1",
    }
    client = home.client()
    first = client.post("/v1/runs", request)
    again = client.post("/v1/runs", request)
    assert first["id"] == again["id"] == "run-sent-twice-1"
    assert home.follow("run-sent-twice-1").text() == "1\n"
