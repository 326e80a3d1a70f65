"""Kernelspecs on the disk: ours, and nobody else's."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from colab_bridge.errors import ConflictError, UserError
from colab_bridge.kernels.proxy.arguments import parse_arguments
from colab_bridge.kernels.specs import (
    COLAB_SPECS,
    RuntimeSpecInfo,
    default_target,
    install,
    installed,
    kernel_json,
    prefix_target,
    remove,
    spec_name,
)

LOCAL = RuntimeSpecInfo(runtime="local", display_name="Colab Bridge (local)")
NAMES = {"colab-bridge-local": LOCAL}


def test_the_file_is_what_front_ends_need() -> None:
    assert kernel_json(LOCAL, "/usr/bin/python3", {}) == {
        "argv": [
            "/usr/bin/python3",
            "-m",
            "colab_bridge.kernels.proxy",
            "--runtime",
            "local",
            "-f",
            "{connection_file}",
        ],
        "display_name": "Colab Bridge (local)",
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {
            "debugger": True,
            "supported_encryption": ["curve"],
            "colab_bridge": {"schema": 1, "runtime": "local"},
        },
    }


def test_vs_code_must_not_take_it_for_ipykernel() -> None:
    assert not any("ipykernel" in argument for argument in kernel_json(LOCAL, "/py", {})["argv"])


def test_another_language_names_its_kernel_and_has_no_debugger() -> None:
    info = RuntimeSpecInfo(runtime="gpu", display_name="R", kernel_name="ir", language="R")
    spec = kernel_json(info, "/py", {})
    assert spec["argv"][3:7] == ["--runtime", "gpu", "--kernel-name", "ir"]
    assert spec["language"] == "R"
    assert spec["metadata"]["debugger"] is False


def test_a_home_of_our_own_is_passed_on(tmp_path: Path) -> None:
    assert kernel_json(LOCAL, "/py", {"COLAB_BRIDGE_HOME": str(tmp_path)})["env"] == {
        "COLAB_BRIDGE_HOME": str(tmp_path)
    }


def test_an_installed_spec_is_listed_and_removed(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "kernels"
    assert install(NAMES, target, python="/py", environ={}) == [target / "colab-bridge-local"]
    (found,) = installed(target)
    assert (found.name, found.runtime, found.python) == ("colab-bridge-local", "local", "/py")
    assert (found.path / "logo-svg.svg").read_text(encoding="utf-8").startswith("<svg")
    assert remove(target) == [found.path]
    assert list(target.iterdir()) == []


def test_a_second_install_replaces_the_first(tmp_path: Path) -> None:
    install(NAMES, tmp_path, python="/old", environ={})
    install(NAMES, tmp_path, python="/new", environ={})
    assert [spec.python for spec in installed(tmp_path)] == ["/new"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_everybody_may_read_it(tmp_path: Path) -> None:
    (folder,) = install(NAMES, tmp_path, environ={})
    assert stat.S_IMODE((folder / "kernel.json").stat().st_mode) == 0o644


@pytest.mark.parametrize("content", ['{"argv": ["x"], "display_name": "theirs", "language": "python"}', "{", "[]"])
def test_a_kernelspec_of_somebody_else_is_never_touched(tmp_path: Path, content: str) -> None:
    theirs = tmp_path / "colab-bridge-local"
    theirs.mkdir()
    (theirs / "kernel.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConflictError):
        install({"colab-bridge-other": LOCAL, **NAMES}, tmp_path, environ={})
    with pytest.raises(UserError):
        remove(tmp_path, ["colab-bridge-local"])
    assert remove(tmp_path) == []
    assert installed(tmp_path) == []
    assert (theirs / "kernel.json").read_text(encoding="utf-8") == content
    assert [folder.name for folder in tmp_path.iterdir()] == ["colab-bridge-local"]


def test_only_the_named_ones_are_removed(tmp_path: Path) -> None:
    install({"colab-bridge-a": LOCAL, "colab-bridge-b": LOCAL}, tmp_path, environ={})
    assert remove(tmp_path, ["colab-bridge-a"]) == [tmp_path / "colab-bridge-a"]
    assert [spec.name for spec in installed(tmp_path)] == ["colab-bridge-b"]


def test_no_folder_means_no_specs(tmp_path: Path) -> None:
    assert installed(tmp_path / "none") == []
    assert remove(tmp_path / "none") == []


def test_a_folder_that_cannot_be_written_is_said_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as failure:
        install(NAMES, tmp_path / "file" / "kernels", environ={})
    assert "--prefix" in failure.value.hint


def test_names_follow_the_runtime_and_are_checked() -> None:
    assert spec_name("Local") == "colab-bridge-local"
    with pytest.raises(UserError):
        spec_name("no spaces")
    with pytest.raises(UserError):
        spec_name("../up")


def test_the_target_is_where_jupyter_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pytest.importorskip("jupyter_core.paths")
    monkeypatch.delenv("JUPYTER_DATA_DIR", raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "0")
    assert default_target(os.environ) == Path(paths.jupyter_data_dir()) / "kernels"
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert default_target(os.environ) == Path(paths.jupyter_data_dir()) / "kernels"
    assert default_target({"JUPYTER_DATA_DIR": str(tmp_path)}) == tmp_path / "kernels"


def test_a_prefix_has_its_own_folder() -> None:
    assert prefix_target(Path("/env")) == Path("/env/share/jupyter/kernels")


def test_jupyter_itself_finds_and_reads_the_spec(tmp_path: Path) -> None:
    kernelspec = pytest.importorskip("jupyter_client.kernelspec")
    install(NAMES, tmp_path / "kernels", environ={})
    manager = kernelspec.KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")])
    spec = manager.get_kernel_spec("colab-bridge-local")
    assert spec.interrupt_mode == "message"
    assert json.loads(spec.to_json())["metadata"]["colab_bridge"]["runtime"] == "local"


def test_there_is_a_kernel_for_each_machine_of_colab_and_one_that_asks() -> None:
    assert [spec_name(info.runtime) for info in COLAB_SPECS] == [
        "colab-bridge-cpu",
        "colab-bridge-t4",
        "colab-bridge-l4",
        "colab-bridge-a100",
        "colab-bridge-tpu",
        "colab-bridge-colab",
    ]


@pytest.mark.parametrize("info", COLAB_SPECS, ids=lambda info: info.runtime)
def test_the_proxy_understands_what_a_kernelspec_says_of_its_machine(info: RuntimeSpecInfo) -> None:
    argv = kernel_json(info, sys.executable, {})["argv"]
    found = parse_arguments([*argv[3:-1], "/tmp/connection.json"])
    assert found.provider == "colab"
    assert found.runtime is None
    assert found.asks is (info.runtime == "colab")
    named = {"t4": {"gpu": "T4"}, "l4": {"gpu": "L4"}, "a100": {"gpu": "A100"}, "tpu": {"tpu": "V6E1,V5E1"}}
    assert dict(found.options) == named.get(info.runtime, {})
