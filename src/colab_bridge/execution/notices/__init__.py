"""Tells the user when a long run has ended, failed, asks something or has lost its machine."""

from colab_bridge.execution.notices.service import NoticeService

__all__ = ["NoticeService"]
