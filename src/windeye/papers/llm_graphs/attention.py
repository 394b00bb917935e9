"""Attention between the nodes of a prompt: how much children give to their own parent and how much to others.

All of it is linear in the map: weights of every query on the places of the tree and on nothing else; no map is built.
"""

from __future__ import annotations

from typing import TypedDict

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from windeye import ColumnMean, SpanMass
from windeye.data.graphs import TreePrompts
from windeye.data.graphs.prompts import NO_PARENT
from windeye.papers.llm_graphs.examples import Examples, unpacked
from windeye.papers.llm_graphs.reader import Reader, through
from windeye.report.divergence import log_histogram
from windeye.sites import watch

PAIRS = (
    "self",
    "parent to centre",
    "parent to other parent",
    "parent to own child",
    "parent to other child",
    "child to centre",
    "child to own parent",
    "child to other parent",
    "child to sibling",
    "child to other child",
    "centre to parent",
    "centre to child",
)
"""Directed classes of pairs of places on a tree of two hops: every pair belongs to exactly one. Where the past is all
that is seen, the centre sees no other node and a parent no child of its own."""
OWN, OTHER = "child to own parent", "child to other parent"


def tree_places(prompts: TreePrompts) -> Int64[Tensor, "batch places"]:
    """Where the nodes of each tree stand, -1 behind the last one."""
    most = int(prompts.tree.sum(dim=1).max())
    order = prompts.tree.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return order.masked_fill(~prompts.tree.gather(1, order), -1)


def pair_classes(prompts: TreePrompts) -> Int64[Tensor, "batch places places"]:
    """The class of each pair of a query and a key, an index into `PAIRS`; -1 where one of the two is not there.

    Raises:
        ValueError: a tree is deeper than two hops.
    """
    places = tree_places(prompts)
    there, at = places >= 0, places.clamp(min=0)
    parent = prompts.parents.gather(1, at).masked_fill(~there, NO_PARENT)
    grandparent = prompts.parents.gather(1, parent.clamp(min=0)).masked_fill(parent < 0, NO_PARENT)
    depth = (parent >= 0).long() + (grandparent >= 0)
    if bool((prompts.parents.gather(1, grandparent.clamp(min=0))[grandparent >= 0] >= 0).any()):
        raise ValueError("pairs are named on trees of at most two hops, but some tree is deeper")
    query, key = depth[:, :, None], depth[:, None, :]
    own_parent, own_child = parent[:, :, None] == places[:, None, :], places[:, :, None] == parent[:, None, :]
    siblings = parent[:, :, None] == parent[:, None, :]
    classes = torch.full((*places.shape, places.shape[1]), -1)
    rules: dict[str, Tensor] = {
        "parent to centre": (query == 1) & (key == 0),
        "parent to other parent": (query == 1) & (key == 1),
        "parent to other child": (query == 1) & (key == 2),
        "parent to own child": (query == 1) & (key == 2) & own_child,
        "child to centre": (query == 2) & (key == 0),
        "child to other parent": (query == 2) & (key == 1),
        "child to own parent": (query == 2) & (key == 1) & own_parent,
        "child to other child": (query == 2) & (key == 2),
        "child to sibling": (query == 2) & (key == 2) & siblings,
        "centre to parent": (query == 0) & (key == 1),
        "centre to child": (query == 0) & (key == 2),
        "self": torch.eye(places.shape[1], dtype=torch.bool).expand_as(classes),
    }
    for name, here in rules.items():  # the narrower rule comes after the wider one
        classes[here] = PAIRS.index(name)
    return classes.masked_fill(~(there[:, :, None] & there[:, None, :]), -1)


class Attention(TypedDict):
    """What the attention of a reader is like, means over layers, heads and prompts.

    ``pairs`` holds the mean weight of an allowed pair by class, ``counts`` how many pairs there are; ``by_slot`` the
    weight of the first, second, ... child of a parent on that parent; ``preference`` what the function of this name
    finds. ``text_to_centre``, ``text_to_nodes`` and ``node_to_text`` are shares of a query's attention;
    ``text_received`` and ``node_received`` histograms of what tokens receive on average, see
    `windeye.report.divergence.log_histogram`.
    """

    pairs: dict[str, float]
    counts: dict[str, int]
    by_slot: list[float]
    preference: float | None
    text_to_centre: float
    text_to_nodes: float
    node_to_text: float
    text_received: list[int]
    node_received: list[int]


