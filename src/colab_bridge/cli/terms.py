"""What the present settings do with Google Colab, beside what its terms say. Pure."""

from __future__ import annotations

from typing import Final

from colab_bridge.config.schema import Settings

__all__ = ["TERMS_URL", "terms"]

TERMS_URL: Final = "https://research.google.com/colaboratory/faq.html"


def terms(settings: Settings) -> list[dict[str, str]]:
    """Return what is done, and what the terms say about it.

    Args:
        settings: Of the project at hand.

    Returns:
        Rows with ``what``, ``here`` (what these settings do) and ``terms``.
    """
    colab = settings.colab
    idle = f"released after {colab.idle_minutes:g} idle minutes" if colab.idle_minutes else "never released by itself"
    budget = f"released after {colab.budget:g} compute units" if colab.budget else "no limit is set"
    return [
        {
            "what": "keep-alive",
            "here": f"every {colab.keep_alive_s:g} s, only while something runs or within "
            f"{colab.keep_alive_minutes:g} min of your last act, for {colab.most_hours:g} h at most",
            "terms": "a machine is for interactive use; keeping one busy only to keep it is not allowed",
        },
        {"what": "idle machines", "here": idle, "terms": "idle machines are taken away after a while"},
        {"what": "cost", "here": budget, "terms": "compute units are used as long as a machine is assigned"},
        {
            "what": "access",
            "here": "Google's own interfaces with your own sign-in; no browser is driven, no activity is faked",
            "terms": "your account answers for what runs; sharing it or going round limits is not allowed",
        },
        {
            "what": "shell, SSH, forwarded ports",
            "here": "only by the commands of that name",
            "terms": "as the main use, without compute units, not allowed",
        },
    ]
