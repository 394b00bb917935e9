"""Graphs read by decoders: what their attention is split into, their horizons, the rule that judges them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from papers.smoke import Smoke, smoke_run
from windeye.data.graphs import NeighbourTree, TreePrompts, lay_out, tree_prompt
from windeye.papers import card, llm_graphs, registry
from windeye.papers.llm_graphs import attention, baselines, judgement, plan, training
from windeye.papers.llm_graphs.attention import OTHER, OWN, PAIRS
from windeye.papers.llm_graphs.examples import PAD, RARE, Examples, Task, Words, packed, unpacked
from windeye.papers.llm_graphs.judgement import ACCURACY, PREFERENCE, drop, of
from windeye.papers.llm_graphs.plan import ARMS, DIGITS, FULL, HORIZONS, PLANS, RANDOM, SYNTAX, WORDING
from windeye.papers.llm_graphs.reader import Reader, random_horizon, through
from windeye.patterns import Causal, tree_horizon
from windeye.report import Row, evidence_page
from windeye.sites import record

SMOKE = PLANS["smoke"]
TREES = [
    NeighbourTree(0, (1, 2, 3), ((4, 5), (), (6, 7, 8))),
    NeighbourTree(5, (), ()),
    NeighbourTree(9, (4, 5), ((9, 4), (4,))),
]


def prompts() -> TreePrompts:
    return lay_out([tree_prompt(tree, WORDING) for tree in TREES], lambda word: 1 + len(word), lambda node: 20 + node)


@pytest.fixture(scope="module")
def task() -> Task:
    return Task.of(SMOKE.graphs[SYNTAX](), SMOKE, seed=0)


def fresh(task: Task, horizon: int = FULL, seed: int = 0, layers: int = 2) -> Reader:
    return Reader.of(task, replace(SMOKE, layers=layers), horizon, seed).double()


# pairs


def by_hand(tree: NeighbourTree) -> list[list[str]]:
    """The class of every pair of places, from the tree alone."""
    places: list[tuple[int, int]] = [(0, -1)]  # depth, and the place of the parent
    for children in tree.hop2:
        parent = len(places)
        places += [(1, 0), *[(2, parent)] * len(children)]
    found = []
    for i, (depth, parent) in enumerate(places):
        row = []
        for j, (other_depth, other_parent) in enumerate(places):
            names = {
                (0, 1): "centre to parent", (0, 2): "centre to child", (1, 0): "parent to centre",
                (1, 1): "parent to other parent", (2, 0): "child to centre",
                (1, 2): "parent to own child" if other_parent == i else "parent to other child",
                (2, 1): OWN if parent == j else OTHER,
                (2, 2): "child to sibling" if parent == other_parent else "child to other child",
            }  # fmt: skip
            row.append("self" if i == j else names[depth, other_depth])
        found.append(row)
    return found


def test_every_pair_of_places_has_the_class_that_the_tree_gives_it() -> None:
    classes = attention.pair_classes(prompts())
    for row, tree in enumerate(TREES):
        n = tree.places
        assert [[PAIRS[c] for c in line] for line in classes[row, :n, :n].tolist()] == by_hand(tree)
        assert (classes[row, n:] == -1).all()
        assert (classes[row, :, n:] == -1).all()


def test_deeper_trees_are_refused() -> None:
    made = prompts()
    chain = torch.full_like(made.parents[:1, :4], -1)
    chain[0, 1:] = torch.tensor([0, 1, 2])
    one = torch.ones(1, 4, dtype=torch.bool)
    deep = TreePrompts(made.ids[:1, :4], one, chain, torch.tensor([4]), torch.tensor([3]))
    with pytest.raises(ValueError, match="at most two hops"):
        attention.pair_classes(deep)


def maps_of(model: Reader, made: TreePrompts, horizon: int) -> torch.Tensor:
    """Full attention maps by hand, the mean over layers and heads."""
    with model.reading_with(horizon):
        pattern = model.pattern(made)
    with through(model.model, pattern), record(model.model, ["q", "k"]) as seen:
        model.model.hidden(made.ids)
    n = made.ids.shape[1]
    mask = pattern.bind((n,)).mask().expand(len(made.ids), 1, n, n)
    maps = []
    for layer in range(2):
        q, k = seen["q", layer], seen["k", layer]
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        maps.append(logits.masked_fill(~mask, -torch.inf).softmax(-1).mean(1))
    return torch.stack(maps).mean(0)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_what_is_read_equals_the_full_maps(task: Task, horizon: int) -> None:
    model = fresh(task)
    rows = task.examples(task.held_out[:6])
    made = unpacked(rows.prompts)
    maps = maps_of(model, made, horizon)
    found = attention.attention_of(model, rows, horizon)
    with model.reading_with(horizon):
        mask = model.pattern(made).bind((made.ids.shape[1],)).mask().expand(6, 1, -1, -1)[:, 0]
    weights: dict[str, list[float]] = {name: [] for name in PAIRS}
    both, to_text, to_centre, to_nodes = [], [], [], []
    for row, tree in enumerate(task.held_out[:6]):
        length = int(made.lengths[row])
        places = made.tree[row].nonzero()[:, 0].tolist()
        names = by_hand(tree)
        for i, query in enumerate(places):
            own, other = [], []
            for j, key in enumerate(places):
                if mask[row, query, key]:
                    weights[names[i][j]].append(float(maps[row, query, key]))
                    {OWN: own, OTHER: other}.get(names[i][j], []).append(float(maps[row, query, key]))
            if own and other:
                both.append((own[0], sum(other) / len(other)))
            to_text.append(1 - float(maps[row, query, places].sum()))
        for query in set(range(places[0] + 1, length)) - set(places):
            to_centre.append(float(maps[row, query, places[0]]))
            to_nodes.append(float(maps[row, query, places[1:]].sum()))
    assert found["counts"] == {name: len(values) for name, values in weights.items()}
    assert sum(found["counts"].values()) == sum(
        int(mask[row][places][:, places].sum())
        for row in range(6)
        for places in [made.tree[row].nonzero()[:, 0]]
    )  # fmt: skip
    assert found["pairs"] == pytest.approx({name: sum(v) / len(v) for name, v in weights.items() if v}, abs=1e-12)
    for name, values in (("node_to_text", to_text), ("text_to_centre", to_centre), ("text_to_nodes", to_nodes)):
        assert found[name] == pytest.approx(sum(values) / len(values), abs=1e-12)  # type: ignore[literal-required]
    if horizon < 3:
        assert not both
        assert found["preference"] is None
    else:
        own, other = (math.fsum(part) for part in zip(*both, strict=True))
        assert found["preference"] == pytest.approx(own / other, abs=1e-12)
    real = torch.arange(made.ids.shape[1]) < made.lengths[:, None]
    assert sum(found["node_received"]) == int(made.tree.sum())
    assert sum(found["text_received"]) == int((real & ~made.tree).sum())


def uniform(model: Reader) -> Reader:
    """A reader whose queries and keys are zero."""
    with torch.no_grad():
        for block in model.model.blocks:
            block.mixer.qkv_proj.weight.zero_()  # type: ignore[union-attr, operator]
    return model


@pytest.mark.parametrize("horizon", [3, FULL])
def test_attention_that_ignores_the_tree_prefers_no_parent(task: Task, horizon: int) -> None:
    found = attention.attention_of(uniform(fresh(task)), task.examples(task.held_out), horizon)
    assert found["preference"] == pytest.approx(1.0, abs=1e-12)
    assert found["pairs"][OWN] > found["pairs"][OTHER]  # of fewer keys each gets more, which the preference leaves out


def test_slots_are_counted_among_the_children_of_one_parent(task: Task) -> None:
    rows = task.examples(task.held_out)
    found = attention.attention_of(uniform(fresh(task)), rows, FULL)
    made = unpacked(rows.prompts)
    slots: list[list[float]] = [[], [], []]
    for row in range(len(made)):
        seen: dict[int, int] = {}
        for place in made.tree[row].nonzero()[:, 0].tolist():
            parent = int(made.parents[row, place])
            if parent >= 0 and made.parents[row, parent] >= 0:
                slots[seen.get(parent, 0)].append(1 / (place + 1))
                seen[parent] = seen.get(parent, 0) + 1
    assert found["by_slot"] == pytest.approx([sum(values) / len(values) for values in slots])


def test_padding_changes_nothing(task: Task) -> None:
    model = fresh(task)
    rows = task.examples(task.held_out[:5])
    alone = [
        attention.attention_of(model, Examples(rows.prompts[i : i + 1], rows.answers[i : i + 1]), FULL)
        for i in range(5)
    ]
    together = attention.attention_of(model, rows, FULL)
    for name in PAIRS:
        count = sum(one["counts"][name] for one in alone)
        assert together["counts"][name] == count
        if count:
            total = sum(one["pairs"].get(name, 0.0) * one["counts"][name] for one in alone)
            assert together["pairs"][name] == pytest.approx(total / count)
    assert together["node_received"] == [
        sum(bins) for bins in zip(*(one["node_received"] for one in alone), strict=True)
    ]


# readers


def test_a_horizon_of_four_is_full_attention_and_others_are_not(task: Task) -> None:
    model = fresh(task)
    rows = task.examples(task.held_out).prompts
    made = unpacked(rows)
    with through(model.model, tree_horizon(made.tree, made.parents, 4)):
        hidden, _ = model.model.hidden(made.ids)
    whole = model(rows)
    last = hidden[torch.arange(len(made)), made.lengths - 1]
    torch.testing.assert_close(model.model.logits(last), whole)
    for horizon in (0, 1, 2, 3, RANDOM):
        with model.reading_with(horizon):
            assert not torch.allclose(model(rows), whole)
    torch.testing.assert_close(model(rows), whole)
    assert isinstance(model.model.blocks[0].mixer.pattern, Causal)  # type: ignore[union-attr]


def test_prompts_of_a_batch_do_not_meet(task: Task) -> None:
    model = fresh(task, horizon=1)
    rows = task.examples(task.held_out[:4]).prompts
    whole = model(rows)
    for row in range(4):
        torch.testing.assert_close(model(rows[row : row + 1]), whole[row : row + 1])


def test_readers_of_a_seed_start_alike_whatever_their_horizon(task: Task) -> None:
    first, second, other = fresh(task, 0), fresh(task, FULL), fresh(task, 0, seed=1)
    pairs = zip(first.parameters(), second.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not torch.equal(first.model.embedding.weight, other.model.embedding.weight)


def test_random_pairs_are_as_many_as_the_horizon_shows_and_elsewhere() -> None:
    made = prompts()
    told = tree_horizon(made.tree, made.parents, 2).mask[:, 0]
    masks = [random_horizon(made, 2, torch.Generator().manual_seed(seed)).mask[:, 0] for seed in range(20)]
    between = made.tree[:, :, None] & made.tree[:, None, :]
    for mask in masks:
        assert torch.equal(mask.sum(-1), told.sum(-1))
        assert torch.equal(mask & ~between, told & ~between)
        assert mask.diagonal(dim1=1, dim2=2).all()
        assert not mask.triu(1).any()
    assert torch.equal(masks[3], random_horizon(made, 2, torch.Generator().manual_seed(3)).mask[:, 0])
    assert torch.equal(
        torch.stack(masks).any(0) & between, between & torch.ones_like(between).tril() & (told.sum(-1) > 0)[..., None]
    )


# examples


def test_words_are_those_of_prompts_and_frequent_ones_of_texts(task: Task) -> None:
    words = Words.of(task.graph)
    assert words[PAD] == 0
    assert words["never-written-anywhere"] == words[RARE]
    assert words["Name"] not in (words[PAD], words[RARE])
    answers = words.answer(torch.arange(len(task.graph.classes)))
    assert sorted(answers.tolist()) == list(range(len(words.number), len(words)))
    for texts, node in zip(words.texts(task.graph), range(len(task.graph)), strict=True):
        assert len(texts) == len(task.graph.text_of(node).split())


def test_examples_ask_for_their_centres(task: Task) -> None:
    rows = task.examples(task.held_out)
    made = unpacked(rows.prompts)
    assert torch.equal(packed(made), rows.prompts)
    for row, tree in enumerate(task.held_out):
        assert int(made.ids[row, made.query[row]]) == len(task.words) + tree.centre
        assert int(rows.answers[row]) - len(task.words.number) == int(task.graph.labels[tree.centre])
    assert not {tree.centre for tree in task.train} & {tree.centre for tree in task.held_out}


def test_strangers_come_from_the_trees_of_the_batch(task: Task) -> None:
    changed = task.perturbed("IV", 0)
    assert changed == task.perturbed("IV", 0)
    assert changed != task.perturbed("IV", 1)
    known = {node for tree in task.held_out for node in tree.nodes}
    assert {node for tree in changed for node in tree.nodes} <= known
    assert changed != task.held_out


def test_baselines_know_what_they_are_given(task: Task) -> None:
    found = baselines.features(task, TREES)
    texts = task.words.texts(task.graph)
    assert found.sum(-1)[0].tolist() == pytest.approx([1, 1, 1])
    assert found.sum(-1)[1].tolist() == pytest.approx([1, 0, 0])
    share = sum(texts[node].count(texts[4][0]) / len(texts[node]) for node in (9, 4, 4)) / 3
    assert float(found[2, 2, texts[4][0]]) == pytest.approx(share)
    known = baselines.without_reading(task, SMOKE, 0)
    labels = [int(task.graph.labels[tree.centre]) for tree in task.train]
    most = max(set(labels), key=labels.count)
    right = [int(task.graph.labels[tree.centre]) == most for tree in task.held_out]
    assert known[baselines.MAJORITY] == pytest.approx(sum(right) / len(right))


# the experiment


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    return smoke_run(llm_graphs, tmp_path_factory.mktemp("llm_graphs"))


def test_smoke_has_every_arm(smoke: Smoke) -> None:
    evidence = smoke.evidence
    for graph, horizons in ARMS.items():
        assert 0 <= evidence.row(f"{graph}, {baselines.MAJORITY}", ACCURACY).mean <= 1
        for horizon in horizons:
            name = of(graph, horizon)
            assert 0 <= evidence.row(name, ACCURACY).mean <= 1
            assert evidence.row(name, PREFERENCE).mean > 0
            own = f"accuracy read with {plan.arm(horizon)}"
            assert horizon == RANDOM or evidence.row(name, own).mean == evidence.row(name, ACCURACY).mean
    assert evidence.row(DIGITS, "edges within a class").mean > evidence.row(SYNTAX, "edges within a class").mean
    assert evidence.verdict == judgement.verdict(evidence.rows)
    assert evidence.checks == judgement.checks(evidence.rows)
    assert [picture.content[:4] for picture in evidence.pictures] == ["<svg"] * 3
    assert "Whom children look at" in evidence_page(evidence)


def test_training_repeats_itself_and_refuses_the_seed_of_the_pilots(task: Task) -> None:
    first, second = (training.train(task, SMOKE, RANDOM, 3, "cpu", lambda _share: None) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["attention"] != first["before"]
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        training.train(task, SMOKE, 0, -1, "cpu", lambda _share: None)


# the rule

GOOD = {
    ("text",): 0.6, ("full",): 0.86, ("zero",): 0.86, ("one",): 0.86, ("two",): 0.86, ("like full",): 0.9,
    ("like one",): 1.1, ("like two",): 1.2, ("syntax loss",): 6.0, ("digits loss",): 0.0,
}  # fmt: skip
NAMES = {
    "text": (f"{SYNTAX}, {baselines.TEXT}", ACCURACY), "full": (of(SYNTAX, FULL), ACCURACY),
    "zero": (of(SYNTAX, 0), ACCURACY), "one": (of(SYNTAX, 1), ACCURACY), "two": (of(SYNTAX, 2), ACCURACY),
    "like full": (of(SYNTAX, FULL), PREFERENCE), "like one": (of(SYNTAX, 1), PREFERENCE),
    "like two": (of(SYNTAX, 2), PREFERENCE),
}  # fmt: skip


def rows(**changed: float | tuple[float, ...]) -> list[Row]:
    """Rows under which the rule holds, but for the changes."""
    values = {name: changed.get(name.replace(" ", "_"), usual) for (name,), usual in GOOD.items()}
    made = [Row(*NAMES[name], _three(values[name])) for name in NAMES]
    for graph in (SYNTAX, DIGITS):
        made += [Row(of(graph, FULL), drop(name), _three(values[f"{graph} loss"])) for name in ("I", "II", "III")]
    return made


def _three(value: float | tuple[float, ...]) -> tuple[float, ...]:
    return value if isinstance(value, tuple) else (value, value, value)


def failed(made: list[Row]) -> list[str]:
    return [check.demand for check in judgement.checks(made) if not check.held]


def test_shown_when_all_holds() -> None:
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("changed", "demand"),
    [
        ({"text": 0.77}, "at least 10 points above the text alone"),
        ({"syntax_loss": 2.0}, "moved nodes cost at least 3 points more"),
        ({"syntax_loss": (10.0, 10.0, -0.1)}, "more in every seed"),
        ({"zero": 0.875}, "horizons 1 and 2 at most 1 points below 0"),
        ({"one": 0.84}, "horizons 1 and 2 at most 1 points below 0"),
        ({"full": 0.875}, "full attention at most 1 points above horizon 2"),
        ({"like_full": 0.6}, "by a factor of 0.67 to 1.5"),
        ({"like_one": 0.95}, "more than 1, and more than with full attention"),
        ({"like_two": 1.15, "like_full": 1.18, "like_one": 1.3}, "more than 1, and more than with full attention"),
    ],
)
def test_each_gate_alone_prevents_shown(changed: dict[str, float], demand: str) -> None:
    broken = failed(rows(**changed))
    assert len(broken) == 1
    assert demand in broken[0]
    assert judgement.verdict(rows(**changed)) == "not shown"


def test_margins_are_inclusive_and_opposite_needs_every_seed() -> None:
    assert judgement.verdict(rows(text=0.76)) == "shown"
    assert judgement.verdict(rows(syntax_loss=3.0)) == "shown"
    assert judgement.verdict(rows(zero=0.87)) == "shown"
    assert judgement.verdict(rows(digits_loss=7.0)) == "opposite"
    assert judgement.verdict(rows(digits_loss=(7.0, 7.0, 5.0))) == "not shown"


def test_a_missing_row_is_an_error() -> None:
    with pytest.raises(KeyError):
        judgement.verdict([row for row in rows() if row.arm != of(SYNTAX, 2)])


def test_the_argument_says_what_the_committed_run_says() -> None:
    found = registry.evidence_of(card.find("llm-graphs"))
    if found is None or found.verdict == "shown":
        pytest.skip("nothing to argue")
    assert sum(check.held for check in found.checks) == 4
    assert [check.held for check in found.checks] == [True, False, True, True, True, False]
    accuracy = {horizon: found.row(of(SYNTAX, horizon), ACCURACY).mean for horizon in ARMS[SYNTAX]}
    assert max(accuracy.values()) - min(accuracy.values()) < 0.005
    assert round(accuracy[FULL], 2) == 0.86
    assert round(found.row(f"{SYNTAX}, {baselines.HOPS}", ACCURACY).mean, 2) == 0.92
    assert round(found.row(of(SYNTAX, FULL), PREFERENCE).mean, 2) == 0.94
    moved = {graph: [found.row(of(graph, FULL), drop(name)).mean for name in ("I", "II", "III")] for graph in ARMS}
    assert {graph: round(sum(losses) / 3, 1) for graph, losses in moved.items()} == {SYNTAX: 1.9, DIGITS: 0.2}
    assert min(judgement.hurt(found.rows)) > 0
    mixed = found.row(of(SYNTAX, FULL), drop("III")).values
    assert (round(min(mixed), 1), round(max(mixed), 1)) == (1.5, 5.9)
    assert all(28 < found.row(of(graph, FULL), drop("IV")).mean < 32 for graph in ARMS)
