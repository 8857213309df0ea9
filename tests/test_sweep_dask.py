"""A sweep on a Dask cluster of several processes, one of which dies."""

import os
import signal
import time

import pytest

pytest.importorskip("zarr")
distributed = pytest.importorskip("distributed")

from fastrnn.batch.verify import verify  # noqa: E402
from tests import sweeps  # noqa: E402


def test_a_cluster_with_a_killed_worker_gives_the_same_bits(tmp_path):
    whole = sweeps.small(tasks=40).run(tmp_path / "whole")
    killed = []

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2

        def kill_one(now):
            if now.done > 3 and not killed:
                killed.append(next(iter(pids.values())))
                os.kill(killed[0], signal.SIGKILL)
                time.sleep(0.1)

        sweep = sweeps.small(tasks=40)
        out = sweep.run(tmp_path / "out", executor=client.get_executor(), progress=kill_one)
    assert killed
    assert verify(out).not_computed == 0
    assert sweeps.content(out) == sweeps.content(whole)
