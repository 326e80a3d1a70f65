"""Errors of the package."""


class Error(Exception):
    """Base of all of them."""


class AuthorizationError(Error):
    """The user could not be authenticated."""


class RuntimeManagementError(Error):
    """The machine could not be managed."""
