"""
The parts of the examples: the function of the demo, which parses and measures a
Python module, the picture of the Mandelbrot set, the summary of logs, what the
hosts of the crawler find in a page, and calls from a folder.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asynqueue.testing import MemoryQueue

EXAMPLES = Path(__file__).parent.parent / "examples"

# Seconds after which something hangs.
PATIENCE = 120

SOURCE = '''\
"""
A module.
"""

# A comment.
import os, sys
from . import here


class Thing:
    def method(self, x):
        if x and os and sys:
            return 1
        elif here:
            for y in x:
                assert y
        return [z for z in x if z]


async def f():
    pass
'''


def example(name: str) -> Any:
    """
    An example as a module.
    """
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stdlib() -> Any:
    """
    The module C{examples/stdlib.py}.
    """
    return example("stdlib")


def measured(stdlib: Any, path: Path, source: bytes) -> dict[str, Any]:
    """
    The measures of a module with this source, without its path, as they are
    after a journey as JSON.
    """
    path.write_bytes(source)
    measures: dict[str, Any] = json.loads(json.dumps(stdlib.measure(str(path))))
    assert measures.pop("path") == str(path)
    assert measures.pop("bytes") == len(source)
    return measures


def test_measures(stdlib: Any, tmp_path: Path) -> None:
    """
    A module is measured as a person would do it.
    """
    assert measured(stdlib, tmp_path / "module.py", SOURCE.encode()) == {
        "lines": 21,
        "code": 15,
        "functions": 2,
        "classes": 1,
        "imports": 3,
        # if, and, and, elif, for, assert, comprehension: one each.
        "branches": 7,
        # class, def, elif, for.
        "nesting": 4,
        "longest": 7,
        "mean": 4.5,
    }


def test_emptyModule(stdlib: Any, tmp_path: Path) -> None:
    """
    A module without anything has no functions to take the mean of.
    """
    measures = measured(stdlib, tmp_path / "empty.py", b"")
    assert set(measures.values()) == {0}


def test_encodingIsRead(stdlib: Any, tmp_path: Path) -> None:
    """
    A module says in which encoding it is.
    """
    source = "# coding: latin-1\nname = 'é'\n".encode("latin-1")
    assert measured(stdlib, tmp_path / "latin.py", source)["lines"] == 2


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"print 'two'", "SyntaxError"),
        (b"x = '\xff'", "SyntaxError"),
        (b"# coding: utf-8\n'\xff'", "UnicodeDecodeError"),
        (b"# coding: nothing\n", "SyntaxError"),
        (b"x = 1\0", ""),
        (b"(" * 10_000, ""),
    ],
)
def test_badModulesHaveAnError(stdlib: Any, tmp_path: Path, source: bytes, error: str) -> None:
    """
    What is no Python is an error in the measures, not of the function.
    """
    assert error in measured(stdlib, tmp_path / "bad.py", source)["error"]


def test_missingModule(stdlib: Any, tmp_path: Path) -> None:
    """
    A file that cannot be read is a failure.
    """
    with pytest.raises(FileNotFoundError):
        stdlib.measure(str(tmp_path / "nothing.py"))


@pytest.mark.bulk
def test_modulesAreThoseOfTheStandardLibrary(stdlib: Any) -> None:
    """
    All modules of the standard library are listed, once, and no other.
    """
    modules = stdlib.modules()
    assert len(modules) > 500
    assert modules == sorted(set(modules))
    assert json.__file__ in modules
    assert pytest.__file__ not in modules


# The Mandelbrot set


def chunksOf(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    The chunks of a PNG, whose sums are checked.
    """
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place = 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        kind, data = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", png, place + 8 + length) == (zlib.crc32(kind + data),)
        yield kind, data
        place += length + 12


def test_pictureIsAPNG(tmp_path: Path) -> None:
    """
    The program writes a PNG of the size that was asked for, whose rows are those that
    its function computes, in order.
    """
    path = tmp_path / "set.png"
    program = [sys.executable, str(EXAMPLES / "mandelbrot.py"), "--output", str(path)]
    subprocess.run([*program, "--width", "40", "--height", "30"], check=True, timeout=PATIENCE)
    chunks = list(chunksOf(path.read_bytes()))
    assert chunks[0] == (b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 3, 0, 0, 0))
    assert chunks[-1] == (b"IEND", b"")
    data = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    row = example("mandelbrot").row
    assert data == b"".join(b"\0" + row(y, 40, 30) for y in range(30))


def test_rowsAreWrittenAsTheyCome() -> None:
    """
    A picture is in its file as far as it has come, and is not kept.
    """
    module = example("mandelbrot")
    file = io.BytesIO()
    picture = module.PNG(file, 40, 10, module.paletteOf(module.STOPS))
    sizes = [file.tell()]
    picture.registerProducer(None, True)
    for y in range(10):
        picture.write(bytes(range(y, y + 40)))
        sizes.append(file.tell())
    picture.unregisterProducer()
    assert sizes == sorted(set(sizes))


def test_paletteHasAllColours() -> None:
    """
    There is a colour for each number that a point can have.
    """
    module = example("mandelbrot")
    palette = module.paletteOf(module.STOPS)
    assert len(palette) == 256
    assert all(len(colour) == 3 and 0 <= min(colour) <= max(colour) < 256 for colour in palette)


