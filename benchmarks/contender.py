"""
Runs one contender: C{python -m benchmarks.contender MODULE:FUNCTION}.

A function that takes a reactor returns a coroutine; another one returns its
figures. Either way they are printed as a line of JSON.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys


def main(name: str) -> None:
    """
    Run a contender.
    """
    module, _, function = name.partition(":")
    contender = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    if not inspect.iscoroutinefunction(contender):
        print(json.dumps(contender()))
        return
    # Imported here, because a contender may want a reactor of its own.
    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    async def measured(reactor):
        print(json.dumps(await contender(reactor)))

    react(lambda reactor: Deferred.fromCoroutine(measured(reactor)))


if __name__ == "__main__":
    main(sys.argv[1])
