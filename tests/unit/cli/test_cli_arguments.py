"""What belongs to us and what belongs to the program."""

from __future__ import annotations

import pytest

from colab_bridge.cli.commands.repl import Entry
from colab_bridge.cli.commands.run import split_arguments
from colab_bridge.cli.parameters import parse_parameters
from colab_bridge.cli.target import Target
from colab_bridge.errors import UserError

WITH_VALUE = frozenset({"-s", "--session", "-r", "--runtime", "-o", "--output", "--param"})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["train.py", "--lr", "0.1", "-s", "x"], ([], "script", ["train.py", "--lr", "0.1", "-s", "x"])),
        (["-s", "gpu", "train.py", "-m", "--", "-"], (["-s", "gpu"], "script", ["train.py", "-m", "--", "-"])),
        (["--session=gpu", "a.py"], (["--session=gpu"], "script", ["a.py"])),
        (["-s", "-m", "a.py"], (["-s", "-m"], "script", ["a.py"])),
        (["--json", "-m", "pkg.mod", "--json", "-x"], (["--json"], "module", ["pkg.mod", "--json", "-x"])),
        (["-s", "g", "-", "a", "--b"], (["-s", "g"], "stdin", ["-", "a", "--b"])),
        (["--", "ls", "-l", "--", "x"], ([], "command", ["ls", "-l", "--", "x"])),
        (["n.ipynb", "-o", "out.ipynb"], (["-o", "out.ipynb"], "notebook", ["n.ipynb"])),
        (["--resume", "n.ipynb", "--param", "a=1"], (["--resume", "--param", "a=1"], "notebook", ["n.ipynb"])),
        (["--json"], (["--json"], "", [])),
        ([], ([], "", [])),
        (["-m"], ([], "module", [])),
    ],
)
def test_our_options_end_where_the_program_begins(args: list[str], expected: tuple[list[str], str, list[str]]) -> None:
    assert split_arguments(args, WITH_VALUE) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("True", True),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ('{"a": 1}', {"a": 1}),
        ("'x'", "x"),
        ("x y", "x y"),
        ("", ""),
        ("a=b", "a=b"),
        ("{1, 2}", "{1, 2}"),
        ("b'x'", "b'x'"),
        ("1e999", "1e999"),
        ("(" * 500, "(" * 500),
    ],
)
def test_a_parameter_is_read_as_a_literal_and_otherwise_as_text(text: str, value: object) -> None:
    assert parse_parameters([f"p={text}"]) == {"p": value}


@pytest.mark.parametrize("text", ["", "p", "=1", "a b=1", "1a=2", "a-b=3"])
def test_what_is_no_parameter_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_parameters([text])
    assert "--param" in caught.value.hint


def test_a_named_session_cannot_be_given_another_runtime() -> None:
    with pytest.raises(UserError, match="exists"):
        Target(session="a", url="http://x").for_run()


def test_a_url_and_isolated_exclude_each_other() -> None:
    with pytest.raises(UserError):
        Target(url="http://x", isolated=True)


def test_isolated_means_the_local_provider() -> None:
    assert Target(isolated=True).for_run() == {
        "session": None,
        "runtime": None,
        "provider": "local",
        "options": {"isolated": True},
    }


def typed(*lines: str) -> list[bool]:
    entry = Entry()
    return [entry.add(line) for line in lines]


@pytest.mark.parametrize(
    ("lines", "complete"),
    [
        (("x = 1",), [True]),
        (("def f():", "  return 1", ""), [False, False, True]),
        (("def f():", "  if x:", "    y", "", "z"), [False, False, False, True, True]),
        (("if x:", "  a", "else:", "  b", ""), [False, False, False, False, True]),
        (("x = (1,", "2)"), [False, True]),
        (("s = '''a", "b'''"), [False, True]),
        (("@d", "def f(): pass", ""), [False, False, True]),
        (("1 +",), [True]),
        (("%timeit x",), [True]),
        (("!ls",), [True]),
        (("len?",), [True]),
        (("%%bash", "echo 1", "echo 2", ""), [False, False, False, True]),
        (("x = 1\x00",), [True]),
    ],
)
def test_an_entry_is_complete_when_python_could_run_it(lines: tuple[str, ...], complete: list[bool]) -> None:
    assert typed(*lines) == complete
