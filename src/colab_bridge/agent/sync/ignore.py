"""What travels: the built-in list, secrets, the project's own rules and what Git ignores.

The rules are made at home, told to the runtime as text and named by an id that every reply repeats; the runtime never
has rules of its own. Order of weight, the last one that speaks decides: built-in list, secrets,
``.colabbridgeignore`` (with ``!`` to include again). What Git ignores travels within a budget, or not at all in
strict mode. ``.git`` and ``.colab-bridge`` never travel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from .names import guard_key
from .patterns import Matcher, Rule, escape_pattern, parse_rules
from .reasons import Reason
from .tree import EMPTY, Directory, Entry, join

__all__ = [
    "BUILT_IN",
    "NEVER_TRAVELS",
    "SECRETS",
    "Cause",
    "FolderRules",
    "IgnoreRules",
    "Standing",
    "Verdict",
    "include_lines",
    "strip_ignored",
]

OWN_FILE = ".colabbridgeignore"
_NEVER = frozenset({".git", ".colab-bridge"})

BUILT_IN = """\
# version control, our own folder
.git
.hg/
.svn/
.colab-bridge/
# environments and installed packages
.venv/
venv/
.conda/
.tox/
.nox/
.direnv/
node_modules/
.eggs/
*.egg-info/
# caches
__pycache__/
*.py[cod]
.cache/
.pytest_cache/
.mypy_cache/
.ruff_cache/
.hypothesis/
.ipynb_checkpoints/
.virtual_documents/
.gradle/
.terraform/
# build output
build/
dist/
htmlcov/
.coverage
# editors and systems
.*.sw?
4913
*~
.#*
*.tmp.[0-9]*
.*.tmp
.goutputstream-*
*___jb_*___
.~lock.*#
.nfs[0-9a-f]*
.DS_Store
Thumbs.db
desktop.ini
.Trash*/
"""

SECRETS = """\
.env*
!.env.example
!.env.sample
!.env.template
*.pem
*.key
*.p12
*.pfx
*.jks
*.keystore
*.ppk
*.kdbx
id_rsa
id_dsa
id_ecdsa
id_ed25519
.netrc
_netrc
.pgpass
.pypirc
.npmrc
.htpasswd
.git-credentials
.ssh/
.aws/
.azure/
.gnupg/
.kube/
.kaggle/
kaggle.json
credentials.json
client_secret*.json
*service_account*.json
*service-account*.json
application_default_credentials.json
.streamlit/secrets.toml
"""


class Standing(str, Enum):
    """What becomes of a path."""

    TRAVELS = "travels"
    INCLUDED = "included"  # asked for by name: no budget applies
    BUDGET = "budget"  # Git ignores it: travels within the budget
    IGNORED = "ignored"


class Cause(Reason):
    """Which list decided, with a sentence for people."""

    DEFAULT = "default", "it is part of the project"
    NEVER = "never", "this never travels"
    BUILT_IN = "built-in", "the built-in list leaves it out"
    SECRET = "secret", "it may hold a secret"
    OWN = "own", ".colabbridgeignore decides"
    GIT = "git", "Git ignores it"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one path, and why.

    Attributes:
        standing: The decision.
        cause: The list that decided.
        rule: The line that decided, empty when none did.
        source: Folder of the file with that line.
    """

    standing: Standing
    cause: Cause
    rule: str = ""
    source: str = ""

    @property
    def travels(self) -> bool:
        """Whether the path takes part in the sync, budgets aside."""
        return self.standing is not Standing.IGNORED


_PART = Verdict(Standing.TRAVELS, Cause.DEFAULT)
NEVER_TRAVELS = Verdict(Standing.IGNORED, Cause.NEVER)


class _Source(NamedTuple):
    """One list of rules, as it stands in one folder.

    Attributes:
        cut: Letters of a path before its part that is relative to the folder of the list.
        folder: Path of that folder.
        cause: What the list is.
        matcher: Its rules.
        by_path: The paths of what is in the folder matter too, not only the names.
    """

    cut: int
    folder: str
    cause: Cause
    matcher: Matcher
    by_path: bool = True

    def inside(self, path: str) -> _Source:
        """Return the same list as it stands in a folder below."""
        return self._replace(by_path=self.matcher.asks_paths_in(path[self.cut :]))

    def match(self, folder: str, name: str, *, is_folder: bool) -> Rule | None:
        """Return the last rule that matches a name in the folder, or None."""
        path = join(folder, name)[self.cut :] if self.by_path else None
        return self.matcher.match(path, name, is_folder=is_folder)


