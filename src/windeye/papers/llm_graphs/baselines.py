"""What is known without reading a prompt: the most frequent class, and networks on the words of the texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.data.graphs import NeighbourTree
from windeye.data.sequences import derived_seed
from windeye.papers.llm_graphs.examples import Task
from windeye.papers.llm_graphs.plan import Plan
from windeye.report import Tell, silent

MAJORITY, TEXT, HOPS = "majority class", "MLP on the text", "MLP on mean texts by hop"


def without_reading(task: Task, plan: Plan, seed: int, tell: Tell = silent) -> dict[str, float]:
    """Held-out accuracy of each: the most frequent class of training, a network of one hidden layer on the words of the
    centre, and one that also gets the mean words of the first and of the second hop."""
    labels = task.graph.labels
    train, test = (torch.tensor([tree.centre for tree in trees]) for trees in (task.train, task.held_out))
    most = int(labels[train].bincount().argmax())
    found = {MAJORITY: float((labels[test] == most).double().mean())}
    for name, hops in ((TEXT, 1), (HOPS, 3)):
        inputs = [features(task, trees)[:, :hops].flatten(1) for trees in (task.train, task.held_out)]
        found[name] = _fitted(inputs[0], labels[train], inputs[1], labels[test], plan, seed)
        tell(hops / 3)
    return found


def features(task: Task, trees: Sequence[NeighbourTree]) -> Float[Tensor, "trees 3 words"]:
    """Mean shares of the words in the texts of the centre, the first hop and the second hop."""
    texts = task.words.texts(task.graph)
    found = torch.zeros(len(trees), 3, len(task.words.number))
    for row, tree in enumerate(trees):
        for hop, nodes in enumerate(((tree.centre,), tree.hop1, tree.nodes[len(tree.hop1) :])):
            for node in nodes:
                words = texts[node]
                share = 1 / (len(words) * len(nodes))
                found[row, hop].index_add_(0, torch.tensor(words), torch.full((len(words),), share))
    return found


def _fitted(x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, plan: Plan, seed: int) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("baseline", seed))
        model = nn.Sequential(nn.Linear(x.shape[1], plan.dim), nn.ReLU(), nn.Linear(plan.dim, int(y.max()) + 1))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(plan.steps):
            rows = torch.randint(len(x), (8 * plan.batch_size,))
            optimiser.zero_grad()
            loss: Tensor = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    with torch.no_grad():
        return float((model(test_x).argmax(dim=1) == test_y).double().mean())
