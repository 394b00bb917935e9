"""Linkage horizons: the rule of distances, the rule of matrix powers and a walk over the graph agree, and equal the
official masks."""

from collections import deque
from itertools import pairwise
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye
from golden import load
from windeye.patterns import graph_horizon, tree_horizon


@st.composite
def forests(draw):
    """Prompts with trees in them: (nodes, parents), a batch of two with text between the nodes."""
    n = draw(st.integers(1, 14))
    nodes = torch.tensor(draw(st.lists(st.booleans(), min_size=2 * n, max_size=2 * n))).reshape(2, n)
    parents = torch.full((2, n), -1)
    for row in range(2):
        placed = []
        for place in nodes[row].nonzero()[:, 0].tolist():
            if placed and draw(st.integers(0, 4)):
                parents[row, place] = draw(st.sampled_from(placed))
            placed.append(place)
    return nodes, parents


def hops_apart(nodes, edges):
    """Distances by a walk from every node."""
    n = len(nodes)
    joined = {i: {j for j in range(n) if edges[i][j] or edges[j][i]} for i in range(n) if nodes[i]}
    apart = {}
    for first in joined:
        apart[first, first] = 0
        waiting = deque([first])
        while waiting:
            here = waiting.popleft()
            for there in joined[here]:
                if there in joined and (first, there) not in apart:
                    apart[first, there] = apart[first, here] + 1
                    waiting.append(there)
    return apart


def by_the_book(nodes, edges, k, bidirectional):
    n = len(nodes)
    apart = hops_apart(nodes, edges)
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            if nodes[i] and nodes[j]:
                mask[i, j] = apart.get((i, j), inf) <= k and (bidirectional or j <= i)
            else:
                mask[i, j] = j <= i
    return mask


def edges_of(parents):
    edges = torch.zeros(*parents.shape, parents.shape[1], dtype=torch.bool)
    rows, places = (parents >= 0).nonzero(as_tuple=True)
    edges[rows, places, parents[rows, places]] = True
    return edges


@given(forests(), st.integers(0, 6), st.booleans())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_both_rules_equal_a_walk_over_the_tree(forest, k, bidirectional):
    nodes, parents = forest
    edges = edges_of(parents)
    ours = tree_horizon(nodes, parents, k, bidirectional=bidirectional).mask[:, 0]
    assert torch.equal(ours, graph_horizon(nodes, edges, k, bidirectional=bidirectional).mask[:, 0])
    for row in range(2):
        assert torch.equal(ours[row], by_the_book(nodes[row].tolist(), edges[row].tolist(), k, bidirectional))


@given(st.integers(1, 9), st.integers(0, 4), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_on_any_graph_it_equals_a_walk(n, k, bidirectional, seed):
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.rand(1, n, generator=generator) < 0.7
    edges = torch.rand(1, n, n, generator=generator) < 0.2
    mask = graph_horizon(nodes, edges, k, bidirectional=bidirectional).mask[0, 0]
    assert torch.equal(mask, by_the_book(nodes[0].tolist(), edges[0].tolist(), k, bidirectional))


@given(forests())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_it_grows_with_the_horizon_from_itself_to_all(forest):
    nodes, parents = forest
    between = nodes[:, :, None] & nodes[:, None, :]
    masks = [tree_horizon(nodes, parents, k, bidirectional=True).mask[:, 0] for k in range(30)]
    itself = torch.eye(nodes.shape[1], dtype=torch.bool)
    assert torch.equal(masks[0] & between, itself & between)
    for small, large in pairwise(masks):
        assert not (small & ~large).any()
        assert torch.equal(large & between, (large & between).mT)
        assert torch.equal(small & ~between, large & ~between)
    past = torch.ones_like(itself).tril()
    assert torch.equal(masks[4] & ~between, past & ~between)
    for k in (0, 1, 2):
        mask = tree_horizon(nodes, parents, k).mask[:, 0]
        assert mask.diagonal(dim1=1, dim2=2).all()
        assert torch.equal(mask, masks[k] & past)


def test_one_tree_within_twice_its_depth_sees_all():
    nodes, parents = torch.ones(1, 7, dtype=torch.bool), torch.tensor([[-1, 0, 1, 1, 0, 4, 4]])
    assert not tree_horizon(nodes, parents, 3, bidirectional=True).mask.all()
    assert tree_horizon(nodes, parents, 4, bidirectional=True).mask.all()


@pytest.mark.parametrize("case", ["masks_small_tree", "masks_batch_ragged", "masks_childless_quirk"])
@pytest.mark.parametrize("direction", ["uni", "bi"])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_equals_the_official_masks(case, direction, k):
    _, numbers = load("llm-graphs", case)
    real = numbers["input.padding_mask"].bool()
    nodes, parents = numbers["input.node_mask"].clone(), numbers["input.parent_position"]
    for row in nodes:
        row[row.nonzero()[-1]] = False  # the centre, named once more, is no node of the tree
    ours = tree_horizon(nodes, parents, k, bidirectional=direction == "bi").mask[:, 0] & real[:, None, :]
    assert torch.equal(ours[real], numbers[f"output.tree_rule_{direction}_k{k}"][real])
    official = numbers[f"output.allowed_{direction}_k{k}"][real]
    # A neighbour without children makes the official code pair later parents with wrong children.
    assert torch.equal(ours[real], official) == (case != "masks_childless_quirk")


def test_blocking_by_a_large_negative_number_is_the_same():
    nodes, parents = torch.tensor([[True, True, False, True, True]]), torch.tensor([[-1, 0, -1, 1, 0]])
    pattern = tree_horizon(nodes, parents, 1, bidirectional=True)
    q, k, v = torch.randn(3, 1, 5, 2, 8, dtype=torch.float64).unbind(0)
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5 + torch.where(pattern.mask, 0.0, -6000.0)
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)
    torch.testing.assert_close(windeye.attend(q, k, v, pattern), out)


NODES, PARENTS = torch.tensor([[True, True, False]]), torch.tensor([[-1, 0, -1]])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: tree_horizon(NODES, PARENTS, -1), ValueError, "hops must be at least 0, got -1"),
        (lambda: tree_horizon(NODES, PARENTS, 1.0), TypeError, "hops must be an integer, got 1.0"),
        (lambda: tree_horizon(NODES, PARENTS[:, :2], 1), ValueError, r"parents must be \(1, 3\) like nodes"),
        (lambda: tree_horizon(NODES.int(), PARENTS, 1), TypeError, "nodes must be bool"),
        (lambda: tree_horizon(NODES, PARENTS + 4, 1), ValueError, r"places in 0 .. 2, or -1, got -1 .. 4"),
        (lambda: tree_horizon(NODES, torch.tensor([[-1, 2, -1]]), 1), ValueError, "some node's parent is no node"),
        (lambda: tree_horizon(NODES, torch.tensor([[1, 0, -1]]), 1), ValueError, "run in a circle"),
        (lambda: graph_horizon(NODES, torch.zeros(1, 3, 2), 1), ValueError, r"must be \(1, 3, 3\), tokens by tokens"),
        (lambda: graph_horizon(NODES, torch.zeros(1, 3, 3), 1), TypeError, "adjacency must be bool"),
    ],
)
def test_wrong_calls_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
