"""
What can become of a job, or of what is asked about one.
"""

from __future__ import annotations

from asynqueue.errors import AsynQueueError


class JobError(AsynQueueError):
    """
    A job has no value.

    @ivar id: which job.
    """

    def __init__(self, id: str, reason: str = "") -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def _with(self, text: str) -> str:
        return f"{text}: {self.reason}" if self.reason else text


class JobLost(JobError):
    """
    A job has begun, and how it ended cannot be learned.
    """

    def __str__(self) -> str:
        text = f"the job {self.id} was lost"
        return self._with(text) + (
            "; it may have done its work, or a part: look, and retry() it; or enqueue such jobs"
            " with Retry(N, loss=True), if they may be made again"
        )


class JobCancelled(JobError):
    """
    A job was cancelled.
    """

    def __str__(self) -> str:
        return f"the job {self.id} was cancelled"


class JobExpired(JobError, TimeoutError):
    """
    A job had not begun within the time that C{expires=} gave it.
    """

    def __str__(self) -> str:
        return f"the job {self.id} had not begun in time: give it more, or have more workers"


class UnknownJob(JobError, LookupError):
    """
    A store has no such job: it never had, or has forgotten it after its outcome was kept for as
    long as it should be.
    """

    def __str__(self) -> str:
        return f"there is no job {self.id}: it was never stored, or was pruned after its end"


class ResultNotKept(JobError, ValueError):
    """
    A job has ended well, but its value is not stored.
    """

    def __str__(self) -> str:
        return self._with(f"the job {self.id} is done, but its value was not stored")


class NotStorable(AsynQueueError, TypeError):
    """
    A call cannot be stored.
    """

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(call, reason)
        self.call = call
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.call} cannot be stored: {self.reason}"


class JobUnreadable(AsynQueueError, ValueError):
    """
    A job came from a store, and cannot be called here: its function is not allowed, or its
    arguments or options are not what they should be.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"the job's call of {self.name} cannot be made here: {self.reason}"
