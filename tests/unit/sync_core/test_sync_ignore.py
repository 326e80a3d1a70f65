"""What travels: lists, secrets, own rules, what Git ignores, budgets; Git itself is the oracle for the syntax."""

from __future__ import annotations

import random
import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colab_bridge.agent.sync.budget import Budget, Candidate, left_out
from colab_bridge.agent.sync.ignore import Cause, IgnoreRules, Standing, include_lines, strip_ignored
from colab_bridge.agent.sync.patterns import Matcher, escape_pattern, parse_rules
from colab_bridge.agent.sync.tree import Why
from sync_trees import leaves, tree

PARTS = ["a", "b", "foo", "*.py", "*", "**", "a*b*c", "?", "[ab]", "[!a]", "*.py[cod]", "f*", "*o", "[a-f]oo", "a?b"]
PARTS += [
    "\\#x",
    "\\!x",
    "x\\ ",
    "[[:alpha:]]",
    "[^b]*",
    "foo*",
    "***",
    "a**b",
    "[]a]",
    "build",
    "#x",
    "a b",
    "[a",
    "x\\",
]
NAMES = ["a", "b", "foo", "x.py", "x.pyc", "abc", "aXbYc", "axb", "#x", "!x", "x ", "build", "fo", "a b", "]", "ab"]


def some_rules(rng: random.Random) -> list[str]:
    lines = []
    for _ in range(rng.randrange(1, 5)):
        body = "/".join(rng.choice(PARTS) for _ in range(rng.choice([1, 1, 1, 2, 2, 3])))
        lines.append(rng.choice(["", "", "", "!"]) + rng.choice(["", "", "/"]) + body + rng.choice(["", "", "/"]))
    return lines


def some_paths(rng: random.Random) -> list[tuple[str, bool]]:
    """Paths of files, and of the folders above them."""
    files = {"/".join(rng.choice(NAMES) for _ in range(rng.randrange(1, 5))) for _ in range(16)}
    folders = {path.rsplit("/", depth)[0] for path in files for depth in range(1, path.count("/") + 1)}
    files -= folders
    return sorted({(path, False) for path in files} | {(path, True) for path in folders})


def test_h10_verdicts_are_those_of_git(tmp_path: Path):
    rng = random.Random(20)
    expected: dict[str, tuple[list[str], bool]] = {}
    for case in range(150):
        root = tmp_path / f"case{case}"
        root.mkdir()
        lines = some_rules(rng)
        (root / ".gitignore").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for path, is_folder in some_paths(rng):
            place = root / path
            (place if is_folder else place.parent).mkdir(parents=True, exist_ok=True)
            if not is_folder:
                place.write_text("")
            expected[f"case{case}/{path}"] = (lines, is_folder)
    git = ["git", "-C", str(tmp_path), "-c", "core.excludesFile=", "-c", "core.ignoreCase=false"]
    subprocess.run([*git, "init", "-q"], check=True, timeout=30)
    asked = "\0".join(expected).encode()
    answer = subprocess.run(
        [*git, "check-ignore", "--no-index", "-z", "--stdin"], input=asked, capture_output=True, timeout=60, check=False
    )
    ignored = set(answer.stdout.decode().split("\0")) - {""}
    assert len(expected) > 2000 and len(ignored) > 200
    wrong = []
    for path, (lines, is_folder) in expected.items():
        case, _, below = path.partition("/")
        ours = by_rules(Matcher(parse_rules("\n".join(lines))), below, is_folder=is_folder)
        if ours != (path in ignored):
            wrong.append((path, lines, path in ignored))
    assert not wrong, wrong[:5]


def by_rules(matcher: Matcher, path: str, *, is_folder: bool) -> bool:
    names = path.split("/")
    for depth in range(1, len(names) + 1):
        last = depth == len(names)
        path_matters = matcher.asks_paths_in("/".join(names[: depth - 1]))
        below = "/".join(names[:depth]) if path_matters else None
        rule = matcher.match(below, names[depth - 1], is_folder=is_folder or not last)
        if rule is not None and not rule.negated:
            return True
    return False


@pytest.mark.parametrize(
    ("path", "is_folder", "cause"),
    [
        (".git", True, Cause.NEVER),
        ("sub/.git", False, Cause.NEVER),
        (".GIT/config", False, Cause.NEVER),
        (".colab-bridge/trash/x", False, Cause.NEVER),
        ("venv", True, Cause.BUILT_IN),
        ("web/node_modules/x.js", False, Cause.BUILT_IN),
        ("p/__pycache__/m.cpython-311.pyc", False, Cause.BUILT_IN),
        (".ipynb_checkpoints/a.ipynb", False, Cause.BUILT_IN),
        ("build", True, Cause.BUILT_IN),
        (".main.py.swp", False, Cause.BUILT_IN),
        (".env", False, Cause.SECRET),
        (".env.production", False, Cause.SECRET),
        ("conf/.ENV", False, Cause.SECRET),
        ("keys/server.pem", False, Cause.SECRET),
        ("id_rsa", False, Cause.SECRET),
    ],
)
def test_h14_the_lists_leave_out_what_they_name(path, is_folder, cause):
    verdict = IgnoreRules().verdict(path, is_folder=is_folder)
    assert (verdict.standing, verdict.cause) == (Standing.IGNORED, cause)


@pytest.mark.parametrize(
    "path", ["build", "data/sales.csv", "outputs/plot.png", ".env.example", "src/venv.py", "a.key.py"]
)
def test_h09_files_of_the_project_travel(path):
    assert IgnoreRules().verdict(path, is_folder=False).standing is Standing.TRAVELS


