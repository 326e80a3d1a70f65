"""What the API shows of sessions, kernels and runs. Secrets stay behind."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from colab_bridge.app import App
from colab_bridge.errors import RuntimeLostError
from colab_bridge.model.records import KernelRecord, Run, Session

__all__ = ["kernel_view", "run_view", "session_view"]


def session_view(app: App, session: Session) -> dict[str, Any]:
    """Return a session as the API shows it."""
    url = str(session.options.get("url") or "")
    parts = urlsplit(url)
    return {
        "name": session.name,
        "project": session.project,
        "provider": session.provider,
        "runtime": session.options.get("runtime"),
        "default": session.default,
        "chosen_at": session.chosen_at,
        "state": str(session.state),
        "label": session.handle.label if session.handle else "",
        "created_at": session.created_at,
        "isolated": bool(session.options.get("isolated")),
        "root": session.handle.root if session.handle else None,
        "url": f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if url else None,
        "transport": app.pool.agent_view(session),
        "machine": None,
        "account": session.account,
        "kept": app.keeper.view(session),
        "kernels": [kernel_view(app, kernel) for kernel in app.pool.kernels(session.name)],
    }


def kernel_view(app: App, kernel: KernelRecord, *, reattached: bool = False, restarted: bool = False) -> dict[str, Any]:
    """Return a kernel as the API shows it."""
    try:
        hub = app.pool.hub(kernel.id)
        state, first, following = str(hub.state), hub.record.first_seq, hub.record.next_seq
    except RuntimeLostError:
        state, first, following = "dead", 0, 0
    return {
        "id": kernel.id,
        "session": kernel.session,
        "purpose": str(kernel.purpose),
        "key": kernel.key,
        "spec": kernel.spec,
        "language": kernel.language,
        "state": state,
        "reattached": reattached,
        "restarted": restarted,
        "first_seq": first,
        "next_seq": following,
        "remote_id": kernel.remote_id,
        "created_at": kernel.created_at,
        "transport": app.pool.transport(kernel.id).way,
        "transport_reason": app.pool.transport(kernel.id).reason,
    }


def run_view(app: App, run: Run) -> dict[str, Any]:
    """Return a run as the API shows it."""
    part = run.spec.get("notebook") or {}
    return {
        "id": run.id,
        "session": run.session,
        "account": str(run.spec.get("account") or ""),
        "kernel": run.kernel,
        "kind": str(run.kind),
        "title": run.title,
        "status": str(run.status),
        "exit_code": run.exit_code,
        "first_seq": run.first_seq,
        "created_at": run.created_at,
        "finished_at": run.finished_at,
        "output_may_be_lost": run.output_may_be_lost,
        "progress": {
            "done": run.progress.get("done", 0),
            "total": len(run.progress.get("cells", [])),
            **app.estimates.progress(run.id),
        },
        "units": app.keeper.run_units(run),
        "notebook": part.get("output_path") or part.get("path"),
        "detached": bool(run.spec.get("detached")),
    }
