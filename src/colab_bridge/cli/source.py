"""Reading the user's Python files."""

from __future__ import annotations

import tokenize
from pathlib import Path

from colab_bridge.errors import UserError

__all__ = ["read_source"]

_OTHER_LANGUAGES = {".sh": "bash", ".bash": "bash", ".zsh": "zsh", ".r": "Rscript", ".jl": "julia", ".js": "node"}


def read_source(path: Path) -> str:
    """Return the text of a Python file, decoded as its first lines say (PEP 263).

    Raises:
        UserError: it does not exist, is no file, cannot be read, or is no Python text.
    """
    if path.is_dir():
        raise UserError(
            f"{path} is a folder", hint=f"Name a file in it, for example: {path / 'main.py'}", code="CB-USER-FOLDER"
        )
    other = _OTHER_LANGUAGES.get(path.suffix.lower())
    if other is not None:
        raise UserError(f"{path} is no Python script", hint=f"Run it as a command: colab-bridge run -- {other} {path}")
    try:
        with tokenize.open(path) as file:
            text = file.read()
    except FileNotFoundError as error:
        raise UserError(
            f"there is no file {path}", hint="Check the name; `ls` shows what is here.", code="CB-USER-NOFILE"
        ) from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is no Python text: {error}",
            hint=f"Save it as UTF-8; or run a program as a command: colab-bridge run -- {path}",
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="Check its permissions: ls -l") from error
    if "\x00" in text:
        raise UserError(f"{path} is no Python text", hint=f"Run a program as a command: colab-bridge run -- {path}")
    return text
