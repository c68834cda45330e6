"""Many nodes: start Dask workers through the batch system, run `badpix rebuild --dask`, end them.

python rebuild_dask.py [slurm|htcondor|local] FILE.yml...     (pip install 'badpix[cluster]' dask-jobqueue)

Bands of rows are worked on by the cluster; locks, records and masks are written by this process, so start it where
the masks live. All nodes must see the exposures under the same paths.
"""

import subprocess
import sys
from typing import Any

JOBS = 8  # batch jobs
EACH = {"cores": 8, "processes": 8, "memory": "8GB"}  # of one batch job; one process a core


def make_cluster(system: str) -> Any:
    """A Dask cluster on the batch system."""
    if system == "slurm":
        from dask_jobqueue import SLURMCluster

        return SLURMCluster(**EACH, walltime="02:00:00")
    if system == "htcondor":
        from dask_jobqueue import HTCondorCluster

        return HTCondorCluster(**EACH, disk="4GB")
    from distributed import LocalCluster

    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)


def main() -> int:
    """Exit status of badpix rebuild."""
    system, *files = sys.argv[1:]
    with make_cluster(system) as cluster:
        if system != "local":
            cluster.scale(jobs=JOBS)
        call = ["badpix", "rebuild", *files, "--dask", cluster.scheduler_address, "--status-file", "status"]
        return subprocess.run(call, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
