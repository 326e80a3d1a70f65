"""Starts runs again and again: at intervals, or at the times of a crontab line."""

from colab_bridge.execution.schedules.service import ScheduleService

__all__ = ["ScheduleService"]
