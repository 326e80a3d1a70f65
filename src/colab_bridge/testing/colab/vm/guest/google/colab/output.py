"""What the front end shows and runs."""

from google.colab import _message


def eval_js(script, ignore_result=False, timeout_sec=None):
    """Run JavaScript in the page.

    Args:
        script: Its source.
        ignore_result: Not to wait for the result; the request has a number all the same.
        timeout_sec: Seconds to wait; None waits for ever.

    Returns:
        The result.

    Raises:
        MessageError: the page says that it failed.
    """
    parent = _message.current_parent()
    number = _message.send_request("cell_javascript_eval", {"script": script}, parent=parent, expect_reply=True)
    return None if ignore_result else _message.read_reply(number, timeout_sec)


def clear():
    """Clear the cell's output."""
    from IPython.display import clear_output

    clear_output()
