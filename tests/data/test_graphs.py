"""Graphs, their neighbourhoods as trees and prompts, and what perturbations keep."""

import ast
import json
from collections import Counter
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.data.graphs import (
    CLASSES,
    PERTURBATIONS,
    WORDINGS,
    Graph,
    NeighbourTree,
    Wording,
    digits_neighbours,
    from_networkx,
    lay_out,
    load_heterophilous,
    load_text_attributed,
    sample_tree,
    syntax_forest,
    tree_prompt,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "llm-graphs" / "trees_and_perturbations.npz"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@st.composite
def trees(draw):
    lists = draw(st.lists(st.lists(st.integers(1, 30), max_size=4), max_size=5))
    hop1 = draw(st.lists(st.integers(1, 30), min_size=len(lists), max_size=len(lists), unique=True))
    return NeighbourTree(0, tuple(hop1), tuple(map(tuple, lists)))


@st.composite
def graphs(draw):
    nodes = draw(st.integers(1, 12))
    pairs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = draw(st.lists(pairs, max_size=30))
    return nodes, edges, Graph.of(
        torch.tensor(edges, dtype=torch.long).reshape(-1, 2), torch.zeros(nodes, dtype=torch.long), ["all"]
    )  # fmt: skip


# graphs


@given(graphs())
@settings(deadline=None, derandomize=True)
def test_neighbours_are_those_of_the_undirected_simple_graph(made):
    nodes, edges, graph = made
    for node in range(nodes):
        expected = {a if b == node else b for a, b in edges if node in (a, b) and a != b}
        assert graph.neighbours_of(node).tolist() == sorted(expected)


def test_homophily_is_the_share_of_edges_within_a_class():
    club = networkx.karate_club_graph()
    sides = networkx.get_node_attributes(club, "club")
    share = np.mean([sides[a] == sides[b] for a, b in club.edges()])
    assert from_networkx(club, "club").homophily == pytest.approx(share)


def test_splits_part_the_nodes():
    graph = syntax_forest(1000)
    parts = graph.shuffled_splits(3)
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(1000))
    assert [len(part) for part in parts.values()] == [600, 200, 200]
    assert not torch.equal(parts["test"], graph.shuffled_splits(4)["test"])


def test_the_forest_is_what_python_parses():
    source = "def f(a, b=1):\n    if a.x > b and a:\n        return g(a, *b)[0]\n"
    nodes = [n for n in ast.walk(ast.parse(source)) if not isinstance(n, (ast.expr_context, ast.boolop, ast.cmpop))]
    forest = syntax_forest(len(nodes), 30, [source])
    assert Counter(text.split()[0] for text in forest.texts) == Counter(type(node).__name__ for node in nodes)
    by_text = {text: forest.classes[label] for text, label in zip(forest.texts, forest.labels.tolist(), strict=True)}
    assert by_text["Attribute x"] == "left"
    assert by_text["Name g"] == "func"
    assert by_text["Compare"] == "values"
    assert by_text["If"] == "body"
    compare = forest.texts.index("Compare")
    seen = sorted(forest.texts[node] for node in forest.neighbours_of(compare).tolist())
    assert seen == ["Attribute x", "BoolOp", "Name a", "Name b"]  # children, parent, and the sibling after it


def test_the_two_graphs_are_of_opposite_kind():
    assert syntax_forest(5000).homophily < 0.4
    assert digits_neighbours().homophily > 0.9


def test_more_nodes_than_the_sources_have_are_refused():
    with pytest.raises(ValueError, match="nodes must be at most 2, as many as the sources have, got 3"):
        syntax_forest(3, 4, ["pass"])


# trees


