"""Loaded by the nannies of a chaos test (a Dask preload module): their worker processes are forked from one that has
imported everything, so that twenty of them may be killed in the time in which five would start from nothing.
"""

import multiprocessing

from distributed.utils import get_mp_context


def dask_setup(nanny):
    """Name what the process to fork from imports; Dask's own list, which it sets once, is without pickcal."""
    get_mp_context()
    multiprocessing.set_forkserver_preload(["distributed", "pickcal.stages.pick"])
