"""
A program that shares nothing itself: its calls share memory by its name, each in another
process.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from twisted.internet.task import react

from asynqueue import ProcessQueue

CALLS = "tests.integration.sharing_calls"


def there(name: str, *args: Any) -> Any:
    """
    Call a function of a module that is only imported where this runs.
    """
    return getattr(import_module(CALLS), name)(*args)


async def main(reactor: Any) -> None:
    """
    One call makes memory, the next one reads it, the third removes it.
    """
    queue = ProcessQueue(1, maxTasks=1)
    name = await queue.call(there, "create", b"made")
    print(await queue.call(there, "read", name), await queue.call(there, "helpers"))
    await queue.call(there, "remove", name)
    print(CALLS in sys.modules)
    await queue.shutdown()


react(main)
