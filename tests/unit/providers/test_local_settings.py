"""What a local runtime tells its server, and what it keeps from its kernels."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from colab_bridge.errors import UserError
from colab_bridge.model.runtime import RuntimeRequest
from colab_bridge.providers.local import LocalProvider, kernel_environment, server_config
from colab_bridge.providers.local_interpreter import kernelspec


def test_our_settings_and_tokens_do_not_reach_user_code() -> None:
    seen = kernel_environment(
        {
            "COLAB_BRIDGE_ACCESS_TOKEN": "geheim",
            "COLAB_BRIDGE_PROVIDER": "local",
            "COLAB_BRIDGE_HOME": "/home/ann/cb",
            "PATH": "/bin",
            "API_KEY": "the user's own",
        }
    )
    assert seen == {"COLAB_BRIDGE_HOME": "/home/ann/cb", "PATH": "/bin", "API_KEY": "the user's own"}


def test_what_belongs_to_a_kernel_around_us_is_not_passed_on() -> None:
    seen = kernel_environment(
        {"JPY_PARENT_PID": "1", "JPY_SESSION_NAME": "x.ipynb", "MPLBACKEND": "module://inline", "VIRTUAL_ENV": "/v"}
    )
    assert seen == {}


def test_a_plot_backend_that_the_user_chose_is_kept() -> None:
    assert kernel_environment({"MPLBACKEND": "agg"}) == {"MPLBACKEND": "agg"}


def test_the_configuration_is_json_that_holds_only_loopback(tmp_path: Path) -> None:
    config = server_config(root=tmp_path, folder=tmp_path, port=0, token="t")
    assert json.loads(json.dumps(config)) == config
    assert config["ServerApp"]["ip"] == "127.0.0.1"
    assert config["ServerApp"]["allow_remote_access"] is False


def test_a_kernel_in_a_virtual_environment_runs_as_if_it_were_activated(tmp_path: Path) -> None:
    prefix = tmp_path / "a $HOME b"
    python = prefix / "bin" / "python"
    python.parent.mkdir(parents=True)
    (prefix / "pyvenv.cfg").touch()
    env = kernelspec(str(python))["env"]
    assert env["VIRTUAL_ENV"] == str(prefix).replace("$", "$$")
    assert env["PATH"] == str(python.parent).replace("$", "$$") + os.pathsep + "${PATH}"


def test_a_kernel_in_a_conda_environment_runs_as_if_it_were_activated(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    env = kernelspec(str(tmp_path / "bin" / "python"))["env"]
    assert env["CONDA_PREFIX"] == str(tmp_path)
    assert "VIRTUAL_ENV" not in env


def test_a_kernel_of_the_system_python_keeps_the_path(tmp_path: Path) -> None:
    assert kernelspec(str(tmp_path / "bin" / "python"))["env"] == {}


@pytest.mark.anyio
@pytest.mark.parametrize("port", ["80", -1, 65536, True, 8.5])
async def test_a_port_that_is_none_is_refused(tmp_path: Path, port: object) -> None:
    request = RuntimeRequest(session="s", project=str(tmp_path), options={"port": port})
    with pytest.raises(UserError) as caught:
        await LocalProvider(tmp_path).acquire(request)
    assert "port" in caught.value.message


@pytest.mark.anyio
async def test_a_project_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    request = RuntimeRequest(session="s", project=str(tmp_path / "nowhere"))
    with pytest.raises(UserError) as caught:
        await LocalProvider(tmp_path).acquire(request)
    assert "nowhere" in caught.value.message
