"""The plot of a sensitivity: parts in the order of the network, shares given up, and what each costs."""

import io

from compress.sensitivity import Sensitivity

MEANING = {"top1": "points of top-1 lost", "distance": "distance of the logits"}


def plot(found: Sensitivity) -> str:
    """An SVG of a cell for each part and ratio, the darker the more it costs; the same bytes for the same measurement."""
    from matplotlib import style
    from matplotlib.figure import Figure

    harms = [found.harm(part) for part in found.parts]
    highest = max(max(map(max, harms)), 1e-12)
    own = {"svg.hashsalt": "compress", "svg.fonttype": "none", "text.parse_math": False, "font.size": 9}
    with style.context(["default", own]):
        figure = Figure(figsize=(3.5 + 0.7 * len(found.ratios), 1.2 + 0.25 * len(harms)), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(harms, cmap="Blues", vmin=0, vmax=1.6 * highest, aspect="auto")
        axes.set_yticks(range(len(harms)), list(found.parts))
        axes.set_xticks(range(len(found.ratios)), [f"{ratio:.4g}" for ratio in found.ratios])
        axes.set_xlabel(f"share of its {found.structure} that goes ({found.criterion})")
        axes.set_title(f"{MEANING[found.measure]}, {found.images} validation images")
        for row, harm in enumerate(harms):
            for column, cost in enumerate(harm):
                axes.text(column, row, f"{cost:.2f}", ha="center", va="center")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
