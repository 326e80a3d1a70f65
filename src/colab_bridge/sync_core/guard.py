"""Paths that run code when somebody opens, builds or merely enters the folder.

G1 is never written by the runtime; G2 waits for a review, or is applied and flagged with the policy ``trust``.
Names are compared by :func:`~colab_bridge.agent.sync.names.guard_key` on every system: an alias of a name is that name.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from functools import lru_cache

from colab_bridge.agent.sync.names import guard_key
from colab_bridge.agent.sync.tree import Directory, Entry
from colab_bridge.sync_core.model import Stop

__all__ = ["GUARD_LISTS_VERSION", "GuardLists", "guard", "is_bare_repository", "shadows_module"]

GUARD_LISTS_VERSION = 1

# Whole folders, at any depth.
_G1_FOLDERS = frozenset(
    [
        ".git",
        ".hg",
        ".svn",
        ".colab-bridge",
        ".vscode",
        ".idea",
        ".fleet",
        ".zed",
        ".vs",
        ".devcontainer",
        ".direnv",
        ".claude",
        ".cursor",
        ".codex",
        ".gemini",
        ".windsurf",
        ".continue",
        ".roo",
        ".clinerules",
        ".agents",
        ".husky",
        ".circleci",
        ".buildkite",
        ".gitlab",
        ".mise",
        ".ssh",
        ".aws",
        ".gnupg",
        "venv",
        ".venv",
        "env",
        "__pycache__",
    ]
)
# Names of files, at any depth.
_G1_NAMES = frozenset(
    [
        ".gitmodules",
        ".gitattributes",
        ".gitignore",
        ".gitconfig",
        ".colabbridgeignore",
        ".colab-bridge.toml",
        "colab-bridge.toml",
        ".envrc",
        ".bashrc",
        ".bash_profile",
        ".bash_login",
        ".bash_logout",
        ".profile",
        ".zshrc",
        ".zshenv",
        ".zprofile",
        ".zlogin",
        ".inputrc",
        "mise.toml",
        ".mise.toml",
        ".tool-versions",
        ".python-version",
        ".nvmrc",
        ".node-version",
        ".ruby-version",
        "agents.md",
        "agents.override.md",
        "claude.md",
        "claude.local.md",
        "gemini.md",
        ".cursorrules",
        ".windsurfrules",
        ".clinerules",
        ".goosehints",
        ".aider.conf.yml",
        "copilot-instructions.md",
        ".mcp.json",
        "mcp.json",
        "skill.md",
        "sitecustomize.py",
        "usercustomize.py",
        "pyvenv.cfg",
        ".npmrc",
        ".yarnrc",
        ".yarnrc.yml",
        ".pypirc",
        "pip.conf",
        "pip.ini",
        ".gitlab-ci.yml",
        ".travis.yml",
        "azure-pipelines.yml",
        "jenkinsfile",
        "bitbucket-pipelines.yml",
        ".drone.yml",
        "appveyor.yml",
        "desktop.ini",
        "autorun.inf",
        ".ds_store",
        ".netrc",
    ]
)
_G1_ENDINGS = (
    ".code-workspace",
    ".pth",
    ".pyc",
    ".pyo",
    ".lnk",
    ".url",
    ".scf",
    ".command",
    ".desktop",
    ".instructions.md",
)
_G1_PATHS = (".github/workflows", ".github/actions", ".github/instructions", ".github/prompts", ".github/agents")
_G2_NAMES = frozenset(
    [
        "conftest.py",
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "noxfile.py",
        "tox.ini",
        "pytest.ini",
        "makefile",
        "gnumakefile",
        "justfile",
        "rakefile",
        "taskfile.yml",
        "tasks.py",
        "dodo.py",
        "cmakelists.txt",
        "package.json",
        "dockerfile",
        "containerfile",
        "docker-compose.yml",
        "compose.yaml",
        "compose.yml",
        "docker-compose.yaml",
        ".pre-commit-config.yaml",
        "environment.yml",
        "environment.yaml",
        "uv.toml",
        "pipfile",
        "procfile",
        ".dockerignore",
    ]
)
_G2_PATTERNS = (
    ".env*",
    "requirements*.txt",
    "*requirements.txt",
    "constraints*.txt",
    "*.lock",
    "*-lock.json",
    "*-lock.yaml",
    "dockerfile.*",
    "*.dockerfile",
    "*.mk",
)
_G2_PATTERN = re.compile("|".join(translate(pattern) for pattern in _G2_PATTERNS))
_BIN_ACTIVATE = re.compile(r"^(activate|deactivate)(\..+)?$")
# git~1 and its like: the short names Windows makes, of every guarded name (dots are dropped, six letters are kept).
_SHORT = re.compile(r"^([^~]{1,6})~\d+(\.[^.]{0,3})?$")


def _short_stem(name: str) -> str:
    return name.lstrip(".").split(".", 1)[0].replace(".", "")[:6]


_G1_STEMS = frozenset(_short_stem(name) for name in _G1_FOLDERS | _G1_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLists:
    """What a user changed about the lists.

    Attributes:
        never: Further patterns of G1, compared with whole paths and with names.
        review: Further patterns of G2.
        allowed: Paths taken out of both, by a local settings edit.
        trust: G2 paths that exist already may be changed; what is new still waits.
    """

    never: tuple[str, ...] = ()
    review: tuple[str, ...] = ()
    allowed: frozenset[str] = field(default=frozenset())
    trust: bool = False


@lru_cache(maxsize=4096)
def _is_g1_name(key: str) -> bool:
    if key in _G1_FOLDERS or key in _G1_NAMES or key.endswith(_G1_ENDINGS):
        return True
    short = _SHORT.match(key)
    return short is not None and short.group(1) in _G1_STEMS


@lru_cache(maxsize=4096)
def _is_g2_pattern(key: str) -> bool:
    return _G2_PATTERN.match(key) is not None


def _matches(keys: list[str], patterns: tuple[str, ...]) -> bool:
    path = "/".join(keys)
    return any(fnmatchcase(path, pattern) or any(fnmatchcase(key, pattern) for key in keys) for pattern in patterns)


def guard(path: str, lists: GuardLists, *, existed: bool) -> Stop | None:
    """Return the guard class of a change of the runtime at a path.

    Args:
        path: Where.
        lists: The user's changes.
        existed: The path was there at the last agreement.
    """
    if path in lists.allowed:
        return None
    keys = [guard_key(name) for name in path.split("/")]
    whole = "/".join(keys)
    in_workflows = any(whole == part or f"/{part}/" in f"/{whole}/" for part in _G1_PATHS)
    in_bin = len(keys) > 1 and keys[-2] in {"bin", "scripts"} and _BIN_ACTIVATE.match(keys[-1])
    if any(_is_g1_name(key) for key in keys) or in_workflows or in_bin or _matches(keys, lists.never):
        return Stop.GUARDED
    review = keys[-1] in _G2_NAMES or any(map(_is_g2_pattern, keys))
    if review or _matches(keys, lists.review):
        return None if lists.trust and existed else Stop.REVIEW
    return None


def shadows_module(path: str) -> bool:
    """Return whether a new top-level path would be imported in place of a standard module (T13)."""
    stem = path[:-3] if path.lower().endswith(".py") else path
    return stem in sys.stdlib_module_names


def is_bare_repository(entry: Entry | None) -> bool:
    """Return whether a folder has the shape of a bare Git repository, whose settings run programs (T7)."""
    if not isinstance(entry, Directory):
        return False
    keys = {guard_key(name): child for name, child in entry.children.items()}
    return "head" in keys and all(isinstance(keys.get(name), Directory) for name in ("objects", "refs"))
