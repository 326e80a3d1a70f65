"""Mounting of Google Drive."""

import os

from google.colab import _message, _metadata

_HOSTNAME = "/var/colab/hostname"
_MY_DRIVE = "MyDrive"


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Mount Drive at a folder.

    Raises:
        ValueError: it cannot be mounted there, or no credentials have been propagated.
        NotImplementedError: this is no machine of the service.
    """
    if not os.path.exists(_HOSTNAME):
        raise NotImplementedError("google.colab.drive is not supported in this environment.")
    mountpoint = os.path.abspath(os.path.expanduser(mountpoint))
    link = os.path.join(mountpoint, _MY_DRIVE)
    if os.path.lexists(link):
        if not force_remount:
            print(
                f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
                f'call drive.mount("{mountpoint}", force_remount=True).'
            )
            return
        os.unlink(link)
    _check(mountpoint)
    _message.blocking_request("request_auth", {"authType": "dfs_ephemeral"}, timeout_sec=timeout_ms / 1000)
    if _metadata.access_token("dfs_ephemeral") is None:
        raise ValueError("mount failed")
    os.makedirs(mountpoint, exist_ok=True)
    os.symlink(os.environ["COLAB_BRIDGE_VM_DRIVE"], link)
    print(f"Mounted at {mountpoint}")


def _check(mountpoint):
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    if os.path.islink(mountpoint):
        raise ValueError("Mountpoint must not be a symlink")
    if os.path.isdir(mountpoint) and os.listdir(mountpoint):
        raise ValueError("Mountpoint must not already contain files")
    if not os.path.isdir(mountpoint) and os.path.exists(mountpoint):
        raise ValueError("Mountpoint must either be a directory or not exist")
    if not os.path.isdir(os.path.dirname(mountpoint)):
        raise ValueError("Mountpoint must be in a directory that exists")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Unmount Drive wherever it is mounted below ``/content``."""
    for folder in os.scandir("/content"):
        link = os.path.join(folder.path, _MY_DRIVE)
        if os.path.islink(link):
            os.unlink(link)
            return
    print("Drive not mounted, so nothing to flush and unmount.")
