"""Configuration of the documentation; the reference is generated from the code at each build."""

from __future__ import annotations

import sys
from pathlib import Path

from colab_bridge import __version__

sys.path.insert(0, str(Path(__file__).parent))

from generate_reference import generate

project = "Colab Bridge"
author = copyright = "The Colab Bridge authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Colab Bridge {__version__}"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Protocol classes and values are documented by their docstrings; inherited members of exceptions are Python's own.
autodoc_default_options = {"members": True, "show-inheritance": True}

generate(Path(__file__).parent / "reference" / "generated")
