"""What the documents say exists."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from colab_bridge.cli.main import COMMANDS
from colab_bridge.cli.root import build_root
from colab_bridge.config.schema import key_info

ROOT = Path(__file__).parents[3]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if not {"generated", "_build"} & set(p.parts)),
]


def calls() -> Iterator[tuple[str, str]]:
    """Every ``colab-bridge ...`` in a console block or in code marks, with the page that it is in."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"(?:^\$ |`|&& |- run: |    run: )(colab-bridge [^\n`#|&>…]+)", text, re.MULTILINE):
            yield page.name, found[1].strip()


def in_order(command: click.Command, context: click.Context, words: list[str]) -> click.Command:
    """Return the command that the words name, and check that it has the options among them."""
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    known = {option for parameter in command.get_params(context) for option in parameter.opts}
    for word in words:
        if word == "--" or (command.name == "run" and not word.startswith("-") and word.endswith(".py")):
            break  # what follows belongs to the program
        if re.fullmatch(r"--[a-z][a-z-]*|-[a-z]", word) and not (command.name == "run" and word == "-m"):
            assert word in known, f"{command.name} has no option {word}"
    return command


@pytest.mark.parametrize(("page", "call"), sorted(set(calls())))
def test_a_command_in_the_documents_exists_with_its_options(page: str, call: str) -> None:
    try:
        words = shlex.split(call)[1:]
    except ValueError:
        words = call.split()[1:]  # a call over several lines, of which this is the first
    root = build_root(COMMANDS)
    in_order(root, click.Context(root, info_name="colab-bridge"), words)


def test_settings_in_the_documents_exist() -> None:
    named = {
        found[1]
        for page in PAGES
        for found in re.finditer(r"config (?:set|get|explain) ([a-z_.]+)", page.read_text(encoding="utf-8"))
    }
    assert named
    assert [key for key in sorted(named) if key_info(key) is None] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "generated/" not in t and not (page.parent / t).exists()]
    assert missing == []


def test_every_error_with_a_code_has_a_hint_and_fits_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    places = list(importlib.import_module("generate_reference").error_places())
    sys.modules.pop("generate_reference")
    assert len(places) > 40
    prefixes = {
        "UserError": ("CB-USER", "CB-NB", "CB-COLAB", "CB-DRIVE"),
        "ConflictError": ("CB-CONFLICT",),
        "TransientError": ("CB-TRANSIENT", "CB-COLAB", "CB-DRIVE"),
    }
    assert [p for p in places if not p.hint] == []
    assert [p for p in places if not p.code.startswith(prefixes.get(p.kind, ("CB-",)))] == []
