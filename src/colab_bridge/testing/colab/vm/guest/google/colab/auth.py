"""Authentication of the user to Google's services."""

import json
import os

from google.colab import _message, _metadata, errors

_ADC = ".config/gcloud/application_default_credentials.json"


def authenticate_user(clear_output=True, project_id=None):
    """Make the user's credentials available on the machine.

    With ``USE_AUTH_EPHEM=1`` the front end is asked to propagate them. Otherwise a code is asked for, as ``gcloud auth
    login --no-launch-browser`` does, with an ordinary prompt.

    Raises:
        errors.AuthorizationError: there are no credentials afterwards.
    """
    if project_id:
        os.environ["GOOGLE_CLOUD_PROJECT"] = project_id
    if os.environ.get("USE_AUTH_EPHEM", "0") == "1":
        _message.blocking_request("request_auth", {"authType": "auth_user_ephemeral"}, timeout_sec=None)
        token = _metadata.access_token("auth_user_ephemeral")
    else:
        print("Go to the following link in your browser, and complete the sign-in prompts:\n")
        print("    https://accounts.google.com/o/oauth2/auth?response_type=code&prompt=consent&token_usage=remote\n")
        token = input("Once finished, enter the verification code provided in your browser: ").strip()
    if not token:
        raise errors.AuthorizationError("Failed to fetch user credentials")
    path = os.path.join(os.path.expanduser("~"), _ADC)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"type": "authorized_user", "token": token}, file)
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = path
