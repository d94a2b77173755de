"""
L{ProcessWorker}, over real processes: what every worker promises.
"""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from asynqueue import ProcessWorker
from asynqueue.testing import WorkerCheck, workerChecks

CHECKS = workerChecks(ProcessWorker, place="process", cancels=True, window=512)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_conforms(check: WorkerCheck) -> Deferred[None]:
    """
    The worker keeps what IWorker promises.
    """
    return check()
