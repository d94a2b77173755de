"""
The main job: every module of the Python standard library goes through a queue.

The list of modules is given to the command C{asynqueue map}, which has each of
them measured by C{measure} of C{stdlib.py}, on all cores. What comes out, a line
of JSON for each, is summed up and drawn.

    python examples/demo.py --output FOLDER

With C{--hosts N} the same is done by so many hosts (C{asynqueue worker}) instead of by
processes of the command: here they are on this machine, each with a UNIX socket.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from stdlib import modules

HERE = Path(__file__).parent
ASYNQUEUE = [sys.executable, "-m", "asynqueue"]
COMMAND = [*ASYNQUEUE, "map", "stdlib:measure", "--lines", "-"]

# How many modules are named in the summary and in the picture.
NAMED = 7

INK = "#22313f"
PALE = "#8395a7"
PAPER = "#fbfaf7"
COLORS = "viridis_r"


@contextmanager
def hosts(count: int) -> Iterator[list[str]]:
    """
    Run hosts on this machine, which allow calls of the functions of C{stdlib.py}.

    @return: where they are, as endpoints.
    """
    workers = []
    with tempfile.TemporaryDirectory() as folder:
        sockets = [Path(folder, str(number)) for number in range(count)]
        try:
            for socket in sockets:
                options = ["--listen", f"unix:{socket}", "--allow", "stdlib", "--processes", "1"]
                workers.append(
                    subprocess.Popen(
                        [*ASYNQUEUE, "worker", *options, "--log-level", "warn"], cwd=HERE
                    )
                )
            while not all(socket.exists() for socket in sockets):
                if any(worker.poll() is not None for worker in workers):
                    sys.exit("a host has ended before it began")
                time.sleep(0.05)
            yield [f"unix:{socket}" for socket in sockets]
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


def run(paths: list[str], results: Path, endpoints: list[str]) -> float:
    """
    Have all modules measured by the command, which shows its progress on our
    standard error.

    @param endpoints: the hosts that do it, if not processes of the command.
    @return: how many seconds that took.
    """
    start = time.perf_counter()
    with results.open("wb") as file:
        subprocess.run(
            [*COMMAND, "--hosts", ",".join(endpoints)] if endpoints else COMMAND,
            cwd=HERE,
            input="".join(f"{path}\n" for path in paths).encode(),
            stdout=file,
            check=True,
        )
    return time.perf_counter() - start


def nameOf(path: str) -> str:
    """
    The dotted name of a module of the standard library, as far as its path tells.
    """
    parts = Path(path).with_suffix("").parts
    starts = [n for n, part in enumerate(parts) if part.startswith("python3")]
    return ".".join(parts[starts[-1] + 1 if starts else -1 :]).removesuffix(".__init__")


def summarize(measures: list[dict], seconds: float) -> dict:
    """
    What is to be said of all modules together.
    """
    good = [module for module in measures if "error" not in module]
    largest = sorted(good, key=lambda module: module["code"], reverse=True)[:NAMED]
    return {
        "modules": len(measures),
        "unparsable": len(measures) - len(good),
        "seconds": round(seconds, 2),
        "modules per second": round(len(measures) / seconds, 1),
        **{
            key: sum(module[key] for module in good)
            for key in ("lines", "code", "functions", "classes", "branches")
        },
        "deepest nesting": max(module["nesting"] for module in good),
        "longest function": max(module["longest"] for module in good),
        "largest": [
            {key: module[key] for key in ("path", "code", "functions", "branches")}
            for module in largest
        ],
    }


def tell(summary: dict) -> None:
    """
    Print a summary.
    """
    print(
        f"{summary['modules']:,} modules in {summary['seconds']:.1f} s,"
        f" {summary['modules per second']:,.0f} per second"
    )
    print(
        f"{summary['lines']:,} lines ({summary['code']:,} of code),"
        f" {summary['functions']:,} functions, {summary['classes']:,} classes;"
        f" {summary['unparsable']} files are no valid Python, on purpose"
    )
    print(f"\n{'lines of code':>13} {'functions':>10} {'branches':>9}  largest modules")
    for module in summary["largest"]:
        name = nameOf(module["path"])
        print(f"{module['code']:13,} {module['functions']:10,} {module['branches']:9,}  {name}")


def draw(measures: list[dict], summary: dict, picture: Path) -> None:
    """
    Draw a point for each module: its size, how branched it is, and how deep.
    """
    points = [module for module in measures if module.get("branches") and module["code"] > 1]
    points.sort(key=lambda module: module["nesting"])
    figure, axes = plt.subplots(figsize=(11, 7), dpi=140, facecolor=PAPER)
    axes.set_facecolor(PAPER)
    dots = axes.scatter(
        [module["code"] for module in points],
        [module["branches"] for module in points],
        vmin=0,
        vmax=8,
        s=[10 + 1.2 * module["functions"] ** 0.9 for module in points],
        c=[min(module["nesting"], 8) for module in points],
        cmap=COLORS,
        alpha=0.6,
        linewidths=0.3,
        edgecolors=PAPER,
    )
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("lines of code", color=INK)
    axes.set_ylabel("branches", color=INK)
    axes.set_xlim(3, 20_000)
    axes.grid(True, which="major", color=PALE, alpha=0.25, linewidth=0.6)
    axes.tick_params(colors=PALE, which="both", length=0)
    axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(dots, ax=axes, fraction=0.025, pad=0.02)
    bar.set_label("deepest nesting (8: or deeper)", color=INK)
    bar.ax.tick_params(colors=PALE, length=0)
    bar.outline.set_visible(False)
    figure.suptitle(
        f"The {summary['modules']:,} modules of Python {sys.version_info[0]}.{sys.version_info[1]}",
        x=0.075, y=0.965, ha="left", fontsize=17, fontweight="bold", color=INK,
    )  # fmt: skip
    figure.text(
        0.075, 0.905,
        f"{summary['lines']:,} lines, {summary['functions']:,} functions,"
        f" measured by asynqueue map in {summary['seconds']:.1f} s."
        " The larger a point, the more functions.",
        color=PALE, fontsize=10.5,
    )  # fmt: skip
    figure.subplots_adjust(left=0.075, right=0.95, top=0.87, bottom=0.085)
    annotate(axes, points)
    figure.savefig(picture)
    plt.close(figure)


def annotate(axes: plt.Axes, points: list[dict]) -> None:
    """
    Name the modules that stand out at the edge of the cloud, where there is room
    for their names.
    """
    figure = axes.get_figure()
    taken: list[mpl.transforms.Bbox] = []
    for module in sorted(points, key=lambda module: -module["code"] * module["branches"] ** 1.5):
        label = axes.annotate(
            nameOf(module["path"]),
            (module["code"], module["branches"]),
            xytext=(13, -3),
            textcoords="offset points",
            fontsize=8.5,
            color=INK,
        )
        box = label.get_window_extent(figure.canvas.get_renderer()).expanded(1.0, 1.3)
        if any(box.overlaps(other) for other in taken):
            label.remove()
        else:
            taken.append(box)
        if len(taken) == NAMED:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--output", type=Path, help="the folder for results, summary and picture")
    parser.add_argument("--hosts", type=int, default=0, help="how many hosts do it; 0: processes")
    parser.add_argument("--first", type=int, metavar="N", help="measure only the first N modules")
    options = parser.parse_args()
    output = options.output or Path(tempfile.mkdtemp(prefix="asynqueue-demo-"))
    output.mkdir(parents=True, exist_ok=True)
    results, picture = output / "results.jsonl", output / "picture.png"

    mpl.use("agg")
    with hosts(options.hosts) as endpoints:
        seconds = run(modules()[: options.first], results, endpoints)
    measures = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    summary = summarize(measures, seconds)
    tell(summary)
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw(measures, summary, picture)
    print(f"\nwritten to {output}: results.jsonl, summary.json, picture.png")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted")
