"""Benchmarks for asv: a class for each verb, each benchmark of one public call.

Compiled kernels of a commit are kept in a folder of its own: none is timed with another's code.
"""

import os
from pathlib import Path

if "ASV_COMMIT" in os.environ:
    os.environ["FASTRNN_CACHE_DIR"] = str(
        Path(os.environ["ASV_ENV_DIR"], "kernels", os.environ["ASV_COMMIT"])
    )
