"""
C{python -m asynqueue} is the C{asynqueue} command.
"""

from __future__ import annotations

from asynqueue.cli import main

if __name__ == "__main__":
    main()
