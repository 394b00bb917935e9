"""The experiment of context-awareness: its dialogues, how a real model is asked, its rule."""

import pytest
import torch

from papers.smoke import smoke_run
from windeye.data.sequences import IGNORED
from windeye.data.tasks.haystack import SANDWICH, prompt, question
from windeye.data.text import chat_template, label_tokens
from windeye.papers import context_awareness as paper
from windeye.papers.context_awareness import judgement
from windeye.papers.context_awareness.dialogues import KINDS, World
from windeye.papers.context_awareness.needle import READ, Read, common, shares
from windeye.papers.context_awareness.plan import ALPHAS, LAYER, PLANS, TUNING
from windeye.papers.context_awareness.tuning import ARMS, SPANS, STEERED, learned, span_of, tune
from windeye.report import Row
from windeye.sites import allocation, emphasis, steer

WORLD = World(seed=3)
TOKENS = 14


def test_a_dialogue_reads_as_it_should():
    said = WORLD.draw(200, (1, 1, 1), seed=0)
    tokens, targets = WORLD.write(said)
    user, question, _, answer, end = (WORLD.symbols + WORLD.entities + tag for tag in range(5))
    for row in range(200):
        subject, asked = WORLD.symbols + int(said.subject[row]), WORLD.symbols + int(said.asked[row])
        passage, answered = said.passage[row].tolist(), said.answer[row].tolist()
        assert tokens[row].tolist() == [user, subject, *passage, question, asked, answer, *answered, end]
        assert targets[row].tolist() == [IGNORED] * 10 + [*answered, end] + [IGNORED]
    assert int(tokens.max()) < WORLD.vocabulary


def test_the_kinds_differ_in_whom_the_passage_is_about_and_where_the_answer_is_from():
    said = WORLD.draw(300, (1, 1, 1), seed=1)
    about = said.subject == said.asked
    from_passage = (said.answer == said.passage).all(dim=1)
    from_memory = (said.answer == WORLD.memory[said.asked]).all(dim=1)
    for kind, wanted in zip(KINDS, [(True, True, False), (False, False, True), (True, False, True)], strict=True):
        mine = said.kind == KINDS.index(kind)
        assert mine.sum() > 50
        for fact, value in zip((about, from_passage, from_memory), wanted, strict=True):
            assert bool((fact[mine] == value).all()), kind


def test_the_marker_stands_between_question_and_answer_where_it_is_wanted():
    said = WORLD.draw(8, (1, 1, 1), seed=2)
    marked = torch.arange(8) % 2 == 0
    tokens, targets = WORLD.write(said, marked)
    plain = WORLD.write(said)
    assert torch.equal(tokens[~marked], plain.tokens[~marked])
    assert torch.equal(targets[~marked], plain.targets[~marked])
    marker = WORLD.symbols + WORLD.entities + 2
    assert ((tokens == marker).sum(dim=1) == marked.long()).all()
    assert (tokens[marked, 10] == marker).all()
    for mine in (True, False):
        prompts = WORLD.prompts(said, marked=mine)[marked == mine]
        assert torch.equal(tokens[marked == mine][:, : prompts.shape[1]], prompts)
    after = targets[marked][:, 11:]
    assert torch.equal(after[:, :6], said.answer[marked])
    assert (after[:, 6] == marker + 2).all()


