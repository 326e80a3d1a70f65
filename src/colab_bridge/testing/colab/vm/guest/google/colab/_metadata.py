"""The services around the machine: credentials that have been propagated to it, and its own release."""

import json
import os
import urllib.error
import urllib.request

_TIMEOUT_S = 30


def access_token(authtype):
    """Return a token of the kind that has been propagated; None when none has."""
    address = os.environ["TBE_EPHEM_CREDS_ADDR"]
    path = f"/computeMetadata/v1/instance/service-accounts/default/token?authtype={authtype}"
    request = urllib.request.Request(f"http://{address}{path}", headers={"Metadata-Flavor": "Google"})
    try:
        with _open(request) as answer:
            return json.load(answer)["access_token"]
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            raise


def unassign():
    """Ask for the release of the machine."""
    with _open(urllib.request.Request(f"http://{os.environ['TBE_RUNTIME_ADDR']}/unassign", data=b"", method="POST")):
        pass


def _open(request):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=_TIMEOUT_S)
