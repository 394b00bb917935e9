"""Graph linkage horizon: tokens that are nodes of a graph see each other up to so many hops away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from windeye.patterns.pattern import is_int
from windeye.patterns.relation import Allowed

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Int64

ROOT = -1
"""The parent of a node that has none."""


def tree_horizon(
    nodes: Bool[torch.Tensor, "batch n"],
    parents: Int64[torch.Tensor, "batch n"],
    hops: int,
    *,
    bidirectional: bool = False,
) -> Allowed:
    """Causal attention in which two node tokens see each other only within ``hops`` on their tree.

    Token ``i`` sees ``j`` iff ``j <= i``, and if both are nodes ``distance(i, j) <= hops``; a bidirectional horizon
    also shows nodes within reach that come later. Every token sees itself. What is no node of the tree (text, padding,
    a node that is named once more) is plainly causal. ``hops=0`` shows a node no other node, ``hops=1`` parents and
    children, ``hops=2`` siblings and grandparents, too; from twice the depth on it shows everything in reach.

    Args:
        nodes: which tokens are nodes. A node that is named twice is two tokens.
        parents: the place of each node's parent, -1 where it has none; not read elsewhere.
        hops: the horizon, at least 0.
        bidirectional: whether nodes also see later nodes. Then a cache of keys needs the whole prompt at once.

    Returns:
        A mask [batch, 1, n, n]: quadratic, see `Allowed`.

    Raises:
        ValueError, TypeError: shapes that differ, a parent outside the sequence or that is no node, parents in a
            circle, or a negative horizon.

    Source: llm-graphs spec, GLH mask. Equal to the official masks wherever every neighbour has a child (otherwise the
    official code pairs parents with wrong children), see tests/patterns/test_linkage.py.

    Example:
        >>> import torch
        >>> nodes, parents = torch.tensor([[False, True, True, True]]), torch.tensor([[-1, -1, 1, 1]])
        >>> tree_horizon(nodes, parents, 1).mask[0, 0].int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
        >>> tree_horizon(nodes, parents, 2, bidirectional=True).mask[0, 0].int().tolist()
        [[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    """
    import torch

    _check_hops(hops)
    _check_nodes(nodes)
    if parents.shape != nodes.shape:
        raise ValueError(f"parents must be {tuple(nodes.shape)} like nodes, got shape {tuple(parents.shape)}")
    lines = _lines(nodes, parents)
    near = torch.zeros(*nodes.shape, nodes.shape[1], dtype=torch.bool, device=nodes.device)
    # Two nodes are within reach iff an ancestor of one, so many steps up, is one of the other's, the rest steps up.
    for up, ancestor in enumerate(lines[: hops + 1]):
        for other in lines[: hops + 1 - up]:
            near |= (ancestor[:, :, None] == other[:, None, :]) & (ancestor >= 0)[:, :, None]
    return _over_text(nodes, near, bidirectional)


def graph_horizon(
    nodes: Bool[torch.Tensor, "batch n"],
    adjacency: Bool[torch.Tensor, "batch n n"],
    hops: int,
    *,
    bidirectional: bool = False,
) -> Allowed:
    """As `tree_horizon`, for any graph over the tokens: nodes see each other along at most ``hops`` edges.

    ``near = (A + A^T + I)^hops > 0``, a product of matrices per hop.

    Args:
        nodes: which tokens are nodes.
        adjacency: which tokens are joined, in any direction. Edges of tokens that are no nodes are not read.
        hops, bidirectional: as of `tree_horizon`.

    Raises:
        ValueError, TypeError: shapes that differ, or a negative horizon.

    Example:
        >>> import torch
        >>> ring = torch.eye(5, dtype=torch.bool).roll(1, dims=1)[None]
        >>> graph_horizon(torch.ones(1, 5, dtype=torch.bool), ring, 1).mask[0, 0, 4].int().tolist()
        [1, 0, 0, 1, 1]
    """
    import torch

    _check_hops(hops)
    _check_nodes(nodes)
    if adjacency.shape != (*nodes.shape, nodes.shape[1]):
        raise ValueError(
            f"adjacency must be {(*nodes.shape, nodes.shape[1])}, tokens by tokens, got shape {tuple(adjacency.shape)}"
        )
    if adjacency.dtype != torch.bool:
        raise TypeError(f"adjacency must be bool, got {adjacency.dtype}")
    itself = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
    joined = (adjacency | adjacency.mT) & nodes[:, :, None] & nodes[:, None, :] | itself
    near = itself.expand_as(joined)
    for _ in range(hops):
        near = near.float() @ joined.float() > 0
    return _over_text(nodes, near, bidirectional)


def _lines(nodes: torch.Tensor, parents: torch.Tensor) -> list[torch.Tensor]:
    """For 0, 1, 2, ... steps up the ancestor of every node, -1 where there is none: as many as the tree is deep."""
    import torch

    n = nodes.shape[1]
    parent = torch.where(nodes, parents, ROOT)
    if parent.numel() and not (int(parent.min()) >= ROOT and int(parent.max()) < n):
        raise ValueError(
            f"parents must be places in 0 .. {n - 1}, or -1, got {int(parent.min())} .. {int(parent.max())}"
        )
    above = parent.clamp(min=0)
    if bool((parent >= 0).logical_and(~nodes.gather(1, above)).any()):
        raise ValueError("parents must be nodes, but some node's parent is no node")
    line = torch.where(nodes, torch.arange(n, device=nodes.device), ROOT)
    lines: list[torch.Tensor] = []
    while bool((line >= 0).any()):
        if len(lines) > n:
            raise ValueError("parents must form trees, but they run in a circle")
        lines.append(line)
        line = torch.where(line >= 0, parent.gather(1, line.clamp(min=0)), ROOT)
    return lines


def _over_text(nodes: torch.Tensor, near: torch.Tensor, bidirectional: bool) -> Allowed:
    """The causal relation, but for pairs of nodes."""
    import torch

    past = torch.ones(near.shape[1:], dtype=torch.bool, device=nodes.device).tril()
    between = nodes[:, :, None] & nodes[:, None, :]
    mask = torch.where(between, near if bidirectional else near & past, past)
    return Allowed((mask | torch.eye(len(past), dtype=torch.bool, device=nodes.device))[:, None])


def _check_hops(hops: int) -> None:
    if not is_int(hops):
        raise TypeError(f"hops must be an integer, got {hops!r}")
    if hops < 0:
        raise ValueError(f"hops must be at least 0, got {hops}")


def _check_nodes(nodes: torch.Tensor) -> None:
    import torch

    if nodes.dtype != torch.bool or nodes.dim() != 2:
        raise TypeError(f"nodes must be bool [batch, n], got {nodes.dtype} of shape {tuple(nodes.shape)}")
