"""Graphs whose nodes are classified from their neighbourhoods, as text that a language model reads.

>>> import torch
>>> from windeye.data.graphs import Wording, sample_tree, syntax_forest, tree_prompt
>>> forest = syntax_forest(2000)
>>> tree = sample_tree(forest, 7, (8, 8), torch.Generator().manual_seed(0))
>>> str(tree_prompt(tree, Wording("node"))).split()[:5]
['<User>:', 'Given', 'that', 'a', 'node']
"""

from windeye.data.graphs.at_hand import digits_neighbours, from_networkx, syntax_forest
from windeye.data.graphs.graph import Graph
from windeye.data.graphs.perturbations import PERTURBATIONS, exchange_prefixes, redeal, replace_nodes, swap_lists
from windeye.data.graphs.prompts import WORDINGS, TreePrompt, TreePrompts, Wording, lay_out, tree_prompt
from windeye.data.graphs.published import CLASSES, load_heterophilous, load_text_attributed
from windeye.data.graphs.tree import NeighbourTree, sample_tree

__all__ = [
    "CLASSES",
    "PERTURBATIONS",
    "WORDINGS",
    "Graph",
    "NeighbourTree",
    "TreePrompt",
    "TreePrompts",
    "Wording",
    "digits_neighbours",
    "exchange_prefixes",
    "from_networkx",
    "lay_out",
    "load_heterophilous",
    "load_text_attributed",
    "redeal",
    "replace_nodes",
    "sample_tree",
    "swap_lists",
    "syntax_forest",
    "tree_prompt",
]
