"""The files of one emulated Drive, kept as real files, so that machines can mount them."""

from __future__ import annotations

import datetime as dt
import hashlib
import mimetypes
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from colab_bridge._util.atomic import write_atomic
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.clock import EmulatorClock

__all__ = ["FOLDER", "DriveFile", "DriveStore"]

FOLDER: Final = "application/vnd.google-apps.folder"
_BINARY: Final = "application/octet-stream"
#: What separates folders somewhere, or may not stand in a file's name on Windows.
_UNSAFE: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


@dataclass(slots=True, kw_only=True)
class DriveFile:
    """A file or folder.

    Attributes:
        id: Drive's id.
        path: Where it is on this machine.
        mime_type: Its type.
        app: Client that made it; empty for files that were put into the mounted Drive.
        created_at: Unix seconds.
        modified_at: Unix seconds.
        trashed: Whether it is in the trash.
        described: Members that the client sets as it likes: description, properties, appProperties.
        permissions: Who may see it, as the API tells.
    """

    id: str
    name: str
    parent: str
    path: Path
    mime_type: str
    app: str
    created_at: float
    modified_at: float
    trashed: bool = False
    described: dict[str, Any] = field(default_factory=dict)
    permissions: list[dict[str, Any]] = field(default_factory=list)


class DriveStore:
    """One account's Drive.

    Args:
        account: Whose it is.
        folder: What machines mount; made when it is missing.
        clock: The emulator's time.
    """

    def __init__(self, account: Account, folder: Path, clock: EmulatorClock) -> None:
        self.account = account
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        now = clock.time()
        self.root = DriveFile(
            id=f"0A{secrets.token_urlsafe(12)}",
            name="My Drive",
            parent="",
            path=folder,
            mime_type=FOLDER,
            app="",
            created_at=now,
            modified_at=now,
        )
        self.files: dict[str, DriveFile] = {self.root.id: self.root}

    def find(self, file_id: str) -> DriveFile | None:
        """Return a file by its id; ``root`` is the top folder."""
        return self.root if file_id == "root" else self.files.get(file_id)

    def add(
        self, *, name: str, parent: DriveFile, mime_type: str, app: str, content: bytes, described: Mapping[str, Any]
    ) -> DriveFile:
        """Make a file or folder. Drive allows two of one name; on this machine the second gets a number."""
        mime_type = mime_type or mimetypes.guess_type(name)[0] or _BINARY
        now = self._clock.time()
        path = _free(parent.path, name)
        if mime_type == FOLDER:
            path.mkdir()
        else:
            path.write_bytes(content)
        file = DriveFile(
            id=f"1{secrets.token_urlsafe(24)}",
            name=name,
            parent=parent.id,
            path=path,
            mime_type=mime_type,
            app=app,
            created_at=now,
            modified_at=now,
            described=dict(described),
            permissions=[self._owner()],
        )
        self.files[file.id] = file
        return file

    def write(self, file: DriveFile, content: bytes) -> None:
        """Replace the content of a file; whoever reads it meanwhile has the old content or the new one."""
        write_atomic(file.path, content)
        file.modified_at = self._clock.time()

    def move(self, file: DriveFile, *, name: str, parent: DriveFile) -> None:
        """Give a file another name, another folder, or both."""
        target = _free(parent.path, name)
        file.path.rename(target)
        for other in self.files.values():
            if file.path in other.path.parents:
                other.path = target / other.path.relative_to(file.path)
        file.path, file.name, file.parent = target, name, parent.id
        file.modified_at = self._clock.time()

    def remove(self, file: DriveFile) -> None:
        """Remove a file, or a folder with everything in it, for good."""
        inside = [other.id for other in self.files.values() if file.path in other.path.parents]
        for file_id in (file.id, *inside):
            self.files.pop(file_id, None)
        if file.path.is_dir():
            shutil.rmtree(file.path)
        else:
            file.path.unlink(missing_ok=True)

    def discover(self) -> None:
        """Take in what was put into the mounted Drive, and forget what was removed there."""
        for file in list(self.files.values()):
            if not file.path.exists():
                self.files.pop(file.id)
        known = {file.path: file for file in self.files.values()}
        for above, folders, files in os.walk(self.root.path):
            for name in sorted(folders + files):
                path = Path(above) / name
                if path in known or path.is_symlink():  # Drive has no links
                    continue
                kind = FOLDER if path.is_dir() else mimetypes.guess_type(name)[0] or _BINARY
                at = path.stat().st_mtime
                known[path] = DriveFile(
                    id=f"1{secrets.token_urlsafe(24)}",
                    name=name,
                    parent=known[Path(above)].id,
                    path=path,
                    mime_type=kind,
                    app="",
                    created_at=at,
                    modified_at=at,
                    permissions=[self._owner()],
                )
                self.files[known[path].id] = known[path]

    def document(self, file: DriveFile) -> dict[str, Any]:
        """Return a file as the API tells it; sizes are strings there."""
        document: dict[str, Any] = {
            "kind": "drive#file",
            "id": file.id,
            "name": file.name,
            "mimeType": file.mime_type,
            "parents": [file.parent] if file.parent else [],
            "trashed": file.trashed,
            "createdTime": _rfc3339(file.created_at),
            "modifiedTime": _rfc3339(file.modified_at),
            "ownedByMe": True,
            "owners": [{"kind": "drive#user", "displayName": self.account.name, "emailAddress": self.account.email}],
            "permissions": file.permissions,
            "properties": {},
            "appProperties": {},
            "webViewLink": f"https://drive.google.com/file/d/{file.id}/view",
            **file.described,
        }
        if file.mime_type != FOLDER:
            content = file.path.read_bytes()
            document |= {
                "size": str(len(content)),
                "md5Checksum": hashlib.md5(content, usedforsecurity=False).hexdigest(),
                "sha256Checksum": hashlib.sha256(content).hexdigest(),
                "originalFilename": file.name,
            }
        return document

    def usage_bytes(self) -> int:
        """Return how much all files take."""
        return sum(file.path.stat().st_size for file in self.files.values() if file.mime_type != FOLDER)

    def _owner(self) -> dict[str, Any]:
        return {
            "kind": "drive#permission",
            "id": self.account.id,
            "type": "user",
            "role": "owner",
            "emailAddress": self.account.email,
            "displayName": self.account.name,
        }


def _free(folder: Path, name: str) -> Path:
    """Return a path in a folder that nothing has yet; names that some system does not take are made harmless."""
    safe = _UNSAFE.sub("_", name)[:200]
    safe = safe if safe.strip(". ") else f"_{safe}"
    path, number = folder / safe, 1
    while path.exists():
        stem, dot, ending = safe.rpartition(".")
        path = folder / (f"{stem} ({number}).{ending}" if dot and stem else f"{safe} ({number})")
        number += 1
    return path


def _rfc3339(at: float) -> str:
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
