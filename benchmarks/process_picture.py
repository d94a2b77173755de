"""
A picture of how many times faster than its peers our ProcessQueue is.
"""

from __future__ import annotations

from pathlib import Path

Ratios = dict[str, dict[str, float]]


def picture(path: Path, ratios: Ratios) -> None:
    """
    Draw a group of bars for each kind of work, a bar for each peer.

    @param ratios: for each kind of work, what ours is of each peer's figure.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    peers = list(dict.fromkeys(peer for its in ratios.values() for peer in its))
    colors = {peer: f"C{number}" for number, peer in enumerate(peers)}
    figure, axes = pyplot.subplots(figsize=(8, 0.35 * sum(len(r) + 1 for r in ratios.values()) + 1))
    place = 0.0
    places = []
    seen: set[str] = set()
    for its in ratios.values():
        begin = place
        for peer, ratio in its.items():
            label = None if peer in seen else peer
            seen.add(peer)
            axes.barh(place, ratio, color=colors[peer], height=0.85, label=label)
            axes.text(ratio * 1.05, place, f"{ratio:.2g}", va="center", fontsize=8)
            place += 1
        places.append((begin + place - 1) / 2)
        place += 1
    axes.set_yticks(places, list(ratios))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times the peer's figure; more is better")
    # Below the axes: every corner within may have a bar.
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.07))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
