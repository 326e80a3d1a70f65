"""How the command line words what runs and how far it is."""

from __future__ import annotations

import os
from typing import Any

import pytest

from colab_bridge.cli.listing import title_text
from colab_bridge.cli.progress import progress_text


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        ({}, ""),
        (None, ""),
        ({"done": 0, "total": 0}, ""),
        ({"done": 2, "total": 12}, "cell 3 of 12"),
        ({"done": 12, "total": 12}, "cell 12 of 12"),
        ({"fraction": 0.456, "n": None, "of": None}, "46 %"),
        ({"fraction": 0.5, "n": 2e6, "of": 4e6, "eta_s": 240.0}, "50 % (2M/4M), about 4 min left"),
        ({"fraction": 0.99, "n": 99_999, "of": 123_456_789}, "99 % (99999/123.5M)"),
        ({"done": 0, "total": 2, "cell_eta_s": 30, "eta_s": None}, "cell 1 of 2, about 30 s left in this cell"),
        ({"eta_s": 30, "cell_eta_s": 10}, "about 30 s left"),
    ],
)
def test_progress_in_one_line(progress: Any, text: str) -> None:
    assert progress_text(progress) == text


@pytest.mark.skipif(os.name != "posix", reason="paths as POSIX writes them")
@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("/home/me/p/train.py", "train.py"),
        ("/home/me/p/sub/train.py", "sub/train.py"),
        ("/home/me/pp/train.py", "/home/me/pp/train.py"),
        ("/elsewhere/" + "x" * 80 + "/train.py", "…" + "x" * 50 + "/train.py"),
        ("-m package.module", "-m package.module"),
        ("y" * 80, "y" * 59 + "…"),
    ],
)
def test_a_path_is_shown_from_here_and_keeps_its_name(title: str, text: str) -> None:
    assert title_text(title, "/home/me/p") == text
