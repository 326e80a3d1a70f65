"""Getting the kernel that a run needs, in the folder it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from colab_bridge._util.atomic import remove_leftovers
from colab_bridge._util.ids import new_id
from colab_bridge.errors import UserError
from colab_bridge.execution.notebook_file import NotebookFile
from colab_bridge.execution.plan import inject_parameters, kernel_choice, plan_cells
from colab_bridge.execution.request import NotebookRequest, RunRequest
from colab_bridge.model.records import KernelPurpose, KernelRecord, RunKind, Session
from colab_bridge.sessions.kernels import KernelPool

__all__ = ["Preparation", "prepare_kernel", "prepare_notebook", "relative_folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A kernel that is ready for a run.

    Attributes:
        kernel: The kernel.
        cwd: Absolute folder to change into on the runtime; None where the kernel started in the right one.
        cells: Positions of the cells to execute.
        notices: Sentences for the user.
    """

    kernel: KernelRecord
    cwd: str | None = None
    cells: list[int] = field(default_factory=list)
    notices: tuple[str, ...] = ()


def prepare_notebook(part: NotebookRequest) -> NotebookFile:
    """Read the notebook of a request that is taken up again, with its parameters."""
    file = NotebookFile.load(Path(part.path), Path(part.output_path) if part.output_path else None)
    remove_leftovers(file.target)
    inject_parameters(file.content, part.parameters)
    return file


def relative_folder(folder: Path, root: str) -> str:
    """Return a folder relative to the project's root with ``/``; empty when it is the root or lies outside."""
    try:
        relative = folder.relative_to(root).as_posix()
    except ValueError:
        return ""
    return "" if relative == "." else relative


async def prepare_kernel(
    pool: KernelPool, session: Session, request: RunRequest, file: NotebookFile | None
) -> Preparation:
    """Find or start the kernel for a run.

    Code runs on the session's main kernel, which keeps its variables. A notebook gets a new kernel, or with
    ``resume`` or ``cells`` the one it had. Everything else gets a kernel of its own, as a program gets a process of
    its own.

    Raises:
        UserError: no kernelspec fits.
    """
    cwd = Path(request.cwd)
    if file is not None and request.notebook is not None:
        return await _for_notebook(pool, session, request.notebook, file)
    folder = relative_folder(cwd, session.project)
    if request.kind is RunKind.CODE:
        ended = await pool.clear_dead(session.name, KernelPurpose.MAIN, "main")
        main = pool.find(session.name, KernelPurpose.MAIN, "main")
        kernel = main or await pool.start(session.name, KernelPurpose.MAIN, "main", cwd=folder)
        return Preparation(kernel=kernel, notices=_replaced(ended))
    kernel = await pool.start(session.name, KernelPurpose.SCRIPT, new_id("script"), cwd=folder)
    if kernel.language != "python":
        await pool.delete(kernel.id)
        raise UserError(
            f"scripts and commands need a Python kernel; this runtime's default is {kernel.language}",
            hint="use a runtime whose default kernelspec is Python",
            code="CB-USER-033",
        )
    here = session.provider == "local" and not session.options.get("isolated")
    return Preparation(kernel=kernel, cwd=str(cwd) if here else None)


def _replaced(reason: str) -> tuple[str, ...]:
    """Return what is said where a kernel had ended that would have been used; nothing without a reason."""
    return (f"the kernel had ended ({reason}); this is a new one, without its variables",) if reason else ()


async def _for_notebook(pool: KernelPool, session: Session, part: NotebookRequest, file: NotebookFile) -> Preparation:
    cells = plan_cells(file.cells, resume=part.resume, only=part.cells)
    key = str(file.target)  # one notebook may be run several times at once, each into a file of its own
    ended = await pool.clear_dead(session.name, KernelPurpose.NOTEBOOK, key)
    old = pool.find(session.name, KernelPurpose.NOTEBOOK, key)
    continues = part.resume or part.cells is not None
    if old is not None and continues:
        return Preparation(kernel=old, cells=cells)
    if old is not None:
        await pool.delete(old.id)
    specs = await (await pool.server(session.name)).kernelspecs()
    languages = {name: info.language for name, info in specs.specs.items()}
    name, notice = kernel_choice(file.content["metadata"], languages, specs.default, part.kernel_name)
    if part.parameters and languages[name].lower() != "python":
        raise UserError(
            f"parameters are written in Python; this notebook's kernel is {languages[name]}",
            hint="set them in the notebook",
            code="CB-USER-034",
        )
    notices = [*_replaced(ended if continues else ""), *([notice] if notice else [])]
    if part.resume and cells and cells != plan_cells(file.cells):
        notices.append(
            "the kernel of the earlier run is gone: its variables are too, and cells before are not run again"
        )
    folder = relative_folder(file.path.parent, session.project)
    kernel = await pool.start(session.name, KernelPurpose.NOTEBOOK, key, spec=name, cwd=folder)
    return Preparation(kernel=kernel, cells=cells, notices=tuple(notices))
