"""``colab-bridge kernels``: kernelspecs for JupyterLab, VS Code, PyCharm, nbclient and others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from colab_bridge.cli.context import Invocation
from colab_bridge.cli.root import json_option
from colab_bridge.config.settings import load_settings
from colab_bridge.kernels.specs import (
    COLAB_SPECS,
    RuntimeSpecInfo,
    default_target,
    install,
    installed,
    prefix_target,
    remove,
    spec_name,
)

__all__ = ["kernels"]

_LOCAL = "local"
_prefix_option = click.option(
    "--prefix", type=click.Path(path_type=Path), help="Environment folder, for example a .venv."
)
_sys_prefix_option = click.option("--sys-prefix", is_flag=True, help="The environment that colab-bridge runs in.")


@click.group()
def kernels() -> None:
    """Make runtimes appear as kernels in JupyterLab, VS Code, PyCharm, nbclient and every other Jupyter front end."""


@kernels.command("install")
@_prefix_option
@_sys_prefix_option
@click.option("--colab/--no-colab", default=True, help="Also machines of Google Colab.  [default: yes]")
@json_option
@click.pass_obj
def install_specs(invocation: Invocation, prefix: Path | None, sys_prefix: bool, colab: bool) -> None:
    """Write kernelspecs for this machine, for each configured runtime, and for the machines of Colab.

    They go to your own Jupyter folder, where every front end looks, unless you name another place. A machine of Colab
    is got when you run the first cell, not before.
    """
    settings = load_settings(invocation.paths, Path(invocation.project), invocation.environment(), {}).settings
    infos = [RuntimeSpecInfo(runtime=_LOCAL, display_name="Colab Bridge (local)")]
    infos += [
        RuntimeSpecInfo(runtime=name, display_name=f"Colab Bridge ({name})", kernel_name=runtime.kernel or None)
        for name, runtime in sorted(settings.runtimes.items())
    ]
    configured = {info.runtime for info in infos}
    infos += [info for info in COLAB_SPECS if colab and info.runtime not in configured]
    target = _target(prefix, sys_prefix=sys_prefix)
    paths = install({spec_name(info.runtime): info for info in infos}, target)
    if invocation.as_json:
        invocation.console.json({"installed": [{"name": path.name, "path": str(path)} for path in paths]})
        return
    for info, path in zip(infos, paths, strict=True):
        invocation.console.note(f"{info.display_name}: {path}")
    invocation.console.hint(f"try it: jupyter console --kernel {spec_name(_LOCAL)}")


@kernels.command("list")
@_prefix_option
@_sys_prefix_option
@json_option
@click.pass_obj
def list_specs(invocation: Invocation, prefix: Path | None, sys_prefix: bool) -> None:
    """List the kernelspecs of Colab Bridge."""
    found = installed(_target(prefix, sys_prefix=sys_prefix))
    if invocation.as_json:
        invocation.console.json(
            {
                "kernelspecs": [
                    {
                        "name": spec.name,
                        "runtime": spec.runtime,
                        "display_name": spec.display_name,
                        "path": str(spec.path),
                    }
                    for spec in found
                ]
            }
        )
    elif found:
        rows = [[spec.name, spec.runtime, spec.display_name, spec.path] for spec in found]
        invocation.console.table(("kernelspec", "runtime", "shown as", "folder"), rows)
    else:
        invocation.console.note("none is installed; do it: colab-bridge kernels install")


@kernels.command("remove")
@_prefix_option
@_sys_prefix_option
@json_option
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.pass_obj
def remove_specs(invocation: Invocation, names: tuple[str, ...], prefix: Path | None, sys_prefix: bool) -> None:
    """Remove kernelspecs of Colab Bridge, all when none is named. Those of others are never touched."""
    paths = remove(_target(prefix, sys_prefix=sys_prefix), names or None)
    if invocation.as_json:
        invocation.console.json({"removed": [path.name for path in paths]})
    else:
        invocation.console.note(f"removed: {', '.join(path.name for path in paths) or 'nothing, none was installed'}")


def _target(prefix: Path | None, *, sys_prefix: bool) -> Path:
    if prefix is not None:
        return prefix_target(prefix)
    return prefix_target(Path(sys.prefix)) if sys_prefix else default_target(os.environ)
