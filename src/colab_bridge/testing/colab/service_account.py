"""Service accounts: a key file as Google makes it, and the check of what is signed with it."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["jwt_claims", "new_key_file"]


def new_key_file(email: str, token_uri: str) -> tuple[dict[str, str], bytes]:
    """Make a key for a service account.

    Args:
        email: Its address.
        token_uri: Where it gets its tokens.

    Returns:
        The key file's members, and the public key as PEM.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    members = {
        "type": "service_account",
        "project_id": "emulator",
        "private_key_id": secrets.token_hex(20),
        "private_key": private.decode(),
        "client_email": email,
        "client_id": str(secrets.randbelow(10**20)),
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    return members, public


def jwt_claims(token: str, keys: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Return the claims of a JWT whose issuer signed it with RS256.

    Args:
        token: The JWT.
        keys: Public keys (PEM) by issuer.

    Returns:
        The claims; None when it is malformed, its issuer is unknown, or the signature is not the issuer's.
    """
    try:
        signed, _, signature = token.rpartition(".")
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        key = serialization.load_pem_public_key(keys[claims["iss"]])
        if header["alg"] != "RS256" or not isinstance(key, rsa.RSAPublicKey):
            return None
        key.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, TypeError, KeyError, InvalidSignature, binascii.Error):
        return None
    return dict(claims)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
