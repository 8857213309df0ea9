"""Programs in processes of their own: with limits, signals and environments a test cannot share."""

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2]


def start(code, *options, cwd=None, before=None, **environment):
    """A Python program that has begun, and imports fastrnn from where this test is."""
    return subprocess.Popen(
        [sys.executable, *options, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        preexec_fn=before,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code, *options, status=0, timeout=300, **settings):
    """What a program prints; it ends with a status."""
    process = start(code, *options, **settings)
    output, errors = process.communicate(timeout=timeout)
    assert process.returncode == status, f"status {process.returncode}: {errors}"
    return output
