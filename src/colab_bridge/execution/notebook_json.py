"""A notebook as the bytes of its file, as Jupyter writes it: indent 1, sorted keys, texts split into lines.

The bytes come in pieces. A notebook may hold a single output of many megabytes, which would otherwise be in memory
several times: as its lines, as JSON, as the whole file in characters and as the whole file in bytes.

Source: the notebook format 4.5, nbformat's ``v4/rwbase.py`` for how texts are split into lines.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

__all__ = ["notebook_pieces"]

Notebook = dict[str, Any]

#: Longer texts are encoded piece by piece.
PIECE_CHARACTERS = 256 * 1024
_TOO_DEEP = {"output_type": "stream", "name": "stderr", "text": ["[an output that is nested too deeply for a file]\n"]}


def notebook_pieces(notebook: Notebook) -> Iterator[bytes]:
    """Yield the file of a notebook in pieces."""
    giants = _Giants()
    lined = {**notebook, "cells": [_split_cell(cell, giants) for cell in notebook["cells"]]}
    try:
        text = _dumps(lined)
    except RecursionError:
        # One value that a kernel nested without end must not take all other outputs with it.
        text = _dumps(_flattened(lined))
    yield from giants.put_back(text + "\n")


class _Giants:
    """Giant texts that are taken out before the rest is encoded; each leaves a mark, which nobody could print."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(16)
        self._texts: list[tuple[str, bool]] = []

    def take(self, text: str, *, lines: bool) -> Any:
        """Return what stands for a text in JSON: its lines or itself, or a mark if it is giant."""
        if len(text) > PIECE_CHARACTERS:
            self._texts.append((text, lines))
            return f"{self._mark}{len(self._texts) - 1}"
        return text.splitlines(True) if lines else text

    def put_back(self, text: str) -> Iterator[bytes]:
        """Yield an encoded notebook in pieces, with the giant texts in the places of their marks."""
        position = 0
        for found in re.finditer(f'"{self._mark}([0-9]+)"', text):
            yield _encode(text[position : found.start()])
            giant, lines = self._texts[int(found[1])]
            if lines:
                line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
                yield from _lines(giant, " " * (len(line) - len(line.lstrip(" "))))
            else:
                yield from _string(giant)
            position = found.end()
        yield _encode(text[position:])


def _lines(text: str, indent: str) -> Iterator[bytes]:
    """Yield the list of the lines of a text."""
    before, between = f"[\n{indent} ", f",\n{indent} "
    for block in _blocks(text):
        lines = block.splitlines(True)
        yield _encode(before)
        if len(block) <= PIECE_CHARACTERS:
            yield _encode(between.join([json.dumps(line, ensure_ascii=False) for line in lines]))
        else:
            for number, line in enumerate(lines):
                yield _encode(between if number else "")
                yield from _string(line)
        before = between
    yield _encode(f"\n{indent}]")


def _blocks(text: str) -> Iterator[str]:
    """Cut a text behind ends of lines."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE_CHARACTERS) + 1
        end = end or text.find("\n", start + PIECE_CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end


def _string(text: str) -> Iterator[bytes]:
    if len(text) <= PIECE_CHARACTERS:
        yield _encode(json.dumps(text, ensure_ascii=False))
        return
    yield b'"'
    for start in range(0, len(text), PIECE_CHARACTERS):
        yield _encode(json.dumps(text[start : start + PIECE_CHARACTERS], ensure_ascii=False)[1:-1])
    yield b'"'


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)


def _flattened(notebook: Notebook) -> Notebook:
    cells = [
        {**cell, "outputs": [output if _fits(output) else dict(_TOO_DEEP) for output in cell["outputs"]]}
        if isinstance(cell.get("outputs"), list)
        else cell
        for cell in notebook["cells"]
    ]
    metadata = {key: value for key, value in notebook["metadata"].items() if _fits(value)}
    return {**notebook, "cells": cells, "metadata": metadata}


def _fits(value: Any) -> bool:
    try:
        _dumps([[[[[value]]]]])  # as deep as it lies in the file, and a little more
    except RecursionError:
        return False
    return True


def _split_cell(cell: dict[str, Any], giants: _Giants) -> dict[str, Any]:
    cell = copy.copy(cell)
    if isinstance(cell.get("source"), str):
        cell["source"] = cell["source"].splitlines(True)
    if isinstance(cell.get("outputs"), list):
        cell["outputs"] = [_split_output(output, giants) for output in cell["outputs"]]
    if isinstance(cell.get("attachments"), dict):
        cell["attachments"] = {name: _split_bundle(bundle, giants) for name, bundle in cell["attachments"].items()}
    return cell


def _split_output(output: Any, giants: _Giants) -> Any:
    if not isinstance(output, dict):
        return output
    output = dict(output)
    if isinstance(output.get("text"), str):
        output["text"] = giants.take(output["text"], lines=True)
    if "data" in output:
        output["data"] = _split_bundle(output["data"], giants)
    return output


def _split_bundle(bundle: Any, giants: _Giants) -> Any:
    if not isinstance(bundle, dict):
        return bundle
    return {
        mime: giants.take(value, lines=_has_lines(mime)) if isinstance(value, str) else value
        for mime, value in bundle.items()
    }


def _has_lines(mime: str) -> bool:
    return mime.startswith("text/") or mime in ("application/javascript", "image/svg+xml")
