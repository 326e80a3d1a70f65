"""Drive v3, as far as a program needs it that keeps its own files there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from colab_bridge.testing.colab.access import Access
from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.clock import EmulatorClock
from colab_bridge.testing.colab.drive_query import BadQueryError, matcher, select
from colab_bridge.testing.colab.drive_store import FOLDER, DriveFile, DriveStore
from colab_bridge.testing.colab.drive_upload import Upload, content_range, multipart_related
from colab_bridge.testing.colab.http import Call, Refused, Route, json_answer
from colab_bridge.testing.colab.identity import SCOPE_DRIVE, SCOPE_DRIVE_FILE, Identity
from colab_bridge.testing.colab.refused import RefusedValueError
from colab_bridge.testing.colab.state import BackendState

__all__ = ["Drive"]

_WRITE: Final = frozenset({SCOPE_DRIVE, SCOPE_DRIVE_FILE})
_READ: Final = _WRITE | {"https://www.googleapis.com/auth/drive.readonly"}
_DEFAULT_FIELDS: Final = "kind,id,name,mimeType"
_LIST_FIELDS: Final = f"kind,incompleteSearch,nextPageToken,files({_DEFAULT_FIELDS})"
#: A session for a resumable upload lasts a week.
_UPLOAD_TTL_S: Final = 7 * 86_400.0
_SETTABLE: Final = ("description", "properties", "appProperties", "starred")
_ROLES: Final = frozenset({"owner", "organizer", "fileOrganizer", "writer", "commenter", "reader"})
_TYPES: Final = frozenset({"user", "group", "domain", "anyone"})
_ONE_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Caller:
    """Who calls, and what the token lets them see."""

    store: DriveStore
    app: str
    sees_all: bool

    def sees(self, file: DriveFile) -> bool:
        """Tell whether a file may be seen: with ``drive.file`` only what this client made itself."""
        return self.sees_all or file.app == self.app


class Drive:
    """Drive's API.

    Args:
        state: Accounts.
        access: Who may call.
        identity: Sign-ins.
        folder: Gives an account's folder.
        clock: The emulator's time.
    """

    def __init__(
        self,
        state: BackendState,
        access: Access,
        identity: Identity,
        folder: Callable[[Account], Path],
        clock: EmulatorClock,
    ) -> None:
        self._state = state
        self._access = access
        self._identity = identity
        self._folder = folder
        self._clock = clock
        self._stores: dict[str, DriveStore] = {}
        self._uploads: dict[str, Upload] = {}
        self.base_url = ""

    def routes(self) -> list[Route]:
        """Return the paths of this host."""
        files, upload = "/drive/v3/files", "/upload/drive/v3/files"
        table = [
            ("GET", "/drive/v3/about", self._about),
            ("GET", files, self._list),
            ("POST", files, self._create),
            ("GET", files + "/{id}/permissions", self._permissions),
            ("POST", files + "/{id}/permissions", self._share),
            ("DELETE", files + "/{id}/permissions/{permission}", self._unshare),
            ("GET", files + "/{id}", self._get),
            ("PATCH", files + "/{id}", self._update),
            ("DELETE", files + "/{id}", self._delete),
            ("POST", upload, self._upload),
            ("PUT", upload, self._chunk),
            ("PATCH", upload + "/{id}", self._upload),
            ("PUT", upload + "/{id}", self._chunk),
        ]
        return [Route(method=method, path=path, handler=handler) for method, path, handler in table]

    def store(self, account: Account) -> DriveStore:
        """Return an account's Drive."""
        if account.email not in self._stores:
            self._stores[account.email] = DriveStore(account, self._folder(account), self._clock)
        return self._stores[account.email]

    # -- reading

    async def _about(self, call: Call) -> Response:
        store = self._caller(call, _READ).store
        if not call.query.get("fields"):
            message = "The 'fields' parameter is required for this method."
            raise call.refuse(_error(400, "required", message), "about without fields", "a field mask")
        account = store.account
        user = {"kind": "drive#user", "displayName": account.name, "emailAddress": account.email, "me": True}
        usage = str(store.usage_bytes())
        document = {
            "kind": "drive#about",
            "user": {**user, "permissionId": account.id},
            "storageQuota": {"limit": str(15 * 2**30), "usage": usage, "usageInDrive": usage, "usageInDriveTrash": "0"},
        }
        return json_answer(self._masked(call, document, "*"))

    async def _list(self, call: Call) -> Response:
        caller = self._caller(call, _READ)
        caller.store.discover()
        try:
            found = matcher(call.query.get("q", "").replace("'root' in", f"'{caller.store.root.id}' in"))
        except BadQueryError as error:
            raise call.refuse(_error(400, "invalid", str(error)), str(error), "known search terms") from error
        files = [file for file in caller.store.files.values() if file is not caller.store.root and caller.sees(file)]
        documents = [document for file in files if found(document := caller.store.document(file))]
        documents = self._ordered(call, documents)
        start, size = self._page(call)
        page: dict[str, Any] = {"kind": "drive#fileList", "incompleteSearch": False}
        if start + size < len(documents):
            page["nextPageToken"] = f"~page~{start + size}"
        page["files"] = documents[start : start + size]
        return json_answer(self._masked(call, page, _LIST_FIELDS))

    def _ordered(self, call: Call, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for key in reversed([part.strip() for part in call.query.get("orderBy", "").split(",") if part.strip()]):
            name, _, direction = key.partition(" ")
            if name not in {"name", "modifiedTime", "createdTime"} or direction not in {"", "desc"}:
                refused = _error(400, "invalid", f"Invalid value for orderBy: {key}")
                raise call.refuse(refused, f"orderBy={key}", "name, modifiedTime or createdTime, and desc")
            documents = sorted(documents, key=lambda document: str(document[name]), reverse=direction == "desc")
        return documents

    def _page(self, call: Call) -> tuple[int, int]:
        size, token = call.query.get("pageSize", "100"), call.query.get("pageToken", "~page~0")
        if not size.isdecimal() or not 1 <= int(size) <= 1000:
            refused = _error(400, "invalid", f"Invalid value {size} for pageSize")
            raise call.refuse(refused, f"pageSize={size}", "1 to 1000")
        if not token.removeprefix("~page~").isdecimal():
            raise call.refuse(_error(400, "invalid", "Invalid pageToken"), "an unknown pageToken", "that of a page")
        return int(token.removeprefix("~page~")), int(size)

    async def _get(self, call: Call) -> Response:
        caller = self._caller(call, _READ)
        file = self._file(call, caller)
        if call.query.get("alt") != "media":
            return self._answer(call, caller, file)
        if file.mime_type == FOLDER:
            message = "Only files with binary content can be downloaded."
            raise call.refuse(_error(403, "fileNotDownloadable", message), "download of a folder", "a file")
        return _media(file.path.read_bytes(), file.mime_type, call.headers.get("range", ""))

    # -- writing

    async def _create(self, call: Call) -> Response:
        caller = self._caller(call, _WRITE)
        return self._answer(call, caller, self._add(call, caller, await call.json_object(), b"", ""))

    def _add(
        self, call: Call, caller: _Caller, metadata: Mapping[str, Any], content: bytes, mime_type: str
    ) -> DriveFile:
        parents = metadata.get("parents") or ["root"]
        if not isinstance(parents, list) or len(parents) != 1:
            refused = _error(400, "invalid", "A file cannot have more than one parent.")
            raise call.refuse(refused, f"parents {parents}", "one parent")
        return caller.store.add(
            name=str(metadata.get("name") or "Untitled"),
            parent=self._parent(call, caller, str(parents[0])),
            mime_type=str(metadata.get("mimeType") or mime_type),
            app=caller.app,
            content=content,
            described={key: metadata[key] for key in _SETTABLE if key in metadata},
        )

    def _parent(self, call: Call, caller: _Caller, file_id: str) -> DriveFile:
        parent = caller.store.find(file_id)
        if parent is None or parent.mime_type != FOLDER or not (parent is caller.store.root or caller.sees(parent)):
            raise Refused(_not_found(file_id))
        return parent

    async def _update(self, call: Call) -> Response:
        caller = self._caller(call, _WRITE)
        file = self._file(call, caller)
        self._describe(call, caller, file, await call.json_object())
        return self._answer(call, caller, file)

    def _describe(self, call: Call, caller: _Caller, file: DriveFile, metadata: Mapping[str, Any]) -> None:
        if "parents" in metadata:
            message = "The parents field is not directly writable in update requests."
            raise call.refuse(_error(403, "fieldNotWritable", message), "parents in an update", "addParents")
        name, parent = str(metadata.get("name", file.name)), file.parent
        if "addParents" in call.query:
            parent = self._parent(call, caller, call.query["addParents"]).id
        if (name, parent) != (file.name, file.parent):
            caller.store.move(file, name=name, parent=caller.store.files[parent])
        file.trashed = bool(metadata.get("trashed", file.trashed))
        file.mime_type = str(metadata.get("mimeType", file.mime_type))
        file.described |= {key: metadata[key] for key in _SETTABLE if key in metadata}

    async def _delete(self, call: Call) -> Response:
        caller = self._caller(call, _WRITE)
        caller.store.remove(self._file(call, caller))
        return Response(status_code=204)

    # -- uploads

    async def _upload(self, call: Call) -> Response:
        caller = self._caller(call, _WRITE)
        file_id = self._file(call, caller).id if "id" in call.parts else ""
        kind = call.query.get("uploadType", "")
        if kind == "resumable":
            return await self._start(call, caller, file_id)
        body = await call.request.body()
        content_type = call.headers.get("content-type", "")
        if kind == "media":
            return self._finish(call, caller, file_id, {}, content_type, body)
        if kind != "multipart":
            refused = _error(400, "badRequest", "Unknown upload type")
            raise call.refuse(refused, f"uploadType={kind}", "media, multipart or resumable")
        try:
            description, mime_type, content = multipart_related(content_type, body)
        except RefusedValueError as error:
            raise call.refuse(_error(400, "badContent", error.what), error.what, error.expected) from error
        return self._finish(call, caller, file_id, self._metadata(call, description), mime_type, content)

    def _metadata(self, call: Call, description: bytes) -> dict[str, Any]:
        try:
            metadata = json.loads(description)
        except ValueError:
            metadata = None
        if not isinstance(metadata, dict):
            raise call.refuse(_error(400, "parseError", "Parse Error"), "a description that is no object", "JSON")
        return metadata

    async def _start(self, call: Call, caller: _Caller, file_id: str) -> Response:
        """Open a session for chunks; its address is all that the chunks need."""
        size = call.headers.get("x-upload-content-length", "")
        upload = Upload(
            metadata=await call.json_object(),
            file_id=file_id,
            mime_type=call.headers.get("x-upload-content-type", ""),
            total=int(size) if size.isdecimal() else None,
            account=caller.store.account.email,
            app=caller.app,
            expires_at=self._clock.time() + _UPLOAD_TTL_S,
        )
        self._uploads[upload.id] = upload
        where = f"{self.base_url}{call.record.path}?uploadType=resumable&upload_id={upload.id}"
        return Response(status_code=200, headers={"location": where, "x-guploader-uploadid": upload.id})

    async def _chunk(self, call: Call) -> Response:
        upload = self._uploads.get(call.query.get("upload_id", ""))
        if upload is None or self._clock.time() >= upload.expires_at:
            raise Refused(_error(404, "notFound", "Upload session not found"))
        call.record.account = upload.account
        store = self.store(self._state.account(upload.account))
        caller = _Caller(store=store, app=upload.app, sees_all=False)
        body = await call.request.body()
        try:
            chunk = content_range(call.headers.get("content-range", ""), len(body))
            done = upload.take(chunk, body)
        except RefusedValueError as error:
            raise call.refuse(_error(400, "badRequest", error.what), error.what, error.expected) from error
        if not done:
            have = len(upload.content)
            return Response(status_code=308, headers={"range": f"bytes=0-{have - 1}"} if have else {})
        del self._uploads[upload.id]
        return self._finish(call, caller, upload.file_id, upload.metadata, upload.mime_type, bytes(upload.content))

    def _finish(
        self,
        call: Call,
        caller: _Caller,
        file_id: str,
        metadata: Mapping[str, Any],
        mime_type: str,
        content: bytes,
    ) -> Response:
        if not file_id:
            return self._answer(call, caller, self._add(call, caller, metadata, content, mime_type))
        file = caller.store.files.get(file_id)
        if file is None:
            raise Refused(_not_found(file_id))
        self._describe(call, caller, file, metadata)
        caller.store.write(file, content)
        return self._answer(call, caller, file)

    # -- permissions

    async def _permissions(self, call: Call) -> Response:
        file = self._file(call, self._caller(call, _READ))
        return json_answer(self._masked(call, {"kind": "drive#permissionList", "permissions": file.permissions}, "*"))

    async def _share(self, call: Call) -> Response:
        file = self._file(call, self._caller(call, _WRITE))
        body = await call.json_object()
        role, kind = body.get("role"), body.get("type")
        if role not in _ROLES or kind not in _TYPES or (kind in {"user", "group"} and not body.get("emailAddress")):
            what = f"permission {role}/{kind}"
            refused = _error(400, "badRequest", "The permission is invalid.")
            raise call.refuse(refused, what, "a role, a type, and an emailAddress for users and groups")
        number = f"{len(file.permissions):020d}"
        permission = {"kind": "drive#permission", "id": number, **body}
        file.permissions.append(permission)
        return json_answer(self._masked(call, permission, "kind,id,type,role"))

    async def _unshare(self, call: Call) -> Response:
        file = self._file(call, self._caller(call, _WRITE))
        kept = [permission for permission in file.permissions if permission["id"] != call.parts["permission"]]
        if len(kept) == len(file.permissions):
            raise Refused(_not_found(call.parts["permission"]))
        file.permissions = kept
        return Response(status_code=204)

    # -- parts

    def _caller(self, call: Call, scopes: frozenset[str]) -> _Caller:
        grant = self._access.grant(call)
        if not grant.scopes & scopes:
            message = "Request had insufficient authentication scopes."
            raise Refused(_error(403, "insufficientPermissions", message))
        client = self._identity.clients.get(grant.client_id)
        if client is not None and client.needs_quota_project and not call.headers.get("x-goog-user-project"):
            message = "Your application is authenticating by using local Application Default Credentials."
            refused = _error(403, "accessNotConfigured", message)
            raise call.refuse(refused, "no x-goog-user-project header", "a project in which Drive is enabled")
        sees_all = bool(grant.scopes & (_READ - {SCOPE_DRIVE_FILE}))
        return _Caller(store=self.store(self._state.account(grant.account)), app=grant.client_id, sees_all=sees_all)

    def _file(self, call: Call, caller: _Caller) -> DriveFile:
        caller.store.discover()
        file = caller.store.find(call.parts["id"])
        if file is None or not caller.sees(file):
            raise Refused(_not_found(call.parts["id"]))
        return file

    def _answer(self, call: Call, caller: _Caller, file: DriveFile) -> Response:
        return json_answer(self._masked(call, caller.store.document(file), _DEFAULT_FIELDS))

    def _masked(self, call: Call, document: dict[str, Any], default: str) -> Any:
        mask = call.query.get("fields") or default
        try:
            return select(document, mask)
        except BadQueryError as error:
            raise call.refuse(_error(400, "invalidParameter", str(error)), str(error), "a field mask") from error


def _media(content: bytes, mime_type: str, wanted: str) -> Response:
    """Return content, or the one range of it that was asked for."""
    found = _ONE_RANGE.fullmatch(wanted)
    if found is None:
        return Response(content, media_type=mime_type)
    start = int(found[1])
    end = min(int(found[2]) + 1 if found[2] else len(content), len(content))
    if start >= len(content) or end <= start:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(content)}"})
    headers = {"content-range": f"bytes {start}-{end - 1}/{len(content)}"}
    return Response(content[start:end], 206, headers=headers, media_type=mime_type)


def _not_found(file_id: str) -> Response:
    return _error(404, "notFound", f"File not found: {file_id}.")


def _error(status: int, reason: str, message: str) -> Response:
    """Return an error in Drive's own, older shape."""
    detail = {"message": message, "domain": "global", "reason": reason}
    return json_answer({"error": {"code": status, "message": message, "errors": [detail]}}, status)
