"""Search depth against quality: what more simulations buy, beside what more samples buy.

Run `python examples/depth_against_quality.py [MODEL [PICTURE]]`, or open it as a notebook (the cells begin
with `# %%`). MODEL is a run or checkpoint; without one a small model is trained first, in under a minute. It
prints accuracy and cost of each method at each budget, and draws them to PICTURE (`depth.png` by default).
`tokenzero bench depth` does this with intervals of paired differences and at equal cost.
"""

# %% A model: the one named, or a tiny one that has seen examples of how Countdown is written.
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

import tokenzero

if len(sys.argv) > 1:
    model = Path(sys.argv[1])
else:
    model = Path(tempfile.mkdtemp()) / "run"
    config = tokenzero.load_config(
        "countdown-quick", overrides=["rounds=1", "pretrain.steps=200", "play.games=150"]
    )
    tokenzero.selfplay(config, model)
engine = tokenzero.load(model)
print(f"task {engine.task.name}, public verifier: {engine.task.public_verifier}")

# %% Accuracy on the same problems. With a public verifier every method may stop at a verified answer.
PROBLEMS = 60
curves: dict[str, list[tuple[float, float]]] = {}
for name, budgets in {"gumbel": (2, 8, 32), "frontier": (16, 64, 256), "best-of-n": (1, 4, 16)}.items():
    for budget in budgets:
        if name == "best-of-n":
            score = engine.evaluate("test", PROBLEMS, method=name, n=budget)
        else:
            search = tokenzero.Search(simulations=budget, method=name)
            score = engine.evaluate("test", PROBLEMS, search=search)
        low, high = score.ci95
        print(
            f"{name:10} {budget:4}: {score.accuracy:.2f} [{low:.2f}, {high:.2f}], "
            f"{score.mean_tokens:.0f} tokens a problem, depth {score.mean_depth:.1f}"
        )
        curves.setdefault(name, []).append((score.mean_tokens, score.accuracy))

# %% Accuracy against what it costs.
figure, axes = pyplot.subplots()
for name, points in curves.items():
    axes.plot(*zip(*points, strict=True), marker="o", label=name)
axes.set(xscale="log", xlabel="forwarded tokens per problem", ylabel="accuracy", title=engine.task.name)
axes.legend()
picture = Path(sys.argv[2] if len(sys.argv) > 2 else "depth.png")
figure.savefig(picture)
print(f"picture {picture}")
