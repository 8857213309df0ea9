"""What holds for all tests."""

import pytest

from fastrnn import engine


@pytest.fixture(autouse=True)
def small_jobs_are_worth_threads(monkeypatch):
    """As many threads as a test asks for: its jobs are too small to be worth a second one."""
    monkeypatch.setattr(engine, "LANE_WORK", 1)
    monkeypatch.setattr(engine, "THREAD_WORK", 1)