# Logs


def test_logsAreSummedUp(tmp_path: Path) -> None:
    """
    A summary counts each line of a log once.
    """
    module = example("logs")
    path = module.writeLog(str(tmp_path / "access.log"), 1)
    statuses, paths, size = module.summary(path)
    assert statuses.total() == paths.total() == module.LINES
    assert set(paths) == set(module.PATHS)
    lines = Path(path).read_text(encoding="ascii").splitlines()
    assert size == sum(int(line.split()[9]) for line in lines if line.split()[9] != "-")


@pytest.mark.measured
def test_pageIsServedMeanwhile(tmp_path: Path) -> None:
    """
    The program ends by itself, with all requests counted and the page served.
    """
    program = [sys.executable, str(EXAMPLES / "logs.py")]
    done = subprocess.run(
        program, cwd=tmp_path, check=True, timeout=PATIENCE, capture_output=True, encoding="utf-8"
    )
    assert "25 of 25 logs, 200,000 requests" in done.stdout
    assert "the page was served" in done.stdout
    assert done.stderr == ""


# The crawler


def test_readerFindsWordsAndLinks() -> None:
    """
    A page has the words of its text, and not of its title; links are addresses.
    """
    reader = example("_fetcher").Reader("http://site/page/1?x")
    reader.feed("<title>No word</title><p>one two\ntwo</p><nav><a href='/a#b'>more</a>")
    reader.feed("<a href='c'>more</a> <a name='nowhere'>more</a></nav>")
    reader.close()
    assert reader.words == {"one": 1, "two": 2}
    assert reader.links == ["http://site/a", "http://site/page/c"]


def test_allPagesOfTheSiteAreReached() -> None:
    """
    The links of the crawler's site lead from its first page to every other, and to as many
    dead ends as it says.
    """
    site, pages = example("_website"), 137
    seen, left = set(), ["/page/0"]
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            _, kind, number = path.split("/")
            left += site.linksOf(int(number), pages) if kind == "page" else []
    dead = {path for path in seen if path.startswith("/nothing/")}
    assert seen - dead == {f"/page/{number}" for number in range(pages)}
    assert len(dead) == site.deadLinks(pages)


def test_indexOfTheSiteHasAllWords() -> None:
    """
    The index with which the crawler compares its own counts every word of every page.
    """
    site = example("_website")
    index = site.indexOf(30)
    assert sum(sum(pages.values()) for pages in index.values()) == 30 * site.WORDS_PER_PAGE
    assert set(index) <= set(site.WORDS)


def outcomesIn(folder: Path) -> dict[str, Any]:
    """
    The outcomes that stand in a folder of calls.
    """
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.result")}


def test_filesAreTakenAsTheQueueWantsThem(tmp_path: Path) -> None:
    """
    Of a folder of calls no more are taken than the queue wants; as each ends its outcome is
    written and another one is taken.
    """
    queue = MemoryQueue()
    source = example("folder_source").FolderSource(queue, tmp_path)
    for number in range(5):
        text = json.dumps({"call": "math.factorial", "arguments": [number]})
        (tmp_path / f"{number}.call").write_text(text)
    for _ in range(2):
        source.look()
        assert [path.stem for path in source.intake.keys] == ["0", "1"]
    queue.step()
    assert outcomesIn(tmp_path) == {"0": {"returned": 1}}
    assert [path.stem for path in source.intake.keys] == ["1", "2"]
    queue.finish()
    assert [outcomesIn(tmp_path)[name]["returned"] for name in "01234"] == [1, 1, 2, 6, 24]


@pytest.mark.parametrize(
    "call",
    [
        *("nothing", "[1]", "{}", '{"call": "os.remove", "arguments": ["x"]}'),
        *('{"call": "math.nothing", "arguments": []}', '{"call": "math.sqrt", "arguments": 5}'),
        *(
            '{"call": "math.sqrt", "arguments": [-1]}',
            '{"call": "math.factorial", "arguments": [9999]}',
        ),
    ],
)
def test_filesThatFailAreTold(tmp_path: Path, call: str) -> None:
    """
    Whatever stands in a file, it is answered once, and the others are served.
    """
    queue = MemoryQueue()
    source = example("folder_source").FolderSource(queue, tmp_path)
    (tmp_path / "1.call").write_text(call)
    (tmp_path / "2.call").write_text('{"call": "math.sqrt", "arguments": [4]}')
    source.look()
    queue.finish()
    outcomes = outcomesIn(tmp_path)
    assert list(outcomes["1"]) == ["failed"]
    assert outcomes["2"] == {"returned": 2}


def test_filesOutliveAQueueThatEnds(tmp_path: Path) -> None:
    """
    A call that was not made, since the queue was shut down, is made by the next program.
    """
    queue = MemoryQueue()
    module = example("folder_source")
    source = module.FolderSource(queue, tmp_path)
    for name in "12":
        (tmp_path / f"{name}.call").write_text('{"call": "math.sqrt", "arguments": [4]}')
    source.look()
    queue.shutdown()
    queue.finish()
    assert "2" not in outcomesIn(tmp_path)
    queue = MemoryQueue()
    module.FolderSource(queue, tmp_path).look()
    queue.finish()
    assert outcomesIn(tmp_path)["2"] == {"returned": 2}
