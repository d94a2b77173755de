"""
Who comes first: niceness, doNext and series, visibly at work.

Three customers send jobs to one printer, much more than it can print at once.
"""

from collections import Counter

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater, react

from asynqueue import AsyncWorker, TaskQueue

# Niceness is that of UNIX: ten more is half the share.
CUSTOMERS = {"greedy": -10, "normal": 0, "modest": 10}

JOBS = 70


async def main(reactor):
    printed = []

    async def printJob(name):
        await deferLater(reactor, 0.002)
        printed.append(name)

    queue = TaskQueue(AsyncWorker(series=["printer"]))
    jobs = [
        queue.call(printJob, customer, niceness=niceness, series="printer")
        for customer, niceness in CUSTOMERS.items()
        for _ in range(JOBS)
    ]
    # This one has waited for nobody, however many jobs were there before it.
    jobs.append(queue.call(printJob, "URGENT", doNext=True, series="printer"))

    # No worker is qualified for this: it waits, and keeps nobody else waiting.
    fax = queue.call(printJob, "fax", series="fax machine")
    print("the fax:", queue.why(fax), "\n")
    fax.addErrback(lambda failure: print("\nthe fax was not sent:", failure.getErrorMessage()))

    await gatherResults(jobs)
    print("the first ones:", *printed[:8])
    print(f"\nin turns of {JOBS}:")
    for start in range(0, len(CUSTOMERS) * JOBS, JOBS):
        counts = Counter(printed[start : start + JOBS])
        print("   ", "   ".join(f"{name} {counts[name]:2}" for name in CUSTOMERS))

    # The greedy one had twice as much as the normal one, and that one twice as
    # much as the modest one: 40, 20, 10 of the first 70.
    first = Counter(printed[:JOBS])
    assert "URGENT" in printed[:3]
    assert abs(first["greedy"] - 40) <= 2
    assert abs(first["modest"] - 10) <= 2
    await queue.shutdown()


if __name__ == "__main__":
    react(main)
