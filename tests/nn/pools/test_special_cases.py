"""What efficient probing is at its ends, what it is of cross-attention, and that its attention can be watched."""

import pytest
import torch

from windeye.nn.pools import CrossAttentionPool, EfficientPool, Reading, create_pool
from windeye.sites import watch

DIM = 24
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def tokens(batch=2, count=7):
    return torch.randn(batch, count, DIM, dtype=torch.float64)


def pool_of(queries, **settings):
    pool = EfficientPool(DIM, queries, **settings).double()
    torch.nn.init.normal_(pool.queries)
    return pool


def test_a_query_of_zeros_is_the_mean_of_the_values():
    pool, x = pool_of(1), tokens()
    torch.nn.init.zeros_(pool.queries)
    torch.testing.assert_close(pool(x), pool.value(x).mean(dim=1), **EXACT)


def test_one_query_is_single_head_attention_without_a_map_of_keys():
    pool, x = pool_of(1), tokens()
    expected = torch.nn.functional.scaled_dot_product_attention(pool.queries.expand(2, 1, DIM), x, pool.value(x))
    torch.testing.assert_close(pool(x), expected[:, 0], **EXACT)


def test_as_many_queries_as_channels_weigh_each_channel_by_itself():
    pool, x = pool_of(DIM), tokens()
    weights = (x @ pool.queries.T / DIM**0.5).softmax(dim=1)
    torch.testing.assert_close(pool(x), (weights * pool.value(x)).sum(dim=1), **EXACT)


@pytest.mark.parametrize("heads", [1, 4, 6])
def test_it_is_cross_attention_of_one_query_whose_keys_are_folded_into_the_query(heads):
    theirs = CrossAttentionPool(DIM, heads, out_proj=False).double()
    torch.nn.init.normal_(theirs.query)
    ours = EfficientPool(DIM, heads).double()
    query = theirs.query_proj(theirs.query)[0].unflatten(0, (heads, -1))
    of_key, of_value = theirs.kv_proj.weight.chunk(2)
    with torch.no_grad():
        for head, rows in enumerate(of_key.chunk(heads)):
            ours.queries[head] = (DIM / theirs.head_dim) ** 0.5 * query[head] @ rows
        ours.value.weight.copy_(of_value)
    x = tokens()
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)
    torch.testing.assert_close(ours.maps(x), theirs.maps(x), **EXACT)


def test_a_constant_added_to_all_tokens_shifts_the_result_by_its_value_and_no_weight():
    pool, x, constant = pool_of(4), tokens(), torch.randn(DIM, dtype=torch.float64)
    torch.testing.assert_close(pool(x + constant), pool(x) + pool.value(constant), **EXACT)
    torch.testing.assert_close(pool.maps(x + constant), pool.maps(x), **EXACT)


def test_maps_are_the_weights_of_the_slices():
    pool, x = pool_of(3, reduction=2), tokens()
    slices = pool.value(x).unflatten(-1, (3, -1))
    torch.testing.assert_close(pool(x), torch.einsum("bmn,bnmw->bmw", pool.maps(x), slices).flatten(1), **EXACT)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"queries": 5}, r"queries 5 must divide the 24 channels .*; 1, 2, 3, 4, 6, 8, 12, 24 do"),
        ({"queries": 8, "reduction": 2}, r"queries 8 must divide the 12 channels"),
        ({"queries": 1, "reduction": 5}, "reduction 5 must divide dim 24"),
        ({"queries": 0}, "queries must be at least 1"),
    ],
)
def test_slices_that_do_not_come_out_even_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        EfficientPool(DIM, **settings)


def test_clip_says_how_many_tokens_it_has_positions_for():
    with pytest.raises(ValueError, match=r"positions for 4 tokens, got 7; build it with tokens=7"):
        create_pool("clip", DIM, heads=4, tokens=4)(torch.randn(2, 7, DIM))


def test_cbam_wants_a_square_or_a_map():
    with pytest.raises(ValueError, match="7 tokens fill no square"):
        create_pool("cbam", DIM)(torch.randn(2, 7, DIM))


def test_unknown_pools_and_names_taken_twice_are_refused():
    with pytest.raises(ValueError, match=r"unknown pool 'max'; known are abmilp, .*ep, "):
        create_pool("max", DIM)
    from windeye.nn.pools import token_pool

    with pytest.raises(ValueError, match="'ep' is registered twice"):
        token_pool("ep")(EfficientPool)


def test_heads_in_groups_share_keys():
    """Four heads over two rows of keys: each pair sees the same keys, and maps tell the weights of what is found."""
    query = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    key, value = torch.randn(2, 7, 2, 5, dtype=torch.float64), torch.randn(2, 7, 2, 6, dtype=torch.float64)
    reading = Reading(query, key, value, 0.7)
    spread = [t.repeat_interleave(2, dim=2).transpose(1, 2) for t in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query.transpose(1, 2), *spread, scale=0.7)
    torch.testing.assert_close(reading.found(torch.nn.Identity()), expected.transpose(1, 2), **EXACT)
    maps = reading.maps().unflatten(1, (3, 4))
    torch.testing.assert_close(torch.einsum("bqhn,bhnd->bqhd", maps, spread[1]), expected.transpose(1, 2), **EXACT)


@pytest.mark.parametrize("kind", ["ep", "esimpool", "jepa"])
def test_sessions_see_what_a_pool_attends_to(kind):
    settings = {"ep": {"queries": 4}, "esimpool": {"heads": 4}, "jepa": {"heads": 4}}
    pool, x = create_pool(kind, DIM, **settings[kind]).double(), tokens()
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    with watch(pool, ["entropy"]) as seen:
        out = pool(x, padding)
    torch.testing.assert_close(out, pool(x, padding), **EXACT)
    torch.testing.assert_close(seen["entropy", 0][:, 0], torch.special.entr(pool.maps(x, padding)).sum(dim=2))
