"""Steps over a cache of the best keys equal a pass over the whole sequence, however it is cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windeye
from windeye import Expiry, topw_expiry
from windeye.memory import State, TopwCache


def sequence(n, *, batch=2, heads=2, kv_heads=2, score_heads=2, dim=4, ties=False, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    score = random(batch, score_heads, n)
    return random(batch, n, heads, dim), random(batch, n, kv_heads, dim), random(batch, n, kv_heads, 3), (
        score.round() if ties else score
    )  # fmt: skip


def whole(q, k, v, score, w, *, window=None):
    if score.shape[1] < k.shape[2]:
        score = score.repeat_interleave(k.shape[2] // score.shape[1], dim=1)
    pattern = Expiry(topw_expiry(score.float(), w, window=window))
    return windeye.attend(q, k, v, pattern, bias=score)


def in_steps(tokens, w, cuts, *, window=None):
    q, k, v, score = tokens
    cache = TopwCache.empty(w, k, v, score, window=window)
    outs = []
    for begin, end in zip([0, *cuts], [*cuts, q.shape[1]], strict=True):
        at = slice(begin, end)
        out, cache = cache.step(q[:, at], k[:, at], v[:, at], score[..., at])
        outs.append(out)
        cache.check_integrity()
    return torch.cat(outs, dim=1), cache


@st.composite
def cases(draw):
    kv_heads = draw(st.sampled_from((1, 2)))
    heads = kv_heads * draw(st.sampled_from((1, 2)))
    score_heads = draw(
        st.sampled_from([h for h in (1, 2, 4) if heads % h == 0 and (h % kv_heads == 0 or h < kv_heads)])
    )
    n = draw(st.integers(1, 25))
    cuts = sorted(draw(st.lists(st.integers(1, max(1, n - 1)), max_size=8, unique=True)))
    tokens = sequence(
        n,
        heads=heads,
        kv_heads=kv_heads,
        score_heads=score_heads,
        ties=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
    )
    window = draw(st.sampled_from((None, None, 1, 5, 40)))
    return tokens, draw(st.integers(1, 28)), [c for c in cuts if c < n], window


@given(case=cases())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_every_way_to_cut_a_sequence_gives_the_rows_of_one_pass(case):
    tokens, w, cuts, window = case
    stepped, _ = in_steps(tokens, w, cuts, window=window)
    assert torch.allclose(stepped, whole(*tokens, w, window=window), atol=1e-12)


@given(case=cases(), data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_padding_on_the_right_of_each_step_changes_nothing(case, data):
    """A batch whose sequences get different numbers of tokens at each step; padding holds NaN."""
    (q, k, v, score), w, cuts, window = case
    cache = TopwCache.empty(w, k, v, score, window=window)
    taken, outs = [0, 0], [[], []]
    for new in [*cuts, 3, 1]:
        lengths = [data.draw(st.integers(0, min(new, q.shape[1] - t))) for t in taken]
        padded = []
        for tensor, axis in ((q, 0), (k, 0), (v, 0), (score, 1)):
            rows = []
            for row, start, length in zip(tensor, taken, lengths, strict=True):
                true = row.narrow(axis, start, length)
                shape = list(true.shape)
                shape[axis] = new - length
                rows.append(torch.cat((true, true.new_full(shape, torch.nan)), dim=axis))
            padded.append(torch.stack(rows))
        out, cache = cache.step(*padded, lengths=torch.tensor(lengths))
        cache.check_integrity()
        for row, length in enumerate(lengths):
            outs[row].append(out[row, :length])
            taken[row] += length
    assert cache.seen.tolist() == taken
    for row, n in enumerate(taken):
        alone = (q[row : row + 1, :n], k[row : row + 1, :n], v[row : row + 1, :n], score[row : row + 1, :, :n])
        assert torch.allclose(torch.cat(outs[row]), whole(*alone, w, window=window)[0], atol=1e-12)


def test_scores_that_differ_by_rounding_are_equals():
    q, k, v, score = sequence(40)
    score = score.round()
    noise = 1e-12 * torch.randn(score.shape, dtype=score.dtype)
    for cuts in ([], list(range(1, 40)), [7, 30]):
        _, exact = in_steps((q, k, v, score), 6, cuts)
        _, noisy = in_steps((q, k, v, score + noise), 6, cuts)
        assert torch.equal(noisy.position, exact.position)


def test_a_step_leaves_the_cache_as_it_was():
    q, k, v, score = sequence(30)
    _, cache = in_steps((q[:, :20], k[:, :20], v[:, :20], score[..., :20]), 6, [11])
    before = {name: tensor.clone() for name, tensor in cache.tensors().items()}
    first, _ = cache.step(q[:, 20:21], k[:, 20:21], v[:, 20:21], score[..., 20:21] + 9)
    cache.step(q[:, 20:25], k[:, 20:25], v[:, 20:25], score[..., 20:25])
    assert all(torch.equal(before[name], tensor) for name, tensor in cache.tensors().items())
    again, _ = cache.step(q[:, 20:21], k[:, 20:21], v[:, 20:21], score[..., 20:21] + 9)
    assert torch.equal(first, again)


@torch.no_grad()
def test_a_growing_cache_is_not_copied_and_can_be_continued_twice():
    tokens = sequence(30)
    q, k, v, score = tokens
    _, cache = in_steps((q[:, :20], k[:, :20], v[:, :20], score[..., :20]), 40, [18, 19])
    first = [t[:, 20:21] if t.dim() == 4 else t[..., 20:21] for t in tokens]
    other = [t[:, 21:22] if t.dim() == 4 else t[..., 21:22] for t in tokens]
    out, after = cache.step(*first)
    assert after.key.data_ptr() == cache.key.data_ptr()
    assert torch.allclose(out, whole(q[:, :21], k[:, :21], v[:, :21], score[..., :21], 40)[:, 20:], atol=1e-12)
    _, branch = cache.step(*other)
    assert branch.key.data_ptr() != cache.key.data_ptr()
    again, same = cache.step(*first)
    assert torch.equal(again, out)
    assert all(torch.equal(a, b) for a, b in zip(same.tensors().values(), after.tensors().values(), strict=True))
    assert torch.equal(branch.key[:, :20], cache.key)


def test_a_token_that_no_head_keeps_costs_no_copy():
    q, k, v, score = sequence(9)
    _, cache = in_steps((q, k, v, score), 4, [])
    _, after = cache.step(q[:, :1], k[:, :1], v[:, :1], score[..., :1] - 99)
    assert after.key is cache.key
    assert after.seen.tolist() == [10, 10]


@pytest.mark.parametrize("w", [1, 7, 40])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_token_by_token(w, dtype):
    tokens = sequence(60, ties=True, dtype=dtype)
    stepped, cache = in_steps(tokens, w, list(range(1, 60)))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert torch.allclose(stepped, whole(*tokens, w), atol=tolerance)
    assert cache.seen.tolist() == [60, 60]
    alive = topw_expiry(tokens[3], w) == 60
    for b in range(2):
        for h in range(2):
            assert cache.position[b, :, h].tolist() == alive[b, h].nonzero().flatten().tolist()


def test_the_cache_grows_to_w_places_and_stays():
    q, k, v, score = sequence(200)
    cache = TopwCache.empty(8, k, v, score)
    for begin, end in ((0, 3), (3, 4), (4, 150), (150, 151), (151, 200)):
        at = slice(begin, end)
        _, cache = cache.step(q[:, at], k[:, at], v[:, at], score[..., at])
        assert cache.nbytes == 2 * 2 * min(8, end) * ((4 + 3 + 1) * 8 + 8) + 2 * 8


def test_a_cache_is_a_state():
    assert isinstance(TopwCache.empty(3, *sequence(2)[1:]), State)


def test_gradients_run_through_steps_as_through_one_pass():
    tokens = [t.requires_grad_() for t in sequence(20)]
    out = whole(*tokens, 6)
    weights = torch.randn_like(out)
    expected = torch.autograd.grad((out * weights).sum(), tokens)
    stepped, cache = in_steps(tokens, 6, [9, 10, 11, 15, 19])
    grads = torch.autograd.grad((stepped * weights).sum(), tokens)
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(grads, expected, strict=True))
    assert cache.key.requires_grad
    assert not cache.detach().key.requires_grad


def test_selecting_and_reordering_move_whole_sequences():
    tokens = sequence(30, batch=3)
    past = [t[:, :29] if t.dim() == 4 else t[..., :29] for t in tokens]
    new = [t[:, 29:] if t.dim() == 4 else t[..., 29:] for t in tokens]
    _, cache = in_steps(past, 5, [13])
    expected = whole(*tokens, 5)[:, -1:]
    index = torch.tensor([2, 0, 2, 1])
    chosen = cache.select(index)
    assert torch.allclose(chosen.step(*(t[index] for t in new))[0], expected[index], atol=1e-12)
    assert cache.seen.tolist() == [29] * 3, "a selection is independent"
    index = torch.tensor([1, 1, 0])
    cache.reorder(index)
    assert torch.allclose(cache.step(*(t[index] for t in new))[0], expected[index], atol=1e-12)
    with pytest.raises(ValueError, match=r"3 sequences, got \(2,\)"):
        cache.reorder(torch.tensor([0, 1]))


def test_to_another_type_keeps_positions_and_ranks():
    _, cache = in_steps(sequence(9), 4, [5])
    half = cache.to(dtype=torch.bfloat16)
    assert half.key.dtype == half.value.dtype == torch.bfloat16
    assert torch.equal(half.score, cache.score)
    assert half.position.dtype == half.seen.dtype == torch.int64
    assert torch.equal(half.position, cache.position)
    assert cache.to("meta").key.device.type == "meta"


def test_integrity_notices():
    def broken(change):
        _, cache = in_steps(sequence(9), 4, [5])
        change(cache)
        with pytest.raises(AssertionError):
            cache.check_integrity()

    broken(lambda c: c.position.fill_(99))
    broken(lambda c: c.position.fill_(2))
    broken(lambda c: c.position.copy_(c.position.flip(1)))
    broken(lambda c: c.position[:, 0].fill_(-1))


Q, K, V, S = sequence(4)
CACHE = TopwCache.empty(3, K, V, S)
WRONG = {
    "w zero": (lambda: TopwCache.empty(0, K, V, S), "w must be an integer of at least 1, got 0"),
    "window zero": (lambda: TopwCache.empty(3, K, V, S, window=0), "window must be an integer of at least 1, got 0"),
    "heads that do not divide": (lambda: TopwCache.empty(3, K[:, :, [0, 1, 0]], V, S), "key has 3 heads and score 2"),
    "another batch": (lambda: CACHE.step(Q, K[:1], V, S), "key has batch 1 and dim 4 but the cache has 2 and 4"),
    "another dim": (lambda: CACHE.step(Q, K, V[..., :2], S), "value has batch 2 and dim 2 .* 2 and 3"),
    "other tokens": (lambda: CACHE.step(Q, K, V, S[..., :3]), r"not of the same tokens: .* \(2, 2, 3\)"),
    "other heads": (lambda: CACHE.step(Q, K[:, :, :1], V[:, :, :1], S[:, :1]), "the cache was made for 2"),
    "other queries": (lambda: CACHE.step(Q[:, :1], K, V, S), r"not of the same tokens: \(2, 1, 2, 4\)"),
    "query heads": (lambda: CACHE.step(Q[:, :, :1], K, V, S), "query has 1 heads"),
    "a row": (lambda: CACHE.step(Q[:, 0], K[:, 0], V[:, 0], S), "a step takes query, key and value"),
    "a NaN": (lambda: CACHE.step(Q[:, :1], K[:, :1], V[:, :1], S[..., :1] * torch.nan), "score is NaN"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused_and_change_nothing(name):
    call, words = WRONG[name]
    with pytest.raises(ValueError, match=words):
        call()
    assert not CACHE.seen.any()
    CACHE.check_integrity()