def test_dialogues_follow_from_the_seed_and_tests_are_others():
    first, again = (WORLD.draw(50, TUNING, seed=4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(WORLD.draw(50, TUNING, seed=4, split="test").passage, first.passage)
    assert not torch.equal(World(seed=4).memory, WORLD.memory)


def test_spans_are_the_passage_the_users_turn_and_the_rest():
    said = WORLD.draw(1, (1, 0, 0), seed=5)
    tokens, asked = WORLD.write(said).tokens[0], WORLD.symbols + said.asked
    passage, user, rest = (span_of(WORLD, span, 18)[0] for span in SPANS)
    assert tokens[passage].tolist() == [int(asked), *said.passage[0].tolist()]
    assert tokens[user].tolist() == [
        int(asked),
        *said.passage[0].tolist(),
        WORLD.symbols + WORLD.entities + 1,
        int(asked),
    ]
    assert int((passage & rest).sum()) == 0
    assert (passage | rest).nonzero()[:, 0].tolist() == list(range(11))
    assert tokens[WORLD.answer_span(18)[0]].tolist() == said.answer[0].tolist()


def test_every_arm_starts_from_the_same_weights_and_sees_the_same_dialogues():
    toy = PLANS["smoke"].toy
    silent = lambda _: None  # noqa: E731
    model = learned(toy, WORLD, 0, "cpu", silent)
    before = [weight.clone() for weight in model.parameters()]
    first, again = (tune(model, "vanilla", toy, WORLD, 0, silent) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    marked = tune(model, "marked", toy, WORLD, 0, silent)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), marked.parameters(), strict=True))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    return smoke_run(paper, tmp_path_factory.mktemp("context_awareness"))


def test_every_arm_leaves_what_it_reads_and_remembers(smoke):
    evidence = smoke.evidence
    for arm in (judgement.BEFORE, *ARMS):
        for metric in (judgement.PASSAGE, judgement.MARKED, judgement.MEMORY, judgement.MEMORY_MARKED):
            assert 0 <= evidence.row(arm, metric).mean <= 1
    assert len({(row.arm, row.metric) for row in evidence.rows}) == len(evidence.rows)
    assert evidence.verdict == judgement.verdict(evidence.rows)


def rows(**changed):
    """Rows under which the rule holds, but for the changes."""
    made = []
    for arm in (judgement.BEFORE, *ARMS):
        read = 0.99 if arm == judgement.BEFORE else 0.08
        marked = 0.95 if arm in ("marked", "marked by score") else 0.12
        for metric, usual in ((judgement.PASSAGE, read), (judgement.MARKED, marked), (judgement.MEMORY, 0.999)):
            made.append((arm, metric, usual))
    for span in STEERED["vanilla"]:
        for alpha in ALPHAS:
            usual = {0.95: 0.09, 0.9: 0.1, 0.5: 0.3, 0.2: 0.5}.get(alpha, 0.2) if span == "passage" else 0.05
            made.append((judgement.steered("vanilla", span, alpha), judgement.PASSAGE, usual))
    made.append((judgement.score("passage", "mean", LAYER), "AUROC against memory", 0.95))
    found = {(arm, metric): (usual,) * 3 for arm, metric, usual in made}
    for key, value in changed.pop("cells", {}).items():
        assert key in found
        found[key] = value if isinstance(value, tuple) else (value,) * 3
    return [Row(arm, metric, values) for (arm, metric), values in found.items()]


def failed(made):
    return [number for number, check in enumerate(judgement.checks(made)) if not check.held]


def test_the_rule_holds_where_it_should():
    assert failed(rows()) == []
    assert judgement.verdict(rows()) == "shown"


@pytest.mark.parametrize(
    ("cells", "gates"),
    [
        ({("before tuning", judgement.PASSAGE): 0.9}, [0]),
        ({("vanilla", judgement.PASSAGE): 0.35}, [1, 5, 6]),
        ({("marked", judgement.MARKED): 0.4}, [2]),
        ({("marked at random", judgement.MARKED): 0.4}, [3]),
        ({("marked at random", judgement.MARKED): 0.6}, [2, 3]),
        ({("marked by score", judgement.MEMORY): 0.9}, [4]),
        ({(judgement.steered("vanilla", "passage", 0.5), judgement.PASSAGE): 0.07}, [5]),
        ({(judgement.steered("vanilla", "passage", alpha), judgement.PASSAGE): 0.27 for alpha in (0.5, 0.2)}, [6]),
        ({(judgement.steered("vanilla", "rest", 0.5), judgement.PASSAGE): 0.4}, [6]),
        ({(judgement.score("passage", "mean", LAYER), "AUROC against memory"): (0.99, 0.99, 0.7)}, [7]),
    ],
)
def test_each_gate_can_fail(cells, gates):
    made = rows(cells=cells)
    assert failed(made) == gates
    assert judgement.verdict(made) == "not shown"


