"""The file that keeps builds repeatable."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINS = dict(line.split("==") for line in LINES if not line.startswith("#"))


def wanted() -> list[str]:
    lists = [
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    return sorted({text for one in lists for text in one})


def test_each_line_is_a_comment_or_a_name_and_a_version() -> None:
    line_of_a_pin = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+")
    assert [line for line in LINES if not line.startswith("# ") and not line_of_a_pin.fullmatch(line)] == []


@pytest.mark.parametrize("text", wanted())
def test_every_direct_dependency_has_a_version_that_its_floor_allows(text: str) -> None:
    requirement = Requirement(text)
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_no_lock_file_with_addresses_is_kept() -> None:
    assert [
        n for n in ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile.lock") if (ROOT / n).exists()
    ] == []