def test_trees_equal_the_official_ones():
    with np.load(GOLDEN) as file:
        adjacency, ids, centres = (
            torch.from_numpy(file[f"input.{name}"]) for name in ("adjacency", "node_ids", "centers")
        )
        official = json.loads(str(file["output.tree_plain"][0]))
    graph = Graph.of(adjacency.nonzero(), torch.zeros(len(ids), dtype=torch.long), ["all"])
    for centre in centres.tolist():
        tree = sample_tree(graph, int((ids == centre).nonzero()), (18, 18))
        spelled = {
            str(int(ids[node])): [int(ids[child]) for child in children]
            for node, children in zip(tree.hop1, tree.hop2, strict=True)
        }
        assert spelled == official[str(centre)]
        assert list(spelled) == list(official[str(centre)])


def official_trees(name):
    with np.load(GOLDEN) as file:
        spelled = json.loads(str(file[f"output.tree_{name}"][0]))
    return [
        NeighbourTree(int(centre), tuple(map(int, lists)), tuple(map(tuple, lists.values())))
        for centre, lists in spelled.items()
    ]


def test_the_official_draw_of_one_is_one_of_ours_and_that_of_two_keeps_what_ours_keeps():
    for plain, one, two in zip(*map(official_trees, ("plain", "I", "II")), strict=True):
        assert one in [PERTURBATIONS["I"](plain, (), seeded(seed)) for seed in range(60)]
        assert two.hop1 == plain.hop1
        assert Counter(two.nodes) == Counter(plain.nodes)
        assert [len(children) for children in two.hop2] == [len(children) for children in plain.hop2]


@given(graphs(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 99))
@settings(deadline=None, derandomize=True)
def test_a_sampled_tree_is_a_part_of_the_whole_one(made, first, second, seed):
    _, _, graph = made
    tree, whole = sample_tree(graph, 0, (first, second), seeded(seed)), sample_tree(graph, 0, (99, 99))
    assert len(tree.hop1) == min(first, len(whole.hop1))
    assert len(set(tree.hop1)) == len(tree.hop1)
    for node, children in zip(tree.hop1, tree.hop2, strict=True):
        every = whole.hop2[whole.hop1.index(node)]
        assert set(children) <= set(every)
        assert len(children) == len(set(children)) == min(second, len(every))


def test_order_is_by_chance_but_repeats():
    star = torch.tensor([[0, leaf] for leaf in range(1, 9)])
    graph = Graph.of(star, torch.zeros(9, dtype=torch.long), ["all"])
    drawn = [sample_tree(graph, 0, (8, 8), seeded(seed)).hop1 for seed in range(40)]
    assert len(set(drawn)) > 30
    assert drawn[3] == sample_tree(graph, 0, (8, 8), seeded(3)).hop1


# perturbations


