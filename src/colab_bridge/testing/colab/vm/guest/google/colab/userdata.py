"""The user's secrets."""

from google.colab import _message

_TIMEOUT_S = 10


class SecretNotFoundError(AttributeError):
    """There is no such secret."""

    def __init__(self, key):
        super().__init__(f"Secret {key} does not exist.")


class NotebookAccessError(Exception):
    """The notebook may not read it."""

    def __init__(self, key):
        super().__init__(f"Notebook does not have access to secret {key}")


class TimeoutException(Exception):
    """The front end did not answer."""

    def __init__(self, key):
        super().__init__(
            f"Requesting secret {key} timed out. Secrets can only be fetched when running from the Colab UI."
        )


def get(key):
    """Return a secret."""
    answer = _message.blocking_request("GetSecret", {"key": key}, timeout_sec=_TIMEOUT_S)
    if not answer:
        raise TimeoutException(key)
    if not answer.get("exists", False):
        raise SecretNotFoundError(key)
    if not answer.get("access", False):
        raise NotebookAccessError(key)
    return answer.get("payload", "")
