"""Graphs that are on every machine: the syntax of Python's own library, and handwritten digits and their neighbours."""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from windeye.data.digits import scanned_digits
from windeye.data.graphs.graph import Graph

OTHER = "other"
"""The class of roles that are rarer than the chosen ones."""
_LEFT_OUT = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)
"""Nodes that are a word about their parent and no part of their own; that a name is stored tells its role."""


def syntax_forest(nodes: int = 20000, classes: int = 18, sources: Sequence[str] | None = None) -> Graph:
    """Abstract syntax trees side by side: what role does a node play in its parent?

    A node is joined to its parent, to its children and to the siblings next to it. Its text is its kind, and its
    identifier where it has one; its class is the name of the field of the parent that holds it ("func", "args", "test",
    ...), which its text does not say: neighbours decide. Neighbours are mostly of other classes.

    Args:
        nodes: whole modules are taken until there are as many; the last one is cut off.
        classes: the most frequent roles, the last one being all others together.
        sources: texts of modules; default those of the standard library in the order of their names, so that the graph
            depends on the version of Python.

    Raises:
        ValueError: there are not as many nodes.

    Example:
        >>> forest = syntax_forest(6, 4, ["f(x)\\ng(x)"])
        >>> forest.texts
        ('Module', 'Expr', 'Call', 'Name f', 'Name x', 'Expr')
        >>> [forest.classes[label] for label in forest.labels.tolist()]
        ['other', 'body', 'value', 'func', 'other', 'body']
        >>> forest.neighbours_of(3).tolist()
        [2, 4]
    """
    texts: list[str] = []
    roles: list[str] = []
    edges: list[tuple[int, int]] = []
    for source in _modules() if sources is None else sources:
        _grow(ast.parse(source), texts, roles, edges)
        if len(texts) >= nodes:
            break
    if len(texts) < nodes:
        raise ValueError(f"nodes must be at most {len(texts)}, as many as the sources have, got {nodes}")
    roles, edges = roles[:nodes], [edge for edge in edges if max(edge) < nodes]
    frequent = [role for role, _ in Counter(roles).most_common() if role != "root"][: classes - 1]
    index = {role: number for number, role in enumerate(frequent)}
    labels = torch.tensor([index.get(role, len(frequent)) for role in roles])
    return Graph.of(torch.tensor(edges).reshape(-1, 2), labels, (*frequent, OTHER), texts=texts[:nodes])


def _modules() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8")


def _grow(module: ast.Module, texts: list[str], roles: list[str], edges: list[tuple[int, int]]) -> None:
    """Add the nodes of a module, parents before their children, and its edges."""
    waiting: list[tuple[ast.AST, str, int]] = [(module, "root", -1)]
    youngest: dict[int, int] = {}
    while waiting:
        node, role, parent = waiting.pop()
        here = len(texts)
        texts.append(_text(node))
        roles.append(role)
        if parent >= 0:
            edges.append((parent, here))
            if parent in youngest:
                edges.append((youngest[parent], here))
            youngest[parent] = here
        waiting += [(child, name, here) for name, child in reversed(list(_children(node)))]


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, _LEFT_OUT):
                yield name, child


def _text(node: ast.AST) -> str:
    """The kind of a node and the identifier that it holds."""
    names = [getattr(node, name, None) for name in ("id", "attr", "arg", "name")]
    return " ".join([type(node).__name__, *(name for name in names if isinstance(name, str))])


def digits_neighbours(neighbours: int = 8) -> Graph:
    """Handwritten digits, each joined to those that look most like it: 1,797 nodes of ten classes.

    The text of a node names its dark pixels, "r2c3" in row 2 and column 3, and says nearly all; neighbours are mostly
    of the same class. Features are the 64 grey values, from 0 to 1.

    Args:
        neighbours: how many nearest ones each digit is joined to, by Euclidean distance of grey values.

    Raises:
        ImportError: without scikit-learn; names the extra.

    Example:
        >>> graph = digits_neighbours()
        >>> len(graph), round(graph.homophily, 2), graph.texts[0].split()[:3]
        (1797, 0.96, ['r0c3', 'r0c4', 'r1c2'])
    """
    scans, labels = scanned_digits()
    grey = scans.flatten(1)
    precise = grey.double()
    nearest = torch.cdist(precise, precise).fill_diagonal_(torch.inf).topk(neighbours, largest=False).indices
    edges = torch.stack((torch.arange(len(grey)).repeat_interleave(neighbours), nearest.flatten()), dim=1)
    texts = [_dark(row) for row in grey > 0.5]
    return Graph.of(edges, labels, [str(digit) for digit in range(10)], texts=texts, features=grey)


def _dark(pixels: Tensor) -> str:
    return " ".join(f"r{place // 8}c{place % 8}" for place in pixels.nonzero()[:, 0].tolist())


def from_networkx(graph: Any, label: str, text: str | None = None) -> Graph:
    """A graph of networkx; nodes are numbered in its order.

    Args:
        graph: an undirected or directed graph; directions are forgotten.
        label: the attribute of a node that is its class. Classes are sorted by their names.
        text: the attribute that is its text; None: no texts.

    Raises:
        ValueError: a node lacks an attribute; names the node.

    Example:
        >>> import networkx
        >>> club = from_networkx(networkx.karate_club_graph(), label="club")
        >>> len(club), club.classes, round(club.homophily, 2)
        (34, ('Mr. Hi', 'Officer'), 0.86)
    """
    wanted = [name for name in (label, text) if name is not None]
    for node, attributes in graph.nodes(data=True):
        for name in wanted:
            if name not in attributes:
                raise ValueError(f"node {node!r} has no attribute {name!r}, only {sorted(attributes)}")
    number = {node: place for place, node in enumerate(graph)}
    named = [str(graph.nodes[node][label]) for node in graph]
    classes = sorted(set(named))
    edges = torch.tensor([(number[a], number[b]) for a, b in graph.edges()], dtype=torch.long).reshape(-1, 2)
    texts = None if text is None else [str(graph.nodes[node][text]) for node in graph]
    return Graph.of(edges, torch.tensor([classes.index(name) for name in named]), classes, texts=texts)