class FolderRules:
    """The rules as they stand inside one folder; asked name by name while a folder is listed."""

    __slots__ = ("_git", "_inherited", "_own", "_strict", "path")

    def __init__(
        self, path: str, inherited: Verdict, own: tuple[_Source, ...], git: tuple[_Source, ...], *, strict: bool
    ) -> None:
        self.path = path
        self._inherited = inherited
        self._own = own
        self._git = git
        self._strict = strict

    def verdict(self, name: str, *, is_folder: bool) -> Verdict:
        """Return what becomes of a name in this folder."""
        if (name[0] == "." or not name.isascii() or "~" in name) and guard_key(name) in _NEVER:
            return NEVER_TRAVELS
        for source in self._own:
            rule = source.match(self.path, name, is_folder=is_folder)
            if rule is None:
                continue
            if not rule.negated:
                return Verdict(Standing.IGNORED, source.cause, rule.text, source.folder)
            if source.cause is Cause.OWN:
                return Verdict(Standing.INCLUDED, source.cause, rule.text, source.folder)
            break
        if self._inherited.standing is not Standing.TRAVELS:
            return self._inherited
        return self._git_verdict(name, is_folder=is_folder) if self._git else _PART

    def _git_verdict(self, name: str, *, is_folder: bool) -> Verdict:
        for source in self._git:
            rule = source.match(self.path, name, is_folder=is_folder)
            if rule is not None:
                if rule.negated:
                    break
                standing = Standing.IGNORED if self._strict else Standing.BUDGET
                return Verdict(standing, source.cause, rule.text, source.folder)
        return _PART


class IgnoreRules:
    """All rules of a project.

    Args:
        own: Text of ``.colabbridgeignore`` files by the folder they lie in (``""`` is the root).
        git: Text of ``.gitignore`` files likewise; ``.git/info/exclude`` may be put in front of the root's text.
        strict: ``respect_gitignore``: what Git ignores does not travel.
        fold: Compare without regard to case (the local file system folds).
    """

    def __init__(
        self,
        *,
        own: Mapping[str, str] | None = None,
        git: Mapping[str, str] | None = None,
        strict: bool = False,
        fold: bool = False,
    ) -> None:
        self.strict = strict
        self.fold = fold
        self._texts = {"own": dict(own or {}), "git": dict(git or {})}
        self._own = {base: Matcher(parse_rules(text), fold=fold) for base, text in self._texts["own"].items()}
        self._git = {base: Matcher(parse_rules(text), fold=fold) for base, text in self._texts["git"].items()}
        self._built_in = (
            _Source(0, "", Cause.SECRET, Matcher(parse_rules(SECRETS), fold=True)),
            _Source(0, "", Cause.BUILT_IN, Matcher(parse_rules(BUILT_IN), fold=fold)),
        )

    def root(self) -> FolderRules:
        """Return the rules inside the root."""
        return self._folder("", _PART, self._built_in, ())

    def _folder(self, path: str, inherited: Verdict, own: tuple[_Source, ...], git: tuple[_Source, ...]) -> FolderRules:
        cut = len(path) + 1 if path else 0
        own, git = tuple(source.inside(path) for source in own), tuple(source.inside(path) for source in git)
        if (matcher := self._own.get(path)) is not None:
            own = (_Source(cut, path, Cause.OWN, matcher), *own)
        if (matcher := self._git.get(path)) is not None:
            git = (_Source(cut, path, Cause.GIT, matcher), *git)
        return FolderRules(path, inherited, own, git, strict=self.strict)

    def inside(self, folder: FolderRules, name: str, verdict: Verdict) -> FolderRules:
        """Return the rules inside a folder of a folder.

        Args:
            folder: Rules of the parent.
            name: Name of the folder in it.
            verdict: What :meth:`FolderRules.verdict` said about it.
        """
        return self._folder(join(folder.path, name), verdict, folder._own, folder._git)

    def verdict(self, path: str, *, is_folder: bool) -> Verdict:
        """Return what becomes of a path; below an ignored folder everything is ignored."""
        folder = self.root()
        parents = path.split("/")
        for name in parents[:-1]:
            found = folder.verdict(name, is_folder=True)
            if not found.travels:
                return found
            folder = self.inside(folder, name, found)
        return folder.verdict(parents[-1], is_folder=is_folder)

    def to_text(self) -> str:
        """Return the rules as JSON, equal rules as equal text."""
        content = {"v": 1, "strict": self.strict, "fold": self.fold, **self._texts, "lists": [BUILT_IN, SECRETS]}
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def rules_id(self) -> str:
        """Id of the rules, 32 hex digits."""
        return blake2b(self.to_text().encode(), digest_size=16, person=b"cb-sync-rules").hexdigest()

    @classmethod
    def from_text(cls, text: str) -> IgnoreRules:
        """Return the rules that :meth:`to_text` wrote.

        Raises:
            ValueError: The text is no rule set of this version, or of other built-in lists.
        """
        try:
            content = json.loads(text)
            if content["v"] != 1 or content["lists"] != [BUILT_IN, SECRETS]:
                raise ValueError("these ignore rules are of another version")
            own, git = _texts(content["own"]), _texts(content["git"])
            return cls(own=own, git=git, strict=content["strict"] is True, fold=content["fold"] is True)
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("these are no ignore rules") from error


