"""The verbs of the files service for large files: everything checked, then done by the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..process.service import CallFailure, Reply
from .pages import WireError
from .service_folder import SyncFolder
from .service_wire import checked_path, read_digest, read_field
from .transfer.patch import Copy, unpack_copies
from .transfer.signatures import MAX_BLOCK_BYTES, MIN_BLOCK_BYTES

__all__ = ["ahead", "check_same", "chunk", "patch", "sign"]

_MOST_FILE_BYTES = 1 << 41
_SHOWN_GAPS = 2000


def check_same(folder: SyncFolder, path: str, digest: bytes) -> None:
    """Refuse a call about a content that a file does not have any more.

    Raises:
        CallFailure: code ``moved``.
    """
    if not folder.has(path, digest):
        raise CallFailure("moved", "the file is another one by now")


def ahead(folder: SyncFolder, params: Mapping[str, Any]) -> Reply:
    """Begin to copy a range of a file, for a newer version that the other side is still reading; or end that."""
    if params.get("end") is True:
        folder.large.end_ahead()
        return Reply()
    path, old = checked_path(params.get("path")), read_digest(params.get("old"))
    copy = Copy(*(read_field(params, name, int) for name in ("source", "target", "length")))
    check_same(folder, path, old)
    if copy.source + copy.length > folder.stat_of(path).st_size or copy.target + copy.length > _MOST_FILE_BYTES:
        raise WireError("what is copied ahead lies outside its file")
    folder.large.copy_ahead(path, old, copy)
    return Reply()


def chunk(folder: SyncFolder, params: Mapping[str, Any], payload: bytes) -> Reply:
    """Begin a large content, take a piece of it, or finish it."""
    stage, digest = folder.stage, read_digest(params.get("digest"))
    if params.get("begin") is True:
        size = read_field(params, "size", int)
        if size > _MOST_FILE_BYTES:
            raise WireError("a file of an impossible size")
        if "ahead" in params:
            folder.large.begin(digest, size, read_digest(params["ahead"]))
        else:
            stage.begin_large(digest, size)
        return Reply({"missing": [list(part) for part in stage.missing(digest)][:_SHOWN_GAPS]})
    if params.get("finish") is True:
        if not stage.finish(digest):
            raise CallFailure("mismatch", "the content is not what its digest says")
        return Reply()
    stage.put_chunk(digest, read_field(params, "offset", int), payload)
    return Reply()


def sign(folder: SyncFolder, params: Mapping[str, Any]) -> Reply:
    """Return signatures of a file, or that it only grew since a version that the other side has."""
    path, digest, block = checked_path(params.get("path")), read_digest(params.get("digest")), params.get("block")
    if type(block) is not int or not MIN_BLOCK_BYTES <= block <= MAX_BLOCK_BYTES:
        raise WireError("the block size is out of bounds")
    check_same(folder, path, digest)
    large = folder.large
    origin = large.origin(digest)
    if origin is not None and origin.grew and params.get("old") == origin.digest.hex():
        return Reply({"grew": True})
    try:
        return Reply({}, large.signatures(path, digest, block))
    except ValueError as error:
        raise CallFailure("too-big", str(error)) from error


def patch(folder: SyncFolder, params: Mapping[str, Any], payload: bytes) -> Reply:
    """Take ranges of a file into a large content that is made of it."""
    path, old = checked_path(params.get("path")), read_digest(params.get("old"))
    digest, size = read_digest(params.get("digest")), read_field(params, "size", int)
    check_same(folder, path, old)
    copies = unpack_copies(payload, folder.stat_of(path).st_size, size)
    folder.stage.begin_large(digest, size)
    folder.large.fill(digest, copies, path, old)
    return Reply({"missing": [list(part) for part in folder.stage.missing(digest)][:_SHOWN_GAPS]})