def test_it_is_opposite_only_if_random_markers_win_with_every_seed():
    key = ("marked at random", judgement.MARKED)
    assert judgement.verdict(rows(cells={key: 0.99})) == "opposite"
    assert judgement.verdict(rows(cells={key: (0.99, 0.99, 0.5)})) == "not shown"


class Labels:
    """Tokens whose labels go round."""

    def __init__(self, ids):
        self.ids = ids

    def of(self, label):
        return torch.arange(TOKENS) % len(READ) == READ.index(label)


@pytest.fixture
def model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@torch.no_grad()
def test_a_prompt_is_read_once_for_several_answers(model):
    from windeye.hf.attach import attach

    prompt = torch.randint(40, (TOKENS,))
    with attach(model):
        read = Read(model, prompt[:-1])
        plain = model.generate(
            prompt[None], attention_mask=torch.ones_like(prompt[None]), max_new_tokens=5, do_sample=False,
            pad_token_id=0, eos_token_id=None,
        )  # fmt: skip
        assert read.go_on(prompt, 5, None) == plain[0, TOKENS:].tolist()
        with steer(model, [emphasis((torch.arange(TOKENS) < 6)[None], 0.05)]):
            steered = read.go_on(prompt, 5, None)
        assert read.go_on(prompt, 5, None) == plain[0, TOKENS:].tolist()
        assert steered != plain[0, TOKENS:].tolist()
        end = plain[0, TOKENS + 1].item()
        assert read.go_on(prompt, 5, end)[-1] == end
        with pytest.raises(ValueError, match="must begin with the tokens that were read"):
            read.go_on((prompt + 1) % 40, 5, None)


@torch.no_grad()
def test_where_the_last_token_looks_is_its_row_of_the_map(model):
    from windeye.hf.attach import attach

    ids = torch.randint(40, (1, TOKENS))
    model.set_attn_implementation("eager")
    row = model(ids, output_attentions=True).attentions[1][0, :, -1]
    model.set_attn_implementation("sdpa")
    expected = torch.stack([row[:, number :: len(READ)].sum(dim=1) for number in range(len(READ))], dim=1)
    with attach(model):
        found = Read(model, ids[0, :-2]).look(Labels(ids[0]), layer=1)
        torch.testing.assert_close(found, expected)
        spans = torch.stack([Labels(ids[0]).of(label) for label in READ])[None]
        torch.testing.assert_close(allocation(model, ids, spans, layer=1)[0], expected)
    assert sum(shares(expected[0])[label] for label in READ) == pytest.approx(1.0, abs=1e-5)


def test_a_real_chat_model_is_asked_with_its_template_and_without():
    pytest.importorskip("transformers")
    from hf.real import real

    _, tokenizer = real("smollm2-135m-instruct")
    asked = question("A text. " + SANDWICH.sentence, SANDWICH)
    for layout in ("raw", "chat"):
        begun, fresh = (
            label_tokens(prompt(layout, asked, chat_template(tokenizer, generation_prompt=not a), answer=a), tokenizer)
            for a in (SANDWICH.prefix(), "")
        )
        # Behind the raw question two new lines are one token, and two before a word.
        shared = common(begun.ids, fresh.ids)
        assert len(fresh.ids) - shared == (layout == "raw")
        assert tokenizer.decode(begun.ids[begun.of("assistant")]) == SANDWICH.prefix()
        assert tokenizer.decode(fresh.ids[fresh.of("user")]) == asked
        special = set(begun.ids.tolist()) & {tokenizer.bos_token_id, tokenizer.eos_token_id}
        assert bool(special) == (layout == "chat")
