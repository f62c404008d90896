"""Train the committed students: four shapes each at 0.1, 0.3 and 1 million parameters, one recipe.

    python benchmarks/students.py --teacher fashion --budget 0.1,0.3,1

Every student sees the same pairs in the same order, 800,000 images of them, and keeps its weights at 400,000. Shapes go
from shallow and wide to deep and thin; the MLP's width takes up what the budget leaves. Stop it at any time and run it
again: finished students are not done twice.
"""

from __future__ import annotations

import argparse

from lab import experiment
from lab.config import DiTConfig, Recipe
from lab.results import Store

PAIRS, IMAGES, KEPT = 100_000, 800_000, 400_000
SHAPES = {  # millions of parameters: (depth, width, heads, MLP's hidden width; None = 4 x width)
    0.1: [(2, 48, 4, 224), (4, 40, 4, 96), (6, 32, 4, 88), (8, 24, 2, 128)],
    0.3: [(2, 88, 4, None), (4, 64, 4, None), (8, 48, 4, 136), (12, 40, 4, 104)],
    1.0: [(2, 160, 4, None), (4, 112, 4, 496), (6, 96, 4, None), (12, 64, 4, 312)],
}


def recipe_of(teacher: str, depth: int, width: int, heads: int, hidden: int | None) -> Recipe:
    """The default recipe on one shape, for as many updates as IMAGES hold."""
    student = DiTConfig(depth=depth, width=width, heads=heads, mlp_hidden=hidden)
    recipe = Recipe(data="fashion-mnist", teacher=teacher, pairs=PAIRS, student=student, keep=(KEPT,))
    return recipe.with_(steps=IMAGES // recipe.batch)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="fashion")
    parser.add_argument("--budget", default="0.1,0.3,1", help="which of the budgets, in millions of parameters")
    args = parser.parse_args()
    store = Store()
    for budget in map(float, args.budget.split(",")):
        for shape in SHAPES[budget]:
            run = experiment.run(recipe_of(args.teacher, *shape), store)
            metrics = run.read("metrics")
            print(f"{budget:g} M  {run.id}  FD {metrics['values']['fd']['value']:.3f}", flush=True)
