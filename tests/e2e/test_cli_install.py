"""Packages on the runtime, and what is for Colab only, said where there is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from cli_support import Desk, desk_in


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("desk")) as made:
        yield made


def package(desk: Desk, name: str) -> str:
    folder = desk.project / "source"  # a folder of the package's own name would be found instead of it
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "{name}"\n'
    )
    (folder / "backend.py").write_text(f"""
import zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + name, "w") as wheel:
        wheel.writestr("{name}.py", "VALUE = 42\\n")
        wheel.writestr("{name}-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        wheel.writestr("{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\n")
        wheel.writestr("{name}-1.0.dist-info/RECORD", "")
    return name
""")
    return str(folder)


def test_a_requirements_file_is_installed_where_the_kernels_find_it(desk: Desk) -> None:
    (desk.project / "requirements.txt").write_text(f"--no-index\n{package(desk, 'cbtestpackage')}\n")
    done = desk.run("install", "-r", "requirements.txt")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert desk.out("exec", "import cbtestpackage; print(cbtestpackage.VALUE)") == "42\n"
    finally:
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "-q", "-y", "cbtestpackage"], check=False)


def test_a_package_that_does_not_exist_fails_with_pips_own_words(desk: Desk) -> None:
    done = desk.run("install", "--", "--no-index", "no-such-package-anywhere")
    assert done.returncode == 1
    assert "no-such-package-anywhere" in done.stdout


def test_nothing_to_install_is_a_usage_error(desk: Desk) -> None:
    done = desk.run("install")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].strip() == "colab-bridge install -r requirements.txt"


def test_a_requirements_file_that_is_not_there_is_said_before_anything_starts(desk: Desk) -> None:
    done = desk.run("install", "-r", "nowhere.txt")
    assert done.returncode == 2
    assert "nowhere.txt" in done.stderr


def test_drive_elsewhere_than_on_colab_is_refused_in_one_line(desk: Desk) -> None:
    done = desk.run("drive", "mount")
    assert done.returncode == 1
    assert "Colab runtimes only" in done.stderr
    assert "Traceback" not in done.stderr


def test_ssh_elsewhere_than_on_colab_says_what_there_is_instead(desk: Desk) -> None:
    desk.out("exec", "1")
    done = desk.run("ssh", "--proxy-mode")
    assert done.returncode == 2
    assert "colab-bridge console" in done.stderr
