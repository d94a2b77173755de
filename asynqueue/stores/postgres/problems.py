"""
What can be wrong with PostgreSQL, each in a clear sentence, and without passwords.
"""

from __future__ import annotations

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# What of a connection string is shown to people: nothing that can be secret.
_SHOWN = ("service", "host", "hostaddr", "port", "dbname", "user")

# What is no fault of an operation, by the beginnings of SQLSTATEs: the server, or the rights on it.
_SERVER = ("08", "25006", "42501", "53", "55P03", "57P", "58", "F0", "XX00")

_SENTENCES = {
    "25006": "it can only be read: the server is a standby, or set to be read-only",
    "53100": "its disk is full",
    "53200": "the server is out of memory",
    "53300": "the server has all the connections that it allows",
    "55P03": "another program has kept it locked for longer than lock_timeout allows",
    "57P03": "the server is starting, stopping or recovering",
}


def parsed(conninfo: str) -> dict[str, str]:
    """
    Return what a connection string says.

    @raise ValueError: it says nothing that can be understood. It is not shown: it may have a
        password.
    """
    try:
        found = conninfo_to_dict(conninfo)
    except psycopg.Error:
        raise ValueError(
            "the connection string of PostgreSQL cannot be understood: write it like"
            ' "host=/run/postgresql dbname=shop" or "postgresql://user@host/shop"'
        ) from None
    return {key: str(value) for key, value in found.items() if value is not None}


def conninfoOf(parameters: dict[str, str]) -> str:
    """
    Return a connection string of these parameters.

    @raise ValueError: libpq does not know one of them.
    """
    try:
        return make_conninfo(**parameters)
    except psycopg.ProgrammingError as error:
        # It names the parameter, and does not have its value.
        raise ValueError(str(error).strip()) from None


def nameOf(parameters: dict[str, str], schema: str) -> str:
    """
    Return what people know a store by.
    """
    shown = [f"{key}={parameters[key]}" for key in _SHOWN if key in parameters]
    if schema != "asynqueue":
        shown.append(f"schema={schema}")
    return "postgresql:" + ":".join(shown)


def isOfServer(error: psycopg.Error) -> bool:
    """
    Tell whether an error has nothing to do with what was asked.
    """
    return error.sqlstate is not None and error.sqlstate.startswith(_SERVER)


def sentence(error: psycopg.Error) -> str:
    """
    Return what is wrong, in a line.
    """
    state = error.sqlstate
    if state in _SENTENCES:
        return _SENTENCES[state]
    text = error.diag.message_primary or str(error)
    # Of what several addresses say the last is said: the first line of it, after where it was.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Is the server", "Multiple", "- host"))]
    if not lines:
        return type(error).__name__
    found = re.search(r"(?:FATAL|ERROR|PANIC):\s*(.*)", text)
    if found:
        return found[1].strip()
    return lines[0].removeprefix("connection failed: ").removeprefix("consuming input failed: ")
