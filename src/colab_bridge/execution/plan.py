"""Which cells of a notebook a run executes, and its parameters. Pure."""

from __future__ import annotations

import keyword
import uuid
from collections.abc import Mapping
from typing import Any

from colab_bridge.errors import UserError
from colab_bridge.execution.notebook_file import cell_source

__all__ = ["inject_parameters", "kernel_choice", "plan_cells", "resume_position", "tags_of"]

Cell = dict[str, Any]

_PARAMETERS = "parameters"
_INJECTED = "injected-parameters"


def tags_of(cell: Cell) -> frozenset[str]:
    """Return the tags of a cell."""
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset()


def _runnable(cell: Cell) -> bool:
    return cell.get("cell_type") == "code" and bool(cell_source(cell).strip()) and "skip-execution" not in tags_of(cell)


def plan_cells(cells: list[Cell], *, resume: bool = False, only: list[int] | None = None) -> list[int]:
    """Return the positions of the cells to execute, in order.

    Args:
        cells: All cells of the notebook.
        resume: Begin at the first code cell that failed or did not run.
        only: Positions asked for explicitly; they are taken in the order given.

    Raises:
        UserError: a position is not that of a code cell.
    """
    if only is not None:
        for position in only:
            if not 0 <= position < len(cells) or cells[position].get("cell_type") != "code":
                raise UserError(
                    f"cell {position} is no code cell (the notebook has {len(cells)} cells)",
                    hint="count cells from 0, all kinds",
                    code="CB-USER-031",
                )
        return list(dict.fromkeys(only))  # one request a cell and run; a second one would never be answered
    start = resume_position(cells) if resume else 0
    return [position for position, cell in enumerate(cells) if position >= start and _runnable(cell)]


def resume_position(cells: list[Cell]) -> int:
    """Return the position of the first code cell that failed or did not run; the number of cells when there is none."""
    for position, cell in enumerate(cells):
        if not _runnable(cell):
            continue
        outputs = cell.get("outputs")
        failed = isinstance(outputs, list) and any(
            isinstance(output, dict) and output.get("output_type") == "error" for output in outputs
        )
        if cell.get("execution_count") is None or (failed and "raises-exception" not in tags_of(cell)):
            return position
    return len(cells)


def inject_parameters(notebook: dict[str, Any], parameters: Mapping[str, Any]) -> None:
    """Put a cell with parameter values after the one tagged ``parameters``, replacing an earlier such cell.

    Without a tagged cell the new one comes first, as in papermill.

    Args:
        notebook: Changed in place.
        parameters: JSON values by Python name.

    Raises:
        UserError: a name is no Python identifier.
    """
    if not parameters:
        return
    for name in parameters:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(f"'{name}' is no name for a parameter", hint="use --param name=value", code="CB-USER-032")
    source = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    cell: Cell = {
        "cell_type": "code",
        "metadata": {"tags": [_INJECTED]},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    cells: list[Cell] = notebook["cells"]
    if (notebook.get("nbformat_minor") or 0) >= 5:
        # The same at each reading, so that a daemon that takes over finds the cell again.
        taken = any(old.get("id") == _INJECTED and _INJECTED not in tags_of(old) for old in cells)
        cell["id"] = uuid.uuid4().hex[:8] if taken else _INJECTED
    for position, old in enumerate(cells):
        if _INJECTED in tags_of(old):
            cells[position] = cell
            return
    after = next((position for position, old in enumerate(cells) if _PARAMETERS in tags_of(old)), -1)
    cells.insert(after + 1, cell)


def kernel_choice(
    metadata: Mapping[str, Any], specs: Mapping[str, str], default: str, asked: str | None
) -> tuple[str, str]:
    """Choose the kernelspec for a notebook.

    A notebook saved elsewhere often names an environment that exists only there. Where it was really run before
    (``language_info`` is present), any kernelspec of its language will do, and that is said.

    Args:
        metadata: The notebook's metadata.
        specs: Language by kernelspec name, on the runtime.
        default: The runtime's default kernelspec.
        asked: Name given explicitly.

    Returns:
        Kernelspec name, and a sentence for the user when it is not the notebook's own; empty otherwise.

    Raises:
        UserError: no kernelspec fits.
    """
    spec = metadata.get("kernelspec") if isinstance(metadata.get("kernelspec"), dict) else {}
    info = metadata.get("language_info") if isinstance(metadata.get("language_info"), dict) else {}
    wanted = asked or str((spec or {}).get("name") or "")
    if wanted in specs:
        return wanted, ""
    if wanted.startswith("colab-bridge") or not wanted:
        language = str((info or {}).get("name") or (spec or {}).get("language") or "python").lower()
        if specs.get(default, "").lower() == language:
            return default, ""
    language = str((info or {}).get("name") or "").lower()
    if not asked and language:
        for name in sorted(specs, key=lambda name: (name != default, name)):
            if specs[name].lower() == language:
                return name, f"kernelspec '{wanted}' does not exist on this runtime; '{name}' is used"
    known = ", ".join(sorted(specs)) or "none"
    raise UserError(
        f"no kernelspec is called '{wanted}' on this runtime (known: {known})",
        hint=f"choose one: colab-bridge run --kernel {default} NOTEBOOK",
        code="CB-USER-030",
    )
