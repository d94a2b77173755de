"""
What the documents show is true: every program in them is run, and every command.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from docutils.nodes import entry as entryNode, thead

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.rst"))]

# Seconds after which a program hangs. The demo has two thousand files to read.
PATIENCE = 300

# What the tests have an example do, where it would do much more: `make demo` does it all.
LESS = {"demo.py": ["--first", "80"]}

MARKDOWN = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
RESTRUCTURED = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n(?P<options>(?: +:\w+:.*\n)*)\n"
    r"(?P<text>(?:(?: {3}.*)?\n)+)",
    re.MULTILINE,
)


def blocksOf(document: Path, language: str) -> Iterator[tuple[int, str]]:
    """
    The blocks of one language in a document, each with the number of its line.
    """
    text = document.read_text(encoding="utf-8")
    pattern = MARKDOWN if document.suffix == ".md" else RESTRUCTURED
    for match in pattern.finditer(text + "\n"):
        if match["language"] == language:
            yield text.count("\n", 0, match.start()) + 1, textwrap.dedent(match["text"])


def programs() -> Iterator[object]:
    """
    The complete programs of all documents.
    """
    for document in DOCUMENTS:
        for line, text in blocksOf(document, "python"):
            yield pytest.param(text, id=f"{document.name}:{line}")


def commands() -> Iterator[object]:
    """
    The commands of all documents, each with the output that is shown for it.
    """
    for document in DOCUMENTS:
        for line, text in blocksOf(document, "console"):
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield pytest.param(command, output.rstrip(), id=f"{document.name}:{line}:{command}")


def run(arguments: list[str], folder: Path) -> str:
    """
    Run a program in a folder, in an environment where C{asynqueue} is a command.

    @return: its standard output.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=dict(os.environ, PATH=path, PYTHONIOENCODING="utf-8"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    told = f"\n--- standard output\n{done.stdout}\n--- standard error\n{done.stderr}"
    assert done.returncode == 0, told
    assert "Traceback" not in done.stderr, told
    assert "Unhandled" not in done.stderr, told
    return done.stdout


@pytest.mark.parametrize(
    "document",
    [pytest.param(each, id=each.name) for each in DOCUMENTS if each.suffix == ".rst"],
)
def test_tablesSayWhatTheirColumnsAre(document: Path) -> None:
    """
    No cell of a table's head is empty. Where the first cell of a line is, reStructuredText
    takes the line for one that goes on, and empties all of them.
    """
    quiet = {"report_level": 5, "halt_level": 5}
    tree = publish_doctree(document.read_text(encoding="utf-8"), settings_overrides=quiet)
    heads = [entry.astext() for head in tree.findall(thead) for entry in head.findall(entryNode)]
    assert "" not in heads


def test_documentsHavePrograms() -> None:
    """
    The programs are found, in documents of both kinds.
    """
    kinds = {document.suffix for document in DOCUMENTS if list(blocksOf(document, "python"))}
    assert kinds == {".md", ".rst"}


@pytest.mark.parametrize("program", list(programs()))
def test_programRuns(program: str, tmp_path: Path) -> None:
    """
    A program of a document runs to its end as it stands, without complaint.
    """
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    assert run([sys.executable, str(path)], tmp_path)


@pytest.mark.parametrize(("command", "output"), list(commands()))
def test_commandGivesWhatIsShown(command: str, output: str) -> None:
    """
    A command of a document gives the very output that is shown below it.
    """
    assert run(["sh", "-c", command], ROOT).rstrip() == output


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name)
        for path in sorted((ROOT / "examples").glob("*.py"))
        if not path.name.startswith("_")
    ],
)
def test_exampleRuns(path: Path, tmp_path: Path) -> None:
    """
    An example runs to its end, without arguments (but for L{LESS}) and in whatever folder.
    """
    run([sys.executable, str(path), *LESS.get(path.name, [])], tmp_path)


def test_demoOverHosts(tmp_path: Path) -> None:
    """
    The demo has the same measured by hosts as by processes.
    """
    results = []
    for hosts in ("0", "2"):
        demo = [sys.executable, str(ROOT / "examples" / "demo.py"), "--output", str(tmp_path)]
        run([*demo, "--first", "60", "--hosts", hosts], tmp_path)
        lines = (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()
        results.append(sorted(lines))
    assert len(results[0]) == 60
    assert results[0] == results[1]