@pytest.mark.parametrize("name", PERTURBATIONS)
@given(tree=trees(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_centre_stays_and_the_seed_decides(name, tree, seed):
    others = range(100, 110)
    made = PERTURBATIONS[name](tree, others, seeded(seed))
    assert made.centre == tree.centre
    assert made == PERTURBATIONS[name](tree, others, seeded(seed))
    assert len(made.hop1) == len(tree.hop1)


@given(tree=trees(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_one_and_two_move_children_between_lists(tree, seed):
    one = PERTURBATIONS["I"](tree, (), seeded(seed))
    assert one.hop1 == tree.hop1
    assert sorted(one.hop2) == sorted(tree.hop2)
    two = PERTURBATIONS["II"](tree, (), seeded(seed))
    assert two.hop1 == tree.hop1
    assert Counter(two.nodes) == Counter(tree.nodes)
    assert [len(children) for children in two.hop2] == [len(children) for children in tree.hop2]


def test_one_swaps_exactly_two_lists():
    tree = NeighbourTree(0, (1, 2, 3), ((4,), (5,), (6,)))
    for seed in range(10):
        made = PERTURBATIONS["I"](tree, (), seeded(seed))
        assert sum(a != b for a, b in zip(made.hop2, tree.hop2, strict=True)) == 2


@given(tree=trees(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_three_deals_the_same_nodes_to_the_same_places(tree, seed):
    made = PERTURBATIONS["III"](tree, (), seeded(seed))
    assert Counter(made.nodes) == Counter(tree.nodes)
    assert [len(children) for children in made.hop2] == [len(children) for children in tree.hop2]


def test_three_moves_nodes_between_hops():
    tree = NeighbourTree(0, (1, 2), ((3, 4), (5, 6)))
    firsts = {node for seed in range(50) for node in PERTURBATIONS["III"](tree, (), seeded(seed)).hop1}
    assert firsts == {1, 2, 3, 4, 5, 6}


@given(tree=trees(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_four_changes_nothing_but_what_strangers_replace(tree, seed):
    others = [*tree.nodes, tree.centre, *range(100, 106)]
    made = PERTURBATIONS["IV"](tree, others, seeded(seed))
    assert [len(children) for children in made.hop2] == [len(children) for children in tree.hop2]
    for new, old in zip(made.nodes, tree.nodes, strict=True):
        assert new == old or 100 <= new < 106
    if len(tree.hop1) >= 2:
        assert made != tree
    else:
        assert made == tree


def test_four_needs_strangers():
    tree = NeighbourTree(0, (1, 2, 3), ((4,), (5,), (6,)))
    assert PERTURBATIONS["IV"](tree, [0, 1, 4], seeded()) == tree


# prompts


@given(trees())
@settings(deadline=None, derandomize=True)
def test_a_prompt_spells_out_its_tree(tree):
    prompt = tree_prompt(tree, WORDINGS["wikics"])
    places = [place for place, inside in enumerate(prompt.tree) if inside]
    assert prompt.tokens[places[0]] == tree.centre
    assert len(places) == tree.places
    centre = places[0]
    hop1 = [place for place in places[1:] if prompt.parents[place] == centre]
    assert tuple(prompt.tokens[place] for place in hop1) == tree.hop1
    for place, children in zip(hop1, tree.hop2, strict=True):
        assert tuple(prompt.tokens[child] for child in places if prompt.parents[child] == place) == children
    assert prompt.tokens[prompt.query] == tree.centre
    assert prompt.query > places[-1]
    assert not prompt.tree[prompt.query]
    assert prompt.tokens.count("[") == prompt.tokens.count("]") == 1 + len(tree.hop1)
    assert sum(parent >= 0 for parent in prompt.parents) == tree.places - 1


def test_laid_out_prompts_read_back():
    prompts = [
        tree_prompt(NeighbourTree(3, hop1, ((1, 2),) * len(hop1)), Wording("word")) for hop1 in ((), (4, 5), (6,))
    ]
    words = sorted({token for prompt in prompts for token in prompt.tokens if isinstance(token, str)})
    batch = lay_out(prompts, words.index, lambda node: len(words) + node)
    for row, prompt in enumerate(prompts):
        n = len(prompt.tokens)
        read = [words[i] if i < len(words) else i - len(words) for i in batch.ids[row, :n].tolist()]
        assert tuple(read) == prompt.tokens
        assert tuple(batch.tree[row, :n].tolist()) == prompt.tree
        assert tuple(batch.parents[row, :n].tolist()) == prompt.parents
        assert not batch.tree[row, n:].any()
        assert (batch.parents[row, n:] == -1).all()
    assert batch.query.tolist() == [prompt.query for prompt in prompts]
    first = batch.rows(torch.tensor([0]))
    assert first.ids.shape[1] == len(prompts[0].tokens)
    assert torch.equal(first.ids[0], batch.ids[0, : first.ids.shape[1]])


# files


def archive(path, **changed):
    arrays = {
        "node_features": np.ones((5, 3), np.float32), "node_labels": np.array([0, 1, 2, 3, 4]),
        "edges": np.array([[0, 1], [1, 4]]), "train_masks": np.eye(10, 5, dtype=bool),
        "val_masks": np.eye(10, 5, dtype=bool), "test_masks": np.ones((10, 5), bool),
    }  # fmt: skip
    np.savez(path, **{name: array for name, array in (arrays | changed).items() if array is not None})
    return path


def test_the_heterophilous_layout_loads(tmp_path):
    graph = load_heterophilous(archive(tmp_path / "g.npz"), CLASSES["amazon_ratings"], mask=1)
    assert graph.neighbours_of(1).tolist() == [0, 4]
    assert graph.neighbours_of(4).tolist() == [1]
    assert {name: part.tolist() for name, part in graph.splits.items()} == {
        "train": [1], "validation": [1], "test": [0, 1, 2, 3, 4]
    }  # fmt: skip
    assert graph.features.shape == (5, 3)


@pytest.mark.parametrize(
    ("changed", "mask", "words"),
    [
        ({"edges": None}, 0, "lacks edges; it has node_features"),
        ({}, 10, "mask must be in 0 .. 9, got 10"),
        ({"edges": np.array([[0, 5]])}, 0, "edges name nodes from 0 to 5 but labels are given for 5"),
        ({"node_labels": np.array([0, 1, 2, 3, 9])}, 0, "labels go from 0 to 9 but classes are 5"),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path, changed, mask, words):
    with pytest.raises(ValueError, match=words):
        load_heterophilous(archive(tmp_path / "g.npz", **changed), CLASSES["amazon_ratings"], mask=mask)


@pytest.mark.parametrize("form", ["dense", "sparse", "edges"])
def test_the_torch_layout_loads(tmp_path, form):
    dense = torch.zeros(6, 6)
    dense[0, 1] = dense[1, 0] = dense[2, 5] = 1
    adjacency = {"dense": dense, "sparse": dense.to_sparse(), "edges": dense.nonzero().T}[form]
    held = {"x": torch.ones(6, 2), "y": torch.tensor([0, 1, 2, 0, 1, 2]), "adj": adjacency}
    torch.save(held, tmp_path / "g.pt")
    graph = load_text_attributed(tmp_path / "g.pt", CLASSES["pubmed"])
    assert [graph.neighbours_of(node).tolist() for node in range(6)] == [[1], [0], [5], [], [], [2]]
    assert sum(len(part) for part in graph.splits.values()) == 6
    ids = {"train_id": torch.tensor([0]), "val_id": [1], "test_id": [2, 3]}
    torch.save(held | ids, tmp_path / "g.pt")
    graph = load_text_attributed(tmp_path / "g.pt", CLASSES["pubmed"])
    assert {name: part.tolist() for name, part in graph.splits.items()} == {
        "train": [0], "validation": [1], "test": [2, 3]
    }  # fmt: skip
    torch.save(held | {"train_id": [0]}, tmp_path / "g.pt")
    with pytest.raises(ValueError, match="has train_id but not all of"):
        load_text_attributed(tmp_path / "g.pt", CLASSES["pubmed"])


def test_the_published_classes_are_as_many_as_the_data_sets_have():
    assert {name: len(classes) for name, classes in CLASSES.items()} == {
        "roman_empire": 18, "amazon_ratings": 5, "pubmed": 3, "wikics": 10
    }  # fmt: skip
    assert set(CLASSES) == set(WORDINGS)


# wrong calls


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda g: g.neighbours_of(3), "node must be in 0 .. 2, got 3"),
        (lambda g: g.text_of(0), "node 0 has no text"),
        (lambda g: sample_tree(g, 0, (2, -1)), r"fan_out must not be negative, got \(2, -1\)"),
        (lambda _g: NeighbourTree(0, (1,), ()), "one list for each of the 1 nodes"),
        (lambda _g: lay_out([], len, int), "at least one prompt"),
        (
            lambda g: Graph.of(g.neighbours.reshape(-1, 2), g.labels, g.classes, texts=["a"]),
            "texts are given for 1 nodes",
        ),
        (lambda _g: from_networkx(networkx.path_graph(2), "side"), "node 0 has no attribute 'side'"),
    ],
)
def test_wrong_calls_are_refused(make, words):
    graph = Graph.of(torch.tensor([[0, 1]]), torch.zeros(3, dtype=torch.long), ["all"])
    with pytest.raises(ValueError, match=words):
        make(graph)