def _texts(content: object) -> dict[str, str]:
    if not isinstance(content, dict) or not all(isinstance(text, str) for pair in content.items() for text in pair):
        raise ValueError("these are no ignore rules")
    return content


def include_lines(path: str, rules: IgnoreRules, *, is_folder: bool) -> list[str]:
    """Return the lines to add to ``.colabbridgeignore`` in the root that make exactly this path travel.

    From the first parent on that is left out each one is included again and its other content left out again, as
    gitignore syntax wants it. Parents that travel stay as they are, with everything in them.

    Args:
        path: The path.
        rules: The rules as they are.
        is_folder: What it is.
    """
    lines: list[str] = []
    escaped, names = escape_pattern(path).split("/"), path.split("/")
    for depth in range(1, len(escaped)):
        if lines or not rules.verdict("/".join(names[:depth]), is_folder=True).travels:
            parent = "/".join(escaped[:depth])
            lines += [f"!/{parent}/", f"/{parent}/*"]
    return [*lines, f"!/{'/'.join(escaped)}{'/' if is_folder else ''}"]


def strip_ignored(root: Directory, rules: IgnoreRules, known: tuple[Directory, Directory] | None = None) -> Directory:
    """Return the tree without what the rules leave out; folders that lose content say so (``has_ignored``).

    Used on the ancestor when rules change and on everything that the runtime sends. Shares what is not touched.

    Args:
        root: The tree.
        rules: The rules.
        known: Another tree and what the same rules have left of it: what both trees share is not asked about again.
    """
    return _strip(root, rules, rules.root(), *(known or (EMPTY, EMPTY)))


def _strip(directory: Directory, rules: IgnoreRules, folder: FolderRules, old: Directory, left: Directory) -> Directory:
    if directory is old:
        return left
    children: dict[str, Entry] = {}
    changed = dropped = False
    for name, entry in directory.children.items():
        before, kept = old.children.get(name), left.children.get(name)
        if before is not entry or (isinstance(entry, Directory) and kept is None):
            verdict = folder.verdict(name, is_folder=isinstance(entry, Directory))
            kept = entry if verdict.travels else None
            if isinstance(entry, Directory) and kept is not None:
                inside = rules.inside(folder, name, verdict)
                kept = _strip(entry, rules, inside, *_pair(before, left.children.get(name)))
        if kept is None:
            changed = dropped = True
            continue
        changed = changed or kept is not entry
        children[name] = kept
    if not changed:
        return directory
    return Directory(children, has_ignored=directory.has_ignored or dropped)


def _pair(before: Entry | None, left: Entry | None) -> tuple[Directory, Directory]:
    return (before, left) if isinstance(before, Directory) and isinstance(left, Directory) else (EMPTY, EMPTY)
