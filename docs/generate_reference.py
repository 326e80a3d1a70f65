"""Writes the reference pages that come from the code: commands, settings, error codes.

Errors are read from the source text, so that a page can list them without provoking them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import colab_bridge
from colab_bridge.cli.main import COMMANDS
from colab_bridge.cli.root import build_root
from colab_bridge.config.schema import KEYS, RUNTIME_KEYS, KeyInfo

__all__ = ["ErrorPlace", "error_places", "generate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPlace:
    """One place in the code that makes an error.

    Attributes:
        code: Stable identifier.
        kind: Name of the class in ``errors.py``.
        message: Text, with ``…`` where values go.
        hint: Likewise; empty when it is put together elsewhere.
    """

    code: str
    kind: str
    message: str
    hint: str


def generate(folder: Path) -> None:
    """Write all pages into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"commands.md": _commands(), "settings.md": _settings(), "errors.md": _errors()}
    for name, lines in pages.items():
        text = "\n".join(lines) + "\n"
        path = folder / name
        # Unchanged pages keep their time, so that a second build has nothing to do.
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _commands() -> Iterator[str]:
    yield "# Commands\n\nThe help pages of `colab-bridge`, one after the other."
    root = build_root(COMMANDS)
    yield from _help_of(root, click.Context(root, info_name="colab-bridge", max_content_width=100, terminal_width=100))


def _help_of(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"\n## {context.command_path}\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None:
                yield from _help_of(found, click.Context(found, parent=context, info_name=name))


def _settings() -> Iterator[str]:
    yield "# Settings\n\nWhere they are written, and which one wins: [configuration](../../how-to/configuration.md)."
    yield "\n| key | default | what it is |\n| --- | --- | --- |"
    for info in KEYS.values():
        yield _setting_row(info, info.key)
    yield "\n## Runtimes\n\n`NAME` stands for the name that you give to a runtime.\n"
    yield "| key | default | what it is |\n| --- | --- | --- |"
    for info in RUNTIME_KEYS.values():
        yield _setting_row(info, f"runtimes.NAME.{info.key}")


def _setting_row(info: KeyInfo, key: str) -> str:
    default = str(info.default).lower() if isinstance(info.default, bool) else str(info.default)
    return f"| `{key}` | {f'`{default}`' if default else ''} | {info.description} |"


def _errors() -> Iterator[str]:
    yield "# Error codes\n\n`--json` shows the code of an error. `…` stands for names, paths and numbers."
    yield "\n| code | what it says | what to do |\n| --- | --- | --- |"
    seen: set[tuple[str, str]] = set()
    for place in sorted(error_places(), key=lambda p: (p.code, p.message)):
        if (place.code, place.message) not in seen:
            seen.add((place.code, place.message))
            yield f"| `{place.code}` | {_cell(place.message)} | {_cell(place.hint)} |"


def _cell(text: str) -> str:
    if not text:
        return ""
    return "".join("\\" + c if c in r"\`*_{}[]<>|$" else c for c in text).replace("\n", " ")


def error_places(root: Path | None = None) -> Iterator[ErrorPlace]:
    """Find the errors with a code of their own in the package's source.

    Args:
        root: Folder of the package; the imported one when omitted.
    """
    for path in sorted((root or Path(colab_bridge.__file__).parent).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
                place = _place(node.func.id, node)
                if place:
                    yield place


def _place(kind: str, call: ast.Call) -> ErrorPlace | None:
    keywords = {k.arg: k.value for k in call.keywords if k.arg}
    code = keywords.get("code")
    if not isinstance(code, ast.Constant) or not isinstance(code.value, str) or not call.args:
        return None
    hint = _text(keywords["hint"]) if "hint" in keywords else ""
    return ErrorPlace(code=code.value, kind=kind, message=_text(call.args[0]), hint=hint)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body)} / {_text(node.orelse)}"
    return "…"
