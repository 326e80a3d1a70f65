"""What notebooks on an emulated machine import as ``google.colab``; speaks the same side protocol as the real one."""

from google.colab import auth, drive, errors, files, output, runtime, userdata

__all__ = ["auth", "drive", "errors", "files", "output", "runtime", "userdata"]
