"""The machine itself."""

from google.colab import _metadata, output


def unassign():
    """Release this machine; the front end is told, and nobody waits for its answer."""
    output.eval_js("google.colab.kernel.disconnect({unassign: true})", ignore_result=True)
    _metadata.unassign()
