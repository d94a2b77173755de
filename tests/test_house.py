"""
How the house is built: what an import brings with it, and what is shipped.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pytest

import asynqueue

ROOT = Path(__file__).parent.parent
PACKAGE = Path(asynqueue.__file__).parent

# Modules that also serve where there is no Twisted.
WITHOUT_TWISTED = [
    "asynqueue.calling",
    "asynqueue.channels",
    "asynqueue.mapping.chunks",
    "asynqueue.codec",
    "asynqueue.errors",
    "asynqueue.exchange",
    "asynqueue.framing",
    "asynqueue.outcome",
    "asynqueue.pollers",
    "asynqueue.processes.child",
    "asynqueue.testing.calls",
]

# What begins a sentence that says what is so, and not what a function does.
NO_VERB = re.compile(
    r"(An?|The|This|That|These|Those|Its?|They|There|What|How|Whether|Who|Which|Where|When|If|As"
    r"|One|All|Each|Some\w*|No|Nobody|Nothing)\b"
)

# What says nothing where it stands, or is no English.
PHRASES = re.compile(
    r"as above|likewise|so many|has no sense|have no sense|it was done|whoever", re.IGNORECASE
)

# What decorates a function that is a thing, or a promise.
NO_ACT = re.compile("property|check", re.IGNORECASE)

FRAGMENT = re.compile(r"\+[a-zA-Z0-9-]+\.(feature|bugfix|doc|removal|misc)\.md")


def moduleNames() -> list[str]:
    """
    The names of all modules, found without importing any.
    """
    names = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def fresh(code: str, *arguments: str) -> str:
    """
    What a fresh interpreter prints for this code. It is not measured for
    coverage: only what the code itself imports is to be there.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=env,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout


def importedWith(name: str) -> set[str]:
    """
    All modules that are there after the import of one.
    """
    return set(fresh(f"import {name}, sys; print(*sys.modules)").split())


def secondsToImport(name: str) -> float:
    """
    How long one import takes in a fresh interpreter.
    """
    clock = "from time import perf_counter as clock; start = clock()"
    return float(fresh(f"{clock}; import {name}; print(clock() - start)"))


# Imports modules, each as the first of AsynQueue, and prints those that fail or install a
# reactor. What takes long to be imported, and is not ours, is imported once.
FIRST_IMPORTS = """
import gc, importlib, os, sys
import automat, click, cloudpickle, psutil, rich.console, rich.progress
import twisted.application.internet, twisted.internet.asyncioreactor, twisted.internet.endpoints
import twisted.internet.ssl, twisted.protocols.amp
gc.disable()
for name in sys.argv[1:]:
    if os.fork():
        if os.wait()[1]:
            print(name)
    else:
        importlib.import_module(name)
        os._exit("twisted.internet.reactor" in sys.modules)
"""


def test_importInstallsNoReactor() -> None:
    """
    No module installs a reactor when it is the first to be imported.
    """
    assert fresh(FIRST_IMPORTS, *moduleNames()) == ""
    assert fresh(FIRST_IMPORTS, "twisted.internet.reactor") == "twisted.internet.reactor\n"


@pytest.mark.parametrize("name", ["asynqueue", *WITHOUT_TWISTED])
def test_groundImportsNoTwisted(name: str) -> None:
    """
    The package itself and the ground floor do without Twisted.
    """
    assert "twisted" not in importedWith(name)


def test_allPublicNamesResolve() -> None:
    """
    What C{asynqueue.__all__} lists is there, and is listed by C{dir}.
    """
    assert asynqueue.__all__
    assert all(getattr(asynqueue, name) is not None for name in asynqueue.__all__)
    assert set(asynqueue.__all__) <= set(dir(asynqueue))


def test_packageSaysWhatIsPublic() -> None:
    """
    The page of the package begins with all public names, each with a link.
    """
    linked = re.findall(r"L\{(\w+)\}", asynqueue.__doc__ or "")
    assert sorted(linked) == sorted({*asynqueue.__all__} - {"__version__"})


def test_unknownNameIsAnAttributeError() -> None:
    """
    A name that is not public is refused as by any module.
    """
    name = "noSuchName"
    with pytest.raises(AttributeError, match=name):
        getattr(asynqueue, name)


def test_everyPublicNameAloneInstallsNoReactor() -> None:
    """
    Getting all public names installs no reactor either.
    """
    code = "import sys; from asynqueue import *; print('twisted.internet.reactor' in sys.modules)"
    assert fresh(code).strip() == "False"


def test_versionIsSaidOnce() -> None:
    """
    The version of the package is that of setup.cfg, installed or asked for.
    """
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert asynqueue.__version__ == version("asynqueue") == config["metadata"]["version"]


def test_typesAreShipped() -> None:
    """
    The marker that makes type checkers look at us is there, and is packed.
    """
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "py.typed" in config["options.package_data"]["asynqueue"].split()
    assert (PACKAGE / "py.typed").exists()


def test_importIsCheap() -> None:
    """
    The import of the package takes at most 1.3 times that of
    C{twisted.internet.defer}: a ratio of medians, of interpreters that take
    turns, so that a busy machine slows both.
    """
    turns = [
        (secondsToImport("asynqueue"), secondsToImport("twisted.internet.defer")) for _ in range(7)
    ]
    ours, theirs = (median(times) for times in zip(*turns, strict=True))
    assert ours <= 1.3 * theirs


def withoutVerb(path: Path) -> list[str]:
    """
    The functions of a module whose docstrings begin with no verb. Properties are things, and checks
    say what holds.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = map(ast.unparse, node.decorator_list)
            text = ast.get_docstring(node) or ""
            if NO_VERB.match(text) and not any(NO_ACT.search(name) for name in decorators):
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {text.splitlines()[0]}")
    return found


def test_docstringsSayWhatFunctionsDo() -> None:
    """
    The docstring of a function begins with what it does, and not with an article or the like.
    """
    assert [line for path in sorted(PACKAGE.rglob("*.py")) for line in withoutVerb(path)] == []


def test_phrasesThatSayNothing() -> None:
    """
    No module and no page sends the reader elsewhere, or has a number without a thing.
    """
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "docs").glob("*.rst"))]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PHRASES.search(line)
    ]
    assert found == []


def test_newsFragmentsAreWellNamed() -> None:
    """
    Every fragment has a name from which towncrier knows its kind.
    """
    names = {path.name for path in (ROOT / "newsfragments").iterdir()} - {"README.md"}
    assert all(FRAGMENT.fullmatch(name) for name in names), names


def test_partsHaveEachTestOnce() -> None:
    """
    The parts in which make has the tests run have every file of tests, once.
    """
    make = ["make", "--no-print-directory", "-s", ".parts"]
    said = subprocess.run(make, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    found: Counter[Path] = Counter()
    for line in said.stdout.splitlines():
        words = line.split()[1:]
        without = [ROOT / word.removeprefix("--ignore=") for word in words if word[:2] == "--"]
        for path in (ROOT / word for word in words if word[:2] != "--"):
            files = path.rglob("test_*.py") if path.is_dir() else [path]
            found.update(file for file in files if not {file, *file.parents} & {*without})
    assert found == dict.fromkeys((ROOT / "tests").rglob("test_*.py"), 1)
