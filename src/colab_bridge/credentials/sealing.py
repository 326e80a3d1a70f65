"""Bytes that only the holder of a key can read or change: AES-256-GCM, and keys made from other secrets. Pure.

The library is imported when something is sealed or opened: it costs 7 MB and 55 ms, and a daemon whose user has not
signed in needs none of it.

Source: NIST SP 800-38D (GCM), RFC 5869 (HKDF), RFC 7914 (scrypt).
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Final

__all__ = ["KEY_BYTES", "SCRYPT_N", "NotOpenedError", "derive", "from_passphrase", "open_sealed", "seal"]

KEY_BYTES: Final = 32
#: 64 MiB and some 0.2 s for each guess; OWASP's floor for r = 8, p = 1 is 2**17 with servers in mind that check many.
SCRYPT_N: Final = 2**16
_NONCE_BYTES: Final = 12


class NotOpenedError(Exception):
    """The key is another one, or the bytes were changed."""


def seal(key: bytes, plain: bytes, label: str) -> str:
    """Return ``plain`` sealed, as text.

    Args:
        key: 32 bytes.
        plain: What is kept secret.
        label: What it is; not secret, but a sealed value cannot be passed off under another label.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plain, label.encode())).decode("ascii")


def open_sealed(key: bytes, sealed: object, label: str) -> bytes:
    """Return what :func:`seal` has sealed.

    Raises:
        NotOpenedError: key or label are others, or it was changed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        raw = base64.b64decode(sealed, validate=True) if isinstance(sealed, str) else b""
        if len(raw) <= _NONCE_BYTES:
            raise NotOpenedError
        return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], label.encode())
    except (InvalidTag, ValueError) as error:
        raise NotOpenedError from error


def derive(secret: str, purpose: str) -> bytes:
    """Return a key that follows from a secret with enough randomness of its own, such as a refresh token."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(secret.encode())


def from_passphrase(passphrase: str, salt: bytes, n: int = SCRYPT_N) -> bytes:
    """Return the key that follows from a passphrase. Takes a while on purpose.

    Args:
        passphrase: As typed.
        salt: 16 random bytes, kept beside what is sealed.
        n: Cost, a power of two.
    """
    return hashlib.scrypt(passphrase.encode(), salt=salt, n=n, r=8, p=1, maxmem=2 * 128 * 8 * n, dklen=KEY_BYTES)
