"""Perturbations of scores: their length, their direction, what they are made of, and the loss that they make."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from windeye.nn.perturbation import (
    RULES,
    Adversarial,
    PerturbedLoss,
    Random,
    ReleasedDifferences,
    ScoreDifferences,
    WordDirections,
    attack,
    frequency_normalised,
)
from windeye.nn.perturbation.loss import gradient_at

ragged = st.tuples(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(0, 999))


def problem(lengths, seed=0, dtype=torch.float64):
    """Scores of a ragged batch, which of them are real, and a loss behind their softmax."""
    torch.manual_seed(seed)
    n = max(lengths)
    real = torch.arange(n) < torch.tensor(lengths)[:, None]
    values = torch.randn(len(lengths), n, 3, dtype=dtype)
    labels = torch.randint(0, 3, (len(lengths),))

    def loss(scores):
        weights = scores.masked_fill(~real, -math.inf).softmax(-1)
        return F.cross_entropy(torch.einsum("bn,bnc->bc", weights, values), labels)

    return torch.randn(len(lengths), n, dtype=dtype, requires_grad=True), real, loss


def step_of(rule, scores, real, loss):
    return rule.step(scores, gradient_at(scores, loss(scores)), real)


@settings(max_examples=40, deadline=None)
@given(ragged, st.sampled_from(["random", "adversarial", "iat_sentence", "iat_batch"]), st.floats(0, 50))
def test_a_step_is_as_long_as_its_radius_and_leaves_padding_alone(case, name, radius):
    lengths, seed = case
    scores, real, loss = problem(lengths, seed)
    step = step_of(RULES[name](radius), scores, real, loss)
    assert not step.requires_grad
    assert step[~real].eq(0).all()
    for length, row in zip(lengths, step, strict=True):
        # One token has all the attention whatever its score: no gradient, no difference, no step.
        expected = 0.0 if length == 1 and name != "random" else radius
        assert row.norm().item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(ragged)
def test_gradient_and_step_sum_to_zero_over_real_tokens(case):
    """A softmax does not change when all scores grow alike."""
    scores, real, loss = problem(*case)
    gradient = gradient_at(scores, loss(scores))
    assert gradient.sum(1).abs().max() < 1e-12
    assert step_of(Adversarial(3.0), scores, real, loss).sum(1).abs().max() < 1e-10


def by_coefficients(scores, real, loss, radius, scaled_by):
    """The worst coefficients of score differences by automatic differentiation, pair by pair."""
    batch, n = scores.shape
    pairs = real[:, :, None] & real[:, None]
    d = (scores[:, :, None] - scores[:, None]).detach() * pairs
    if scaled_by == "row":
        norm = d.norm(dim=2, keepdim=True)
    else:
        norm = d.abs().amax((1, 2), keepdim=True)
    d = torch.where(norm > 0, d / norm, 0)
    b = torch.zeros(batch, n, n, dtype=scores.dtype, requires_grad=True)
    (g,) = torch.autograd.grad(loss(scores + (b * d).sum(2)), b)
    size = g.flatten(1).norm(dim=1).view(-1, 1, 1)
    return (torch.where(size > 0, radius * g / size, 0) * d).sum(2)


@settings(max_examples=40, deadline=None)
@given(ragged, st.sampled_from(["row", "sentence"]))
def test_score_differences_are_the_worst_coefficients_in_closed_form(case, scaled_by):
    scores, real, loss = problem(*case)
    step = step_of(ScoreDifferences(2.5, scaled_by), scores, real, loss)
    torch.testing.assert_close(step, by_coefficients(scores, real, loss, 2.5, scaled_by), atol=1e-10, rtol=1e-8)


def test_differences_scaled_by_row_are_the_adversarial_step():
    scores, real, loss = problem([8, 5, 2])
    torch.testing.assert_close(
        step_of(ScoreDifferences(4.0), scores, real, loss), step_of(Adversarial(4.0), scores, real, loss)
    )
    assert not torch.allclose(
        step_of(ScoreDifferences(4.0, "sentence"), scores, real, loss), step_of(Adversarial(4.0), scores, real, loss)
    )


@pytest.mark.parametrize("scaled_by", ["row", "sentence"])
def test_equal_scores_have_no_differences(scaled_by):
    scores, real, loss = problem([8, 5, 2])
    level = torch.full_like(scores, 0.1).requires_grad_()
    assert step_of(ScoreDifferences(4.0, scaled_by), level, real, loss).eq(0).all()
    # What stands at padding is no difference.
    level = torch.where(real, level, 7.0).detach().requires_grad_()
    assert step_of(ScoreDifferences(4.0, scaled_by), level, real, loss).eq(0).all()


def test_the_released_differences_are_minus_the_adversarial_step():
    scores, real, loss = problem([8, 5, 2])
    same = torch.equal(
        step_of(ReleasedDifferences(4.0), scores, real, loss), -step_of(Adversarial(4.0), scores, real, loss)
    )
    assert same


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999))
def test_no_direction_of_a_small_length_raises_the_loss_more(seed):
    scores, real, loss = problem([7, 4], seed)
    radius = 1e-4
    gradient = gradient_at(scores, loss(scores))
    raised = loss(scores + Adversarial(radius).step(scores, gradient, real)) - loss(scores)
    # To first order each text's share of the mean loss rises by radius times the length of its gradient.
    assert raised.item() == pytest.approx(radius * gradient.norm(dim=1).sum().item(), rel=1e-2)
    for _ in range(20):
        assert loss(scores + Random(radius).step(scores, None, real)) - loss(scores) <= raised + 1e-9


def test_directions_of_tiny_gradients_are_kept_and_none_is_invented():
    tiny = torch.tensor([[3e-30, -4e-30, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(Adversarial(5.0).step(tiny, tiny), torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]]))


class TestPerturbedLoss:
    def test_parameters_get_the_gradient_of_both_terms_with_a_constant_step(self):
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 1).double()
        tokens, (_, real, loss) = torch.randn(3, 6, 5, dtype=torch.float64), problem([6, 4, 2])
        terms = PerturbedLoss(Adversarial(2.0), weight=0.7)(loss, layer(tokens)[..., 0], real)
        terms.total.backward()
        scores = layer(tokens)[..., 0]
        by_hand = loss(scores) + 0.7 * loss(scores + terms.step)
        for parameter, expected in zip(
            layer.parameters(), torch.autograd.grad(by_hand, [*layer.parameters()]), strict=True
        ):
            torch.testing.assert_close(parameter.grad, expected)
        torch.testing.assert_close(terms.total, by_hand)

    def test_taking_the_gradient_leaves_parameters_untouched(self):
        layer = torch.nn.Linear(5, 1).double()
        _, real, loss = problem([6, 4, 2])
        PerturbedLoss(Adversarial(2.0))(loss, layer(torch.randn(3, 6, 5, dtype=torch.float64))[..., 0], real)
        assert all(parameter.grad is None for parameter in layer.parameters())

    @pytest.mark.parametrize("name", RULES)
    def test_a_radius_of_zero_counts_the_loss_twice(self, name):
        scores, real, loss = problem([6, 4, 2])
        terms = PerturbedLoss(RULES[name](0.0), weight=0.5)(loss, scores, real)
        torch.testing.assert_close(terms.total, 1.5 * loss(scores))
        torch.testing.assert_close(gradient_at(scores, terms.total), 1.5 * gradient_at(scores, loss(scores)))

    @pytest.mark.parametrize("off", [lambda p: p.eval(), lambda p: setattr(p, "weight", 0.0)])
    def test_weight_zero_and_evaluation_are_plain_training_to_the_bit(self, off):
        scores, real, loss = problem([6, 4, 2])
        calls = []

        def counted(s):
            calls.append(1)
            return loss(s)

        perturbed = PerturbedLoss(Random(5.0))
        off(perturbed)
        before = torch.get_rng_state()
        terms = perturbed(counted, scores, real)
        assert torch.equal(terms.total, loss(scores))
        assert terms.perturbed is None
        assert terms.step is None
        assert calls == [1]
        assert torch.equal(torch.get_rng_state(), before)

    def test_evaluation_works_without_a_graph(self):
        scores, real, loss = problem([6, 4, 2])
        with torch.no_grad():
            assert torch.equal(PerturbedLoss(Adversarial(5.0)).eval()(loss, scores, real).total, loss(scores))

    @pytest.mark.parametrize("name", ["adversarial", "iat_sentence", "iat_norm_free"])
    def test_a_ragged_batch_is_its_texts_one_at_a_time(self, name):
        lengths = [7, 1, 4]
        scores, real, _ = problem(lengths)
        values = torch.randn(3, 7, dtype=torch.float64)

        def loss(s, rows=slice(None), n=7):
            weights = s.masked_fill(~real[rows, :n], -math.inf).softmax(-1)
            return F.softplus((weights * values[rows, :n]).sum(-1)).sum()

        together = PerturbedLoss(RULES[name](3.0))(loss, scores, real)
        for row, n in enumerate(lengths):
            rows = slice(row, row + 1)
            alone = PerturbedLoss(RULES[name](3.0))(
                lambda s, rows=rows, n=n: loss(s, rows, n), scores[rows, :n], real[rows, :n]
            )
            torch.testing.assert_close(together.step[rows, :n], alone.step, rtol=1e-6, atol=1e-9)

    def test_one_text_whose_gradient_vanishes_does_not_disturb_the_others(self):
        scores, real, loss = problem([1, 5])
        terms = PerturbedLoss(Adversarial(2.0))(loss, scores, real)
        assert terms.step[0].eq(0).all()
        assert terms.step[1].norm().item() == pytest.approx(2.0)
        terms.total.backward()
        assert scores.grad.isfinite().all()


class TestMultiHead:
    BATCH, HEADS, N, DIM = 2, 3, 5, 4

    def made(self, seed=0):
        torch.manual_seed(seed)
        q, k, v = (torch.randn(self.BATCH, self.HEADS, self.N, self.DIM, dtype=torch.float64) for _ in range(3))
        readout = torch.randn(self.HEADS * self.DIM, dtype=torch.float64)

        def answered(out):
            return F.softplus(out.transpose(1, 2).flatten(2).mean(1) @ readout).mean()

        def eager(scores):
            return answered(scores.softmax(-1) @ v)

        def fused(bias):
            return answered(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))

        scores = (q @ k.mT / math.sqrt(self.DIM)).requires_grad_()
        return scores, eager, torch.zeros_like(scores).requires_grad_(), fused

    def test_a_fused_kernel_is_perturbed_through_its_bias(self):
        scores, eager, bias, fused = self.made()
        ours, plain = PerturbedLoss(Adversarial(2.0))(fused, bias), PerturbedLoss(Adversarial(2.0))(eager, scores)
        torch.testing.assert_close(ours.step, plain.step)
        torch.testing.assert_close(ours.total, plain.total)

    @pytest.mark.parametrize("where", ["head", "row"])
    def test_one_head_or_one_query_moves_alone(self, where):
        scores, eager, _, _ = self.made()
        movable = torch.zeros(1, self.HEADS, self.N, 1, dtype=torch.bool)
        if where == "head":
            movable[:, 1] = True
        else:
            movable[:, :, 0] = True
        terms = PerturbedLoss(Adversarial(2.0))(eager, scores, movable)
        assert terms.step.masked_fill(movable, 0).eq(0).all()
        torch.testing.assert_close(terms.step.flatten(1).norm(dim=1), torch.full((self.BATCH,), 2.0).double())
        gradient = gradient_at(scores, eager(scores)).masked_fill(~movable, 0)
        cosine = F.cosine_similarity(terms.step.flatten(1), gradient.flatten(1))
        torch.testing.assert_close(cosine, torch.ones_like(cosine))

    @pytest.mark.parametrize("scaled_by", ["row", "sentence"])
    def test_differences_are_taken_within_rows(self, scaled_by):
        scores, eager, _, _ = self.made()
        gradient = gradient_at(scores, eager(scores))
        d = (scores[..., :, None] - scores[..., None, :]).detach()
        if scaled_by == "row":
            d = d / d.norm(dim=-1, keepdim=True)
        else:
            d = d / d.abs().flatten(1).amax(1).view(-1, 1, 1, 1, 1)
        g = gradient[..., None] * d
        b = 2.0 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        torch.testing.assert_close(ScoreDifferences(2.0, scaled_by).step(scores, gradient), (b * d).sum(-1))


class TestAttack:
    def test_one_step_is_the_adversarial_step(self):
        scores, real, loss = problem([7, 4, 1])
        expected = step_of(Adversarial(3.0), scores, real, loss)
        torch.testing.assert_close(attack(loss, scores, 3.0, movable=real), expected)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 999), st.floats(0.1, 10))
    def test_ten_steps_stay_in_the_ball_and_find_no_less_where_the_ball_is_small(self, seed, radius):
        scores, real, loss = problem([7, 4, 3], seed)
        ten = attack(loss, scores, radius, movable=real, steps=10)
        assert ten.norm(dim=1).max() <= radius * (1 + 1e-9)
        assert ten[~real].eq(0).all()
        small = 1e-2
        one, ten = (loss(scores + attack(loss, scores, small, movable=real, steps=steps)) for steps in (1, 10))
        assert ten >= one - 1e-6

    def test_radii_may_differ_by_text(self):
        scores, real, loss = problem([7, 4, 3])
        radii = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64)
        torch.testing.assert_close(attack(loss, scores, radii, movable=real).norm(dim=1), radii)

    def test_it_leaves_parameters_alone_and_needs_no_graph_of_its_own(self):
        layer = torch.nn.Linear(4, 2)
        scores = torch.randn(3, 4)
        with torch.no_grad():
            step = attack(lambda s: layer(s.softmax(-1))[:, 0].sum(), scores, 1.0)
        assert step.norm(dim=1).allclose(torch.ones(3))
        assert layer.weight.grad is None
        assert not step.requires_grad


class TestWords:
    def test_word_directions_are_the_worst_coefficients(self):
        torch.manual_seed(1)
        words = torch.randn(6, 4, dtype=torch.float64)
        tokens = torch.tensor([[0, 3, 2], [5, 1, 1]])
        real = torch.tensor([[True, True, True], [True, True, False]])
        places = words[tokens].requires_grad_()
        readout = torch.randn(3, 4, dtype=torch.float64)

        def loss(x):
            return F.softplus((x.tanh() * readout * real[..., None]).sum((1, 2))).mean()

        d = words - places.detach()[:, :, None]
        norm = d.norm(dim=-1, keepdim=True)
        d = torch.where(norm > 0, d / norm, 0)
        b = torch.zeros(2, 3, 6, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(loss(places + (b[..., None] * d).sum(2)), b)
        expected = (5.0 * g / g.flatten(1).norm(dim=1).view(-1, 1, 1))[..., None] * d
        step = WordDirections(5.0, words).step(places, gradient_at(places, loss(places)), real[..., None])
        torch.testing.assert_close(step, expected.sum(2))
        assert step[1, 2].eq(0).all()

    def test_word_at_is_the_adversarial_step_of_embeddings(self):
        embeddings = torch.randn(2, 3, 4, requires_grad=True)
        real = torch.tensor([[True, True, True], [True, False, False]])[..., None]
        terms = PerturbedLoss(Adversarial(3.0))(lambda x: (x * real).square().sum(), embeddings, real)
        torch.testing.assert_close(terms.step.flatten(1).norm(dim=1), torch.full((2,), 3.0))
        assert terms.step[1, 1:].eq(0).all()

    def test_embeddings_are_normalised_as_often_as_words_occur(self):
        table, counts = torch.randn(5, 3, dtype=torch.float64) * 4 + 2, torch.tensor([0, 1, 7, 2, 5])
        text = frequency_normalised(table, counts).repeat_interleave(counts, dim=0)
        torch.testing.assert_close(text.mean(0), torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(text.var(0, correction=0), torch.ones(3, dtype=torch.float64))
        assert torch.autograd.gradcheck(lambda t: frequency_normalised(t, counts), table.requires_grad_())


S = torch.zeros(2, 3, requires_grad=True)


def squares(s):
    return s.square().sum()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda r=rule: r(-1.0), "radius must be at least 0 and finite, got -1.0") for rule in RULES.values()),
        (lambda: Adversarial(math.nan), "radius must be at least 0 and finite, got nan"),
        (lambda: Adversarial("2"), "radius must be a number, got '2'"),
        (lambda: ScoreDifferences(1.0, "batch"), 'scaled_by must be "row" or "sentence"'),
        (lambda: Adversarial(1.0).step(S, None), "gradient is None, but this rule follows"),
        (lambda: PerturbedLoss(Adversarial(1.0), weight=-1.0), "weight must be at least 0 and finite, got -1.0"),
        (
            lambda: PerturbedLoss(Adversarial(1.0))(squares, S.detach()),
            "scores are not part of a graph.*make them with requires_grad",
        ),
        (
            lambda: torch.no_grad()(PerturbedLoss(Adversarial(1.0)))(squares, S.detach()),
            "scores are not part of a graph.*do not train under torch.no_grad",
        ),
        (lambda: torch.no_grad()(PerturbedLoss(Adversarial(1.0)))(squares, S), "loss does not depend on the scores"),
        (lambda: PerturbedLoss(Adversarial(1.0))(lambda _: torch.ones(()), S), "loss does not depend on the scores"),
        (
            lambda: PerturbedLoss(Adversarial(1.0))(lambda s: s.sum(1), S),
            r"loss must give one number, got shape \(2,\)",
        ),
        (lambda: PerturbedLoss(Adversarial(1.0))(squares, S[0]), r"scores must be \[batch, ...\] .* got shape \(3,\)"),
        (lambda: PerturbedLoss(Adversarial(1.0))(squares, S, torch.ones(2, 3)), "movable must be boolean"),
        (
            lambda: PerturbedLoss(Adversarial(1.0))(squares, S, torch.ones(3, 2, dtype=torch.bool)),
            r"movable \(3, 2\) does not spread over scores \(2, 3\)",
        ),
        (lambda: attack(squares, S, -2.0), "radius must be at least 0 and finite, got -2.0"),
        (lambda: attack(squares, S, 2.0, steps=0), "steps must be at least 1, got 0"),
        (lambda: attack(lambda _: torch.ones(()), S, 2.0), "loss does not depend on the scores"),
        (lambda: frequency_normalised(torch.ones(3, 2), torch.ones(2)), r"counts must be one per word \[3\]"),
        (lambda: frequency_normalised(torch.ones(2, 2), torch.zeros(2)), "not all zero"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
