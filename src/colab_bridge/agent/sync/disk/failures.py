"""What an error of the system means for an operation."""

from __future__ import annotations

import errno

from .ops import Code

__all__ = ["code_of"]

_CODES = {
    errno.ENOSPC: Code.NO_SPACE,
    errno.EDQUOT: Code.QUOTA,
    errno.EFBIG: Code.TOO_LARGE,
    errno.EACCES: Code.NO_PERMISSION,
    errno.EPERM: Code.NO_PERMISSION,
    errno.EROFS: Code.NO_PERMISSION,
    errno.EXDEV: Code.OTHER_DEVICE,
    errno.ENAMETOOLONG: Code.BAD_NAME,
    errno.EILSEQ: Code.BAD_NAME,
    errno.EINVAL: Code.BAD_NAME,
    errno.EMFILE: Code.BUSY,
    errno.ENFILE: Code.BUSY,
    errno.EBUSY: Code.BUSY,
    errno.ETXTBSY: Code.BUSY,
    errno.EAGAIN: Code.MOVED,
    errno.ENOENT: Code.MISSING,
    errno.EEXIST: Code.EXISTS,
    errno.ENOTDIR: Code.IN_THE_WAY,
    errno.ELOOP: Code.IN_THE_WAY,
    errno.EISDIR: Code.MOVED,
}
# Sharing and lock violations of Windows: an editor or a virus scanner has the file open.
_BUSY_ON_WINDOWS = frozenset({32, 33})


def code_of(error: OSError) -> Code:
    """Return what came of an operation that the system has refused."""
    if getattr(error, "winerror", None) in _BUSY_ON_WINDOWS:
        return Code.BUSY
    return _CODES.get(error.errno or 0, Code.FAILED)
