"""Runs plans on devices: ``run_session``, ``resume_session``, ``plan_session``."""

from socbench.session.ending import SessionResult
from socbench.session.progress import DeviceProgress, LogProgress, Progress, SilentProgress
from socbench.session.requests import store_option
from socbench.session.run import plan_session, resume_session, run_session

__all__ = [
    "DeviceProgress",
    "LogProgress",
    "Progress",
    "SessionResult",
    "SilentProgress",
    "plan_session",
    "resume_session",
    "run_session",
    "store_option",
]