@torch.no_grad()
def attention_of(reader: Reader, examples: Examples, horizon: int) -> Attention:
    """Read a reader's attention on some prompts through a horizon."""
    device = next(reader.parameters()).device
    prompts, there = unpacked(examples.prompts), unpacked(examples.prompts.to(device))
    places = tree_places(prompts)
    n = prompts.ids.shape[1]
    real = torch.arange(n) < prompts.lengths[:, None]
    columns = (places[:, :, None] == torch.arange(n)) & (places >= 0)[:, :, None]
    with reader.reading_with(horizon):
        pattern = reader.pattern(there)
    stats = {"nodes": SpanMass(columns), "received": ColumnMean()}
    with through(reader.model, pattern), watch(reader.model, stats, rows=real) as seen:
        reader.model.hidden(there.ids)
    weights = seen["nodes"].mean(dim=(0, 3)).double().cpu()
    received = seen["received"].mean(dim=(0, 3)).cpu()
    mask = pattern.bind((n,)).mask().cpu()
    allowed = (mask if mask.dim() == 2 else mask[:, 0]).expand(len(prompts), n, n)
    return _summary(prompts, places, weights, received, allowed, real)


def _summary(
    prompts: TreePrompts,
    places: Int64[Tensor, "batch places"],
    weights: Float[Tensor, "batch n places"],
    received: Float[Tensor, "batch n"],
    allowed: Bool[Tensor, "batch n n"],
    real: Bool[Tensor, "batch n"],
) -> Attention:
    at, there = places.clamp(min=0), places >= 0
    block = weights.gather(1, at[:, :, None].expand(-1, -1, places.shape[1]))
    seen = allowed.gather(1, at[:, :, None].expand(-1, -1, allowed.shape[2])).gather(2, at[:, None].expand_as(block))
    classes = pair_classes(prompts).masked_fill(~seen, -1)
    pairs = {name: block[classes == number] for number, name in enumerate(PAIRS)}
    text = real & ~prompts.tree
    after = text & (torch.arange(text.shape[1]) > places[:, :1])
    return Attention(
        pairs={name: float(found.mean()) for name, found in pairs.items() if found.numel()},
        counts={name: found.numel() for name, found in pairs.items()},
        by_slot=by_slot(prompts, block, classes == PAIRS.index(OWN)),
        preference=preference(block, classes),
        text_to_centre=float(weights[..., 0][after].mean()),
        text_to_nodes=float(weights[..., 1:].sum(dim=-1)[after].mean()),
        node_to_text=float((1 - block.sum(dim=-1))[there].mean()),
        text_received=log_histogram(received[text].numpy()).tolist(),
        node_received=log_histogram(received[prompts.tree].numpy()).tolist(),
    )


def preference(
    block: Float[Tensor, "batch places places"], classes: Int64[Tensor, "batch places places"]
) -> float | None:
    """What children give to their own parent over what they give to another one, both means over the same queries.

    Only children that see both count: early ones see few keys and give each of them more. It is 1 where attention does
    not know the tree, whatever it knows of the number of keys; None where no child sees another parent.
    """
    own, other = (classes == PAIRS.index(name) for name in (OWN, OTHER))
    both = own.any(dim=-1) & other.any(dim=-1)
    if not bool(both.any()):
        return None
    to_own, to_other = ((block * kind).sum(dim=-1)[both] / kind.sum(dim=-1)[both] for kind in (own, other))
    return float(to_own.mean() / to_other.mean())


def by_slot(
    prompts: TreePrompts, block: Float[Tensor, "batch places places"], own: Bool[Tensor, "batch places places"]
) -> list[float]:
    """The mean weight on the own parent of first, second, ... children."""
    parent = prompts.parents.gather(1, tree_places(prompts).clamp(min=0))
    before = torch.ones(parent.shape[1], parent.shape[1], dtype=torch.bool).tril(-1)
    slot = ((parent[:, :, None] == parent[:, None, :]) & before).sum(dim=-1)
    query = own.any(dim=-1)
    weight = (block * own).sum(dim=-1)
    weights = [weight[query & (slot == number)] for number in range(own.shape[-1])]
    return [float(found.mean()) for found in weights if found.numel()]
