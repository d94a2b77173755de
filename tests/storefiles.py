"""
Stores in files of temporary folders.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from asynqueue.stores.operations import (
    Add,
    Claim,
    Operation,
    Want,
)
from asynqueue.stores.records import (
    Flow,
    NewJob,
    NodeRecord,
)
from asynqueue.stores.sqlite.engine import SQLiteEngine

NODE = NodeRecord(id="n", name="node", host="here", pid=1)


class File:
    """
    A store in a file of a temporary folder, with a clock that the test moves.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.engine = self.another()

    def another(self) -> SQLiteEngine:
        """
        Make an engine on the same file.
        """
        return SQLiteEngine(self.path, clock=lambda: self.now)

    def do(self, operation: Operation[Any]) -> Any:
        """
        Do one operation.
        """
        [answer], _ = self.engine.execute([operation])
        return answer

    def add(self, *ids: str, **kw: Any) -> None:
        """
        Add jobs.
        """
        self.do(Add(tuple(NewJob(id=id, name="m:f", payload=b"x", **kw) for id in ids)))

    def claim(self, count: int, flow: Flow | None = None) -> list[str]:
        """
        Claim jobs, and return their IDs.
        """
        claims = self.do(Claim("n", (Want(flow or Flow(), count),)))
        return [each.job.id for each in claims.claimed]

    def ask(self, statement: str) -> list[Any]:
        """
        Read the database with another connection, as people do.
        """
        other = sqlite3.connect(self.path)
        try:
            return other.execute(statement).fetchall()
        finally:
            other.close()
