"""Notebooks for tests: written small, read back with nbformat's own check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat

Cell = dict[str, Any]


def code(source: str, *tags: str, cell_id: str | None = None) -> Cell:
    """Return a code cell without outputs; its id is filled in by :func:`write`."""
    cell: Cell = {
        "cell_type": "code",
        "metadata": {"tags": list(tags)} if tags else {},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    if cell_id:
        cell["id"] = cell_id
    return cell


def write(path: Path, *cells: str | Cell, kernel: str = "python3") -> Path:
    """Write a notebook; texts become code cells, and cells without an id get ``c0``, ``c1`` ..."""
    full = [code(cell) if isinstance(cell, str) else dict(cell) for cell in cells]
    for number, cell in enumerate(full):
        cell.setdefault("id", f"c{number}")
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    content = {"cells": full, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def read(path: Path) -> list[Cell]:
    """Return the cells of a notebook, after nbformat has found it valid."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return [dict(cell) for cell in notebook.cells]


def printed(cell: Cell, name: str = "stdout") -> str:
    """Return what a cell printed."""
    streams = [o for o in cell.get("outputs", []) if o["output_type"] == "stream" and o["name"] == name]
    return "".join("".join(output["text"]) for output in streams)  # a text, or in the file itself a list of lines


def errors(cell: Cell) -> list[str]:
    """Return the names of the exceptions among a cell's outputs."""
    return [o["ename"] for o in cell.get("outputs", []) if o["output_type"] == "error"]
