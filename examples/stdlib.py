"""
Measures Python modules: the function of the demo, and what it is given.

    asynqueue map --progress stdlib:measure < list-of-paths > measures.jsonl

(in this folder). Run as a program, it measures itself.
"""

import ast
import json
import sys
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# What may go one way or the other, as in McCabe's complexity.
BRANCHES = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler),
    *(ast.Assert, ast.comprehension, ast.match_case),
)

# What opens a block within which there is more to keep in mind.
BLOCKS = (
    *FUNCTIONS,
    *(ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith),
    *(ast.Try, ast.TryStar, ast.Match),
)

# Folders of the standard library's place that are not of the standard library.
FOREIGN = {"site-packages", "dist-packages", "__pycache__"}


def modules() -> list[str]:
    """
    The paths of all modules of the standard library of this machine, sorted.
    """
    paths = sysconfig.get_paths()
    found = set()
    for root in {paths["stdlib"], paths["platstdlib"]}:
        for path in Path(root).rglob("*.py"):
            if not FOREIGN.intersection(path.relative_to(root).parts):
                found.add(str(path))
    return sorted(found)


def measure(path: str) -> dict:
    """
    Parse a Python module, and measure it.

    Files that are no valid Python are expected: the tests of the standard library
    have some on purpose. They have an "error" instead of most of the measures.

    @raise OSError: the file cannot be read.
    """
    measures = {"path": path, "bytes": Path(path).stat().st_size}
    try:
        with warnings.catch_warnings():
            # Some have invalid escapes on purpose, too.
            warnings.simplefilter("ignore")
            with tokenize.open(path) as file:
                text = file.read()
            tree = ast.parse(text, path)
            return measures | lines(text) | shape(tree)
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
        return measures | {"error": f"{type(error).__name__}: {error}"}


def lines(text: str) -> dict:
    """
    How many lines there are, and how many have neither only space nor only a
    comment.
    """
    stripped = [line.strip() for line in text.splitlines()]
    code = sum(1 for line in stripped if line and not line.startswith("#"))
    return {"lines": len(stripped), "code": code}


def shape(tree: ast.AST) -> dict:
    """
    What a module consists of.
    """
    nodes = list(walk(tree, 0))
    lengths = [
        node.end_lineno - node.lineno + 1 for node, _ in nodes if isinstance(node, FUNCTIONS)
    ]
    return {
        "functions": len(lengths),
        "classes": sum(isinstance(node, ast.ClassDef) for node, _ in nodes),
        "imports": len(imports(node for node, _ in nodes)),
        "branches": sum(branches(node) for node, _ in nodes),
        "nesting": max(depth for _, depth in nodes),
        "longest": max(lengths, default=0),
        "mean": round(sum(lengths) / len(lengths), 2) if lengths else 0.0,
    }


def walk(root: ast.AST, depth: int) -> Iterator[tuple[ast.AST, int]]:
    """
    All nodes below one, each with the number of blocks around it. Not recursive:
    some modules are deeper than Python's stack.
    """
    pending = [(root, depth)]
    while pending:
        node, depth = pending.pop()
        yield node, depth
        deeper = depth + isinstance(node, BLOCKS)
        for child in ast.iter_child_nodes(node):
            # "elif" is an "if" in the "else" of another, and no deeper than that.
            isElif = isinstance(node, ast.If) and node.orelse == [child]
            pending.append((child, depth if isElif and isinstance(child, ast.If) else deeper))


def branches(node: ast.AST) -> int:
    """
    How many more ways there are through a node: "a and b and c" has two more.
    """
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return int(isinstance(node, BRANCHES))


def imports(nodes: Iterator[ast.AST]) -> set[str]:
    """
    The names of the modules that are imported.
    """
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


if __name__ == "__main__":
    for path in sys.argv[1:] or [__file__]:
        print(json.dumps(measure(path)))