def test_what_git_ignores_travels_within_the_budget_or_not_at_all_in_strict_mode():
    git = {"": "data/\n*.bin\n", "models": "!keep.bin\n"}
    for strict, standing in ((False, Standing.BUDGET), (True, Standing.IGNORED)):
        rules = IgnoreRules(git=git, strict=strict)
        assert rules.verdict("data/x.csv", is_folder=False).standing is standing
        assert rules.verdict("models/m.bin", is_folder=False).standing is standing
        assert rules.verdict("models/keep.bin", is_folder=False).standing is Standing.TRAVELS


def test_own_rules_win_over_lists_and_git_but_not_over_what_never_travels():
    rules = IgnoreRules(own={"": "!build/\n!.env\n!.git\n!/data/\n*.log\n"}, git={"": "data/\n"}, strict=True)
    assert rules.verdict("build/x", is_folder=False).standing is Standing.INCLUDED
    assert rules.verdict(".env", is_folder=False).standing is Standing.INCLUDED
    assert rules.verdict("data/x.csv", is_folder=False).standing is Standing.INCLUDED
    assert rules.verdict("data/x.log", is_folder=False).standing is Standing.IGNORED
    assert rules.verdict(".git/config", is_folder=False).standing is Standing.IGNORED


@pytest.mark.parametrize("path", ["node_modules/x/[1] *.js", "build/model.bin", "a/b/#c", ".env", "!x"])
def test_the_lines_of_an_inclusion_include_exactly_that_path(path):
    own = "*\n" if path.startswith("a/") else ""
    own += "\n".join(include_lines(path, IgnoreRules(own={"": own}), is_folder=False))
    rules = IgnoreRules(own={"": own})
    assert rules.verdict(path, is_folder=False).standing is Standing.INCLUDED
    assert path.count("/") == 0 or not rules.verdict(path + "x", is_folder=False).travels


@pytest.mark.parametrize("git", ["", "data/\n", "*.bin\n"])
def test_an_inclusion_leaves_everything_else_in_its_folder_as_it_was(git):
    before = IgnoreRules(git={"": git})
    lines = include_lines("data/sub/big .bin", before, is_folder=False)
    after = IgnoreRules(own={"": "\n".join(lines)}, git={"": git})
    assert after.verdict("data/sub/big .bin", is_folder=False).standing is Standing.INCLUDED
    for other in ("data/x.csv", "data/sub/y.csv", "data/sub/z.bin", "data/sub/deep/x", "x"):
        standings = {rules.verdict(other, is_folder=False).standing for rules in (before, after)}
        assert len(standings) == 1, other


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab*?[]\\!# .-", min_size=1, max_size=8).filter(lambda text: "/" not in text))
def test_an_escaped_name_matches_itself_only(name):
    matcher = Matcher(parse_rules("/" + escape_pattern(name)))
    assert matcher.match(name, name, is_folder=False) is not None
    assert matcher.match(name + "x", name + "x", is_folder=False) is None


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=20).filter(lambda text: "/" not in text))
def test_any_rule_text_gives_a_verdict_and_survives_the_way(text, name):
    rules = IgnoreRules(own={"": text}, git={"sub": text}, strict=True, fold=True)
    again = IgnoreRules.from_text(rules.to_text())
    assert again.rules_id == rules.rules_id
    for path in (name, f"sub/{name}"):
        assert rules.verdict(path, is_folder=False) == again.verdict(path, is_folder=False)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"v":2}', "[" * 5000, '{"v":1,"strict":1,"fold":0,"own":[],"git":{}}']
)
def test_a_text_that_is_no_rule_set_is_refused(text):
    with pytest.raises(ValueError, match=re.compile("rules|JSON|Expecting", re.IGNORECASE)):
        IgnoreRules.from_text(text)


def test_other_rules_have_another_id():
    assert IgnoreRules(own={"": "a"}).rules_id != IgnoreRules(own={"": "b"}).rules_id


def test_many_stars_cost_no_time():
    matcher = Matcher(parse_rules("*a" * 30 + "b"))
    started = time.perf_counter()
    assert matcher.match("a" * 250, "a" * 250, is_folder=False) is None
    assert time.perf_counter() - started < 1


def test_stripping_leaves_a_mark_on_folders_that_lose_content():
    stripped = strip_ignored(tree("d/x.log=1,e/a=1,f/only.log=1"), IgnoreRules(own={"": "*.log"}))
    assert set(leaves(stripped)) == {"d", "e", "e/a", "f"}
    assert tree("d/*").children["d"] == stripped.children["d"]


def test_the_budget_takes_the_newest_day_and_then_the_smallest():
    day = 86_400 * 10**9
    files = [
        Candidate("old-small", 10, 1 * day, git_ignored=True),
        Candidate("new-big", 60, 5 * day, git_ignored=True),
        Candidate("new-small", 50, 5 * day + 1, git_ignored=True),
        Candidate("huge", 500, 5 * day, git_ignored=True),
        Candidate("tracked", 400, 1 * day, git_ignored=False),
        Candidate("too-big", 1001, 1 * day, git_ignored=False),
    ]
    found = left_out(files, Budget(file=1000, git_file=200, git_total=110))
    assert found == {"old-small": Why.OVER_BUDGET, "huge": Why.TOO_BIG, "too-big": Why.TOO_BIG}
