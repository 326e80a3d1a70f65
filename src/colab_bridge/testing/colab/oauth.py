"""Google's sign-in: consent page, tokens, revocation, token information, user information."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from colab_bridge.testing.colab.accounts import Account
from colab_bridge.testing.colab.http import Call, Refused, Route, google_error, json_answer, text
from colab_bridge.testing.colab.identity import (
    ALL_SCOPES,
    CODE_TTL_S,
    SCOPE_CLOUD,
    SCOPE_EMAIL,
    SCOPE_IAM,
    SCOPE_PROFILE,
    AccessGrant,
    Code,
    Identity,
    OAuthClient,
    normal_scopes,
)
from colab_bridge.testing.colab.service_account import jwt_claims
from colab_bridge.testing.colab.state import BackendState

__all__ = ["JWT_GRANT", "OAuth"]

JWT_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
#: google-auth signs for this audience, wherever a key file has it send the request.
_GOOGLE_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
#: A signed request for a token may be valid for an hour at most.
_ASSERTION_TTL_S: Final = 3600.0


class OAuth:
    """The hosts that sign in.

    Args:
        identity: Sign-ins.
        state: Accounts.

    Attributes:
        base_url: Own base URL, once it is known.
        session_backend: That of the session backend, whose redirect is registered to every client.
    """

    def __init__(self, identity: Identity, state: BackendState) -> None:
        self._identity = identity
        self._state = state
        self.base_url = ""
        self.session_backend = ""

    def routes(self) -> list[Route]:
        """Return the paths of these hosts."""
        return [
            Route(method="GET", path="/o/oauth2/v2/auth", handler=self._authorize),
            Route(method="GET", path="/o/oauth2/runtime-consent", handler=self._runtime_consent),
            Route(method="POST", path="/token", handler=self._token),
            Route(method="POST", path="/revoke", handler=self._revoke),
            Route(method="GET", path="/tokeninfo", handler=self._tokeninfo),
            Route(method="POST", path="/tokeninfo", handler=self._tokeninfo),
            Route(method="GET", path="/oauth2/v2/userinfo", handler=self._userinfo),
            Route(method="POST", path="/v1/projects/-/serviceAccounts/{which}", handler=self._impersonate),
        ]

    # -- the consent page

    async def _authorize(self, call: Call) -> Response:
        """Let the configured person decide at once, and send the browser back."""
        query = call.query
        client = self._identity.clients.get(query.get("client_id", ""))
        if client is None:
            raise call.refuse(_page("Error 401: invalid_client", 401), "unknown client_id", "a registered client")
        redirect = query.get("redirect_uri", "")
        self._check_redirect(call, client, redirect)
        scopes = normal_scopes(query.get("scope", ""))
        if not scopes or not scopes <= ALL_SCOPES:
            what = f"scope {' '.join(sorted(scopes - ALL_SCOPES)) or 'missing'}"
            raise call.refuse(_page("Error 400: invalid_scope", 400), what, "scopes that Google knows")
        if query.get("response_type") != "code":
            what = f"response_type={query.get('response_type')}"
            raise call.refuse(_page("Error 400: invalid_request", 400), what, "response_type=code")
        _check_pkce(call)
        return self._decide(call, client, redirect, scopes)

    def _decide(self, call: Call, client: OAuthClient, redirect: str, scopes: frozenset[str]) -> Response:
        query, consent = call.query, self._identity.consent
        answer = {"state": query["state"]} if "state" in query else {}
        if consent.denied:
            return _back(client, redirect, {**answer, "error": "access_denied"})
        email = consent.account or query.get("login_hint", "") or next(iter(self._state.accounts))
        account = self._state.account(email)
        call.record.account = email
        granted, first = self._identity.agree(
            client.id, email, scopes, include_granted=query.get("include_granted_scopes") == "true"
        )
        # Google gives a refresh token for offline access on the first consent, and again only when asked to prompt.
        offline = query.get("access_type") == "offline" and (first or "consent" in query.get("prompt", "").split())
        code = self._identity.code(
            Code(
                client_id=client.id,
                redirect_uri=redirect,
                account=account.email,
                scopes=granted,
                challenge=query.get("code_challenge", ""),
                offline=offline,
                expires_at=self._identity.clock.time() + CODE_TTL_S,
            )
        )
        return _back(client, redirect, {**answer, "code": code, "scope": " ".join(sorted(granted)), "authuser": "0"})

    def _check_redirect(self, call: Call, client: OAuthClient, redirect: str) -> None:
        if redirect.startswith("urn:ietf:wg:oauth:2.0:oob"):
            page = _page("Error 400: invalid_request. The out-of-band flow has been blocked", 400)
            raise call.refuse(page, "out-of-band redirect_uri", "a loopback redirect")
        if redirect in {f"{self.session_backend}/vscode/redirect", client.landing_page or None}:
            return
        parts = urlsplit(redirect)
        # RFC 8252, section 7.3: any port of a loopback address.
        if parts.scheme != "http" or parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
            page = _page("Error 400: redirect_uri_mismatch", 400)
            raise call.refuse(page, f"redirect_uri {redirect}", "http on a loopback address, or a registered page")

    async def _runtime_consent(self, call: Call) -> Response:
        """Let the configured person agree that a runtime gets credentials, or not."""
        consent = self._identity.consent
        wanted = self._state.accounts.get(call.query.get("login_hint", ""))
        if wanted is None:
            raise call.refuse(_page("Error 400", 400), "unknown consent page", "the address from the dry run")
        if consent.denied:
            return _page("Access was denied.", 200)
        wanted.consent_by = consent.account if consent.account != wanted.email else ""
        wanted.consent_partial = bool(consent.withheld)
        if not wanted.consent_by and not wanted.consent_partial:
            wanted.drive_consent.add(call.query.get("authtype", ""))
        return _page("You can close this page.", 200)

    def runtime_consent_url(self, account: Account, authtype: str) -> str:
        """Return the page on which a person agrees that a runtime gets credentials."""
        return f"{self.base_url}/o/oauth2/runtime-consent?" + urlencode(
            {"login_hint": account.email, "authtype": authtype}
        )

    # -- tokens

    async def _token(self, call: Call) -> Response:
        form = await _form(call)
        kind = form.get("grant_type", "")
        if kind == JWT_GRANT:
            return self._by_assertion(call, form.get("assertion", ""))
        client = self._client(call, form)
        if kind == "authorization_code":
            return self._by_code(call, client, form)
        if kind == "refresh_token":
            return self._by_refresh(call, client, form.get("refresh_token", ""))
        refused = _oauth_error("unsupported_grant_type", f"Invalid grant_type: {kind}")
        raise call.refuse(refused, f"grant_type={kind}", "authorization_code, refresh_token or a JWT assertion")

    def _client(self, call: Call, form: Mapping[str, str]) -> OAuthClient:
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, value = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            client_id, _, secret = _plain(value).partition(":")
        client = self._identity.clients.get(client_id)
        if client is None:
            raise Refused(_oauth_error("invalid_client", "The OAuth client was not found.", 401))
        if client.secret and secret != client.secret:
            raise Refused(_oauth_error("invalid_client", "The provided client secret is invalid.", 401))
        return client

    def _by_code(self, call: Call, client: OAuthClient, form: Mapping[str, str]) -> Response:
        code = self._identity.redeem(
            form.get("code", ""),
            client_id=client.id,
            redirect_uri=form.get("redirect_uri", ""),
            verifier=form.get("code_verifier", ""),
        )
        if code is None:
            raise Refused(_oauth_error("invalid_grant", "Bad Request"))
        call.record.account = code.account
        refresh = (
            self._identity.refresh_token(client_id=client.id, account=code.account, scopes=code.scopes)
            if code.offline
            else None
        )
        answer = self._issue(code.account, code.scopes, client.id, refresh.value if refresh else "")
        if refresh is not None:
            answer["refresh_token"] = refresh.value
        return json_answer(answer)

    def _by_refresh(self, call: Call, client: OAuthClient, value: str) -> Response:
        grant = self._identity.refreshes.get(value)
        if grant is None or grant.client_id != client.id:
            raise Refused(_oauth_error("invalid_grant", "Bad Request"))
        call.record.account = grant.account
        if grant.broken is not None:
            error, subtype = grant.broken
            raise Refused(_oauth_error(error, "Token has been expired or revoked.", subtype=subtype))
        return json_answer(self._issue(grant.account, grant.scopes, client.id, value))

    def _by_assertion(self, call: Call, assertion: str) -> Response:
        """Exchange a service account's signed claims (RFC 7523) for a token."""
        claims = jwt_claims(assertion, self._identity.service_keys)
        # The signer has the machine's own time, however far the emulator's clock has been moved.
        now = self._identity.clock.time() - self._identity.clock.offset_s
        if claims is None:
            raise call.refuse(_oauth_error("invalid_grant", "Invalid JWT Signature."), "bad JWT", "its issuer's RS256")
        if claims.get("aud") not in (f"{self.base_url}/token", _GOOGLE_AUDIENCE):
            raise call.refuse(_oauth_error("invalid_grant", "Invalid JWT audience."), "bad aud", "this token URL")
        issued, expires = float(claims.get("iat", 0)), float(claims.get("exp", 0))
        if not now < expires <= issued + _ASSERTION_TTL_S:
            refused = _oauth_error("invalid_grant", "Invalid JWT: token must be short-lived.")
            raise call.refuse(refused, "bad iat or exp", "a life of an hour at most")
        email = str(claims.get("sub") or claims["iss"])
        call.record.account = email
        return json_answer(self._issue(email, normal_scopes(str(claims.get("scope", ""))), str(claims["iss"]), ""))

    async def _impersonate(self, call: Call) -> Response:
        """Give a token of a service account to whoever may act for it: here, to everybody with the cloud's scope.

        Source: IAM Service Account Credentials API, ``projects.serviceAccounts.generateAccessToken``.
        """
        grant = self._identity.bearer(call.headers.get("authorization", ""))
        if grant is None:
            return google_error(401, "Request is missing required authentication credential.")
        call.record.account = grant.account
        if not grant.scopes & {SCOPE_CLOUD, SCOPE_IAM}:
            return google_error(403, "Request had insufficient authentication scopes.")
        email, _, method = call.parts["which"].rpartition(":")
        if method != "generateAccessToken" or email not in self._identity.service_keys:
            return google_error(404, "Not found; Gaia id not found for email.")
        body = await call.json_object()
        scopes = frozenset(body.get("scope") or ())
        if not scopes <= ALL_SCOPES or not scopes:
            raise call.refuse(google_error(400, "Request contains an invalid argument."), "bad scope", "known scopes")
        made = self._identity.access_token(account=email, scopes=scopes, ttl_s=self._identity.access_ttl_s)
        ends = datetime.fromtimestamp(made.expires_at or 0.0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json_answer({"accessToken": made.value, "expireTime": ends})

    def _issue(self, email: str, scopes: frozenset[str], client_id: str, refresh: str) -> dict[str, Any]:
        ttl_s = self._identity.access_ttl_s
        grant = self._identity.access_token(
            account=email, scopes=scopes, client_id=client_id, ttl_s=ttl_s, refresh=refresh
        )
        return {
            "access_token": grant.value,
            "expires_in": ttl_s,
            "scope": " ".join(sorted(scopes)),
            "token_type": "Bearer",
        }

    async def _revoke(self, call: Call) -> Response:
        form = await _form(call)
        if not self._identity.revoke(form.get("token") or call.query.get("token", "")):
            return _oauth_error("invalid_token", "Token expired or revoked")
        return json_answer({})

    async def _tokeninfo(self, call: Call) -> Response:
        form = await _form(call) if call.record.method == "POST" else {}
        grant = self._identity.valid(form.get("access_token") or call.query.get("access_token", ""))
        if grant is None:
            return _oauth_error("invalid_token", "Invalid Value")
        return json_answer(self._info(grant))

    def _info(self, grant: AccessGrant) -> dict[str, str]:
        """Describe a token; every value is a string, numbers too."""
        left_s = 3599.0 if grant.expires_at is None else grant.expires_at - self._identity.clock.time()
        info = {
            "azp": grant.client_id,
            "aud": grant.client_id,
            "sub": self._state.account(grant.account).id,
            "scope": " ".join(sorted(grant.scopes)),
            "exp": str(int(self._identity.clock.time() + left_s)),
            "expires_in": str(int(left_s)),
            "access_type": "offline" if grant.refresh else "online",
        }
        if SCOPE_EMAIL in grant.scopes:
            info |= {"email": grant.account, "email_verified": "true"}
        return info

    async def _userinfo(self, call: Call) -> Response:
        grant = self._identity.bearer(call.headers.get("authorization", ""))
        if grant is None:
            return google_error(401, "Request is missing required authentication credential.")
        if not grant.scopes & {SCOPE_EMAIL, SCOPE_PROFILE}:
            return google_error(403, "Request had insufficient authentication scopes.")
        account = self._state.account(grant.account)
        call.record.account = account.email
        info: dict[str, Any] = {"id": account.id}
        if SCOPE_EMAIL in grant.scopes:
            info |= {"email": account.email, "verified_email": True}
        if SCOPE_PROFILE in grant.scopes:
            info |= {"name": account.name, "picture": f"{self.base_url}/picture.png"}
        return json_answer(info)


def _check_pkce(call: Call) -> None:
    if not call.query.get("state"):
        call.violation("no state", "an unguessable value that the answer is checked against")
    if not call.query.get("code_challenge"):
        call.violation("no code_challenge", "PKCE with method S256")
    elif call.query.get("code_challenge_method") != "S256":
        page = _page("Error 400: invalid_request", 400)
        raise call.refuse(page, f"code_challenge_method={call.query.get('code_challenge_method')}", "S256")


def _back(client: OAuthClient, redirect: str, answer: dict[str, str]) -> Response:
    """Send the browser back to the client; the landing page of another host is shown here, without a browser's help."""
    if redirect == client.landing_page:
        return text(answer.get("code") or f"Error: {answer['error']}", 200)
    return RedirectResponse(f"{redirect}{'&' if '?' in redirect else '?'}{urlencode(answer)}", 302)


async def _form(call: Call) -> dict[str, str]:
    body = (await call.request.body()).decode("utf-8", "replace")
    kind = call.headers.get("content-type", "").partition(";")[0].strip()
    if body and kind != "application/x-www-form-urlencoded":
        raise call.refuse(_oauth_error("invalid_request", "Could not parse the body"), f"content type {kind}", "a form")
    return dict(parse_qsl(body, keep_blank_values=True))


def _plain(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _oauth_error(error: str, description: str, status: int = 400, *, subtype: str = "") -> Response:
    """Return an error of RFC 6749, section 5.2, with Google's own addition for re-authentication."""
    body = {"error": error, "error_description": description}
    if subtype:
        body["error_subtype"] = subtype
    return Response(json.dumps(body), status, media_type="application/json")


def _page(words: str, status: int) -> Response:
    return Response(f"<!doctype html><title>Sign in</title><p>{words}</p>", status, media_type="text/html")
