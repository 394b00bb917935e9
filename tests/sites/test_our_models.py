"""Watching, recording and steering our decoders equals the same done by hand on whole maps."""

import pytest
import torch

import windeye
from oracles.attention import spread_bias
from windeye.models import transformer
from windeye.sites import (
    Add,
    Hide,
    KeyBias,
    Keys,
    Patch,
    Rescore,
    Scale,
    ScoreBoost,
    Set,
    SetAttention,
    Where,
    record,
    steer,
    watch,
)  # fmt: skip


def small(window=None, kv_heads=2, layers=3):
    torch.manual_seed(0)
    model = transformer(layers, 32, 4, vocab_size=40, window=window, kv_heads=kv_heads).double().eval()
    for parameter in model.parameters():
        parameter.data *= 6  # maps that are far from even
    return model


def ids(batch=2, n=11, seed=1):
    return torch.randint(40, (batch, n), generator=torch.Generator().manual_seed(seed))


def as_it_is(_layer, tensor):
    return tensor


def by_hand(model, tokens, change=as_it_is, z_change=as_it_is):
    """The decoder written out with whole maps: logits of the model, and the map of each layer."""
    x = model.embedding(tokens)
    maps = []
    for layer, block in enumerate(model.blocks):
        mixer = block.mixer
        query, key, value = mixer.project(block.mixer_norm(x), torch.arange(tokens.shape[1])[None])
        key, value = (t.repeat_interleave(mixer.heads // mixer.kv_heads, dim=2) for t in (key, value))
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key) * mixer.head_dim**-0.5
        mask = mixer.pattern.bind((tokens.shape[1],)).mask()
        logits = change(layer, logits.masked_fill(~mask, -torch.inf))
        maps.append(torch.softmax(logits, dim=-1))
        z = z_change(layer, torch.einsum("bhqk,bkhd->bqhd", maps[-1], value))
        x = x + mixer.out_proj(z.flatten(2))
        x = x + block.channel_mixer(block.channel_norm(x))
    return model.logits(model.norm(x)), maps


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("window", [None, 4])
def test_watching_equals_whole_maps_and_changes_nothing(window):
    model, tokens = small(window), ids()
    plain = model(tokens)
    with watch(model, {"H": "entropy", "far": windeye.MeanDistance(), "got": "column_sum"}) as seen:
        watched = model(tokens)
    assert torch.equal(plain, watched)
    logits, maps = by_hand(model, tokens)
    close(watched, logits)
    close(seen["H"], torch.stack([torch.special.entr(m).sum(-1).transpose(1, 2) for m in maps]))
    close(seen["got", 1], maps[1].sum(2).transpose(1, 2))
    back = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    close(seen["far", 2], (maps[2] * back).sum(-1).transpose(1, 2))


@pytest.mark.parametrize("window", [None, 4])
def test_passes_that_continue_each_other_are_one(window):
    model, tokens = small(window), ids()
    stats = {"H": "entropy", "got": "column_sum", "mean": "column_mean", "fai": windeye.FutureInfluence(1, 3)}
    rows = torch.rand(2, 11, generator=torch.Generator().manual_seed(0)) < 0.6
    with watch(model, stats, rows=rows) as whole:
        model(tokens)
    with watch(model, stats, rows=rows) as pieces, record(model, ["k", "z", "resid_mid"]) as kept:
        _, state = model(tokens[:, :5], return_state=True)
        for t in range(5, 11):
            _, state = model(tokens[:, t : t + 1], state=state, return_state=True)
    for name in stats:
        close(pieces[name], whole[name])
    with record(model, ["k", "z", "resid_mid"]) as at_once:
        model(tokens)
    for site in ("k", "z", "resid_mid"):
        close(kept[site], at_once[site])


def test_batches_with_padding_equal_single_sequences():
    model, tokens = small(), ids()
    padding = torch.zeros(2, 11, dtype=torch.bool)
    padding[1, :4] = True
    with watch(model, ["entropy", "column_sum", "sink_mass"]) as seen:
        model(tokens, padding=padding)
    with watch(model, ["entropy", "column_sum", "sink_mass"]) as alone:
        model(tokens[1:, 4:])
    for name in ("entropy", "sink_mass"):
        close(seen[name][:, 1:, :7], alone[name])
    with watch(model, ["column_sum"], rows=torch.arange(11)[None] < torch.tensor([[11], [7]])) as seen:
        model(tokens, padding=padding)
    close(seen["column_sum"][:, 1:, :7], alone["column_sum"])


def masked(layers=None, heads=None, rows=None):
    """True where an edit of by_hand acts: [layer][batch 1, heads, rows, 1]."""

    def of(layer):
        mask = torch.ones(1, 4, 11, 1, dtype=torch.bool)
        if layers is not None and layer not in layers:
            mask[:] = False
        if heads is not None:
            chosen = torch.zeros(4, dtype=torch.bool)
            chosen[list(heads)] = True
            mask &= chosen[:, None, None]
        if rows is not None:
            chosen = torch.zeros(11, dtype=torch.bool)
            chosen[list(rows)] = True
            mask &= chosen[:, None]
        return mask

    return of


COLUMNS = torch.zeros(11, dtype=torch.bool).index_fill_(0, torch.tensor([2, 3, 6]), True)
KEYS = Keys((((2, 4), (6, 7)),))
SCORE_EDITS = {
    "key bias": (lambda where: KeyBias(1.3, KEYS, where=where), lambda s: torch.where(COLUMNS, s + 1.3, s)),
    "outside": (
        lambda where: KeyBias(-0.7, Keys(KEYS.ranges, outside=True), where=where),
        lambda s: torch.where(COLUMNS, s, s - 0.7),
    ),
    "boost": (
        lambda where: ScoreBoost(0.4, KEYS, where=where),
        lambda s: torch.where(COLUMNS & (s > -torch.inf), s + 0.4 * s.abs(), s),
    ),
    "hide": (lambda where: Hide(KEYS, where=where), lambda s: s.masked_fill(COLUMNS, -torch.inf)),
    "set": (
        lambda where: SetAttention({0: 1.0, 1: 3.0}, where=where),
        lambda s: torch.tensor([0.25, 0.75, *[0.0] * 9], dtype=s.dtype).log().expand_as(s),
    ),
    "any": (lambda where: Rescore(lambda s: 0.5 * s, where=where), lambda s: 0.5 * s),
}
PLACES = {
    "everywhere": (Where(), masked()),
    "last row": (Where(rows="last"), masked(rows=[10])),
    "some heads of a layer": (Where(layers=(1,), heads=(0, 3)), masked([1], [0, 3])),
    "rows": (Where(rows=Keys.at(4, 5, 9)), masked(rows=[4, 5, 9])),
    "heads by layer": (Where(heads={0: (2,), 2: (2,)}, rows=Keys.span(3, 11)), masked([0, 2], [2], range(3, 11))),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", SCORE_EDITS)
def test_edits_of_scores_equal_whole_maps(name, place):
    model, tokens = small(), ids()
    make, change = SCORE_EDITS[name]
    where, mask = PLACES[place]
    truth, maps = by_hand(model, tokens, lambda layer, s: torch.where(mask(layer), change(s), s))
    with steer(model, [make(where)]), watch(model, ["participation"]) as seen:
        edited = model(tokens)
    close(edited, truth)
    close(seen["participation"], torch.stack([m.square().sum(-1).transpose(1, 2) for m in maps]))
    assert not torch.allclose(edited, model(tokens))


def test_edits_compose_in_order():
    model, tokens = small(), ids()
    edits = [ScoreBoost(0.5, KEYS), KeyBias(1.0, KEYS), Scale("z", 0.3, where=Where(layers=(1,), heads=(1,)))]

    def change(_, s):
        s = torch.where(COLUMNS & (s > -torch.inf), s + 0.5 * s.abs(), s)
        return torch.where(COLUMNS, s + 1.0, s)

    def gain(layer, z):
        return z * torch.tensor([1, 0.3, 1, 1], dtype=z.dtype)[:, None] if layer == 1 else z

    truth, _ = by_hand(model, tokens, change, gain)
    with steer(model, edits):
        close(model(tokens), truth)
    with steer(model, edits[:1]), steer(model, edits[1:2]), steer(model, edits[2:]):
        close(model(tokens), truth)


def test_steering_is_the_same_step_by_step():
    model, tokens = small(), ids()
    edits = [
        KeyBias(1.1, Keys.span(0, 3)),
        Scale("z", 0.0, where=Where(heads={1: (0,)}, rows=Keys.span(6, 9))),
        Add("resid_pre", 0.2, where=Where(layers=(0, 2), rows=Keys.at(2, 8))),
        Add("embed", 0.1, where=Where(rows=Keys.at(7))),
    ]
    with steer(model, edits):
        whole = model(tokens)
        logits, state = model(tokens[:, :4], return_state=True)
        parts = [logits]
        for t in range(4, 11):
            logits, state = model(tokens[:, t : t + 1], state=state, return_state=True)
            parts.append(logits)
    close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize(
    "edit",
    [
        KeyBias(0.0, KEYS),
        ScoreBoost(0.0, KEYS, where=Where(rows="last")),
        Hide(Keys.at(500)),
        Scale("z", 1.0),
        Add("resid_post", 0.0),
    ],
    ids=lambda edit: edit.kind,
)
def test_edits_that_change_nothing_change_not_a_bit(edit):
    model, tokens = small(), ids()
    plain = model(tokens)
    with steer(model, [edit]):
        assert torch.equal(model(tokens), plain)


def test_without_sessions_and_after_them_everything_is_bit_equal():
    model, tokens = small(), ids()
    plain = model(tokens)
    with pytest.raises(RuntimeError, match="inside"), steer(model, [Scale("z", 0.0)]), watch(model, ["entropy"]):
        raise RuntimeError("inside")
    assert torch.equal(model(tokens), plain)
    assert not model._forward_pre_hooks
    assert not any(m._forward_hooks for m in model.modules())
    session = steer(model, [Scale("z", 0.5)])
    with session:
        once = model(tokens)
        with session:
            assert torch.equal(model(tokens), once)  # open twice is open
        assert torch.equal(model(tokens), once)
    assert torch.equal(model(tokens), plain)


def test_patching_all_of_a_site_gives_the_other_run():
    model, clean, other = small(), ids(seed=1), ids(seed=2)
    with record(model, ["z", "resid_post", "resid_pre"]) as recording:
        truth = model(other)
    with steer(model, [Patch("resid_post", recording, where=Where(layers=(1,)))]):
        close(model(clean), truth)
    with steer(model, [Patch("z", recording, where=Where(layers=(0,), heads=(2,), rows=Keys.at(4)))]):
        patched = model(clean)
    changed = (patched - model(clean)).abs().amax(dim=(0, 2)) > 1e-12
    assert changed.tolist() == [False] * 4 + [True] * 7  # causality
    with record(model, ["z"]) as own:
        plain = model(clean)
    with steer(model, [Patch("z", own)]):
        assert torch.equal(model(clean), plain)
    with steer(model, [Patch("z", own, mean="batch and tokens", where=Where(layers=(0,)))]):
        mean = model(clean)
    averages = own["z", 0].mean(dim=(0, 1), keepdim=True)
    truth, _ = by_hand(model, clean, z_change=lambda layer, z: averages.expand_as(z) if layer == 0 else z)
    close(mean, truth)


def test_recordings_are_saved_and_loaded(tmp_path):
    model, tokens = small(), ids()
    with record(model, ["z", "logits"], layers=[0, 2]) as recording:
        model(tokens)
    recording.save(tmp_path / "run.safetensors")
    again = type(recording).load(model, tmp_path / "run.safetensors")
    assert torch.equal(again["z"], recording["z"])
    assert torch.equal(again["logits"], recording["logits"])
    assert again.layers == (0, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: steer(m, [Scale("zz", 0.0)]), "there is no site 'zz'; sites are q, k, v, z"),
        (
            lambda m: steer(m, [Scale("z", 0.0, where=Where(layers=(7,)))]),
            r"edits\[0\] \(scale\) names layer 7; the model has layers 0 to 2",
        ),
        (lambda m: steer(m, [Scale("z", 0.0, where=Where(heads=(4,)))]), "names head 4; a layer has heads 0 to 3"),
        (lambda m: steer(m, [Scale("mlp_out", 0.0, where=Where(heads=(1,)))]), "'mlp_out' has no heads"),
        (lambda m: steer(m, [Set("logits", 0.0, where=Where(layers=(1,)))]), "site 'logits' is the model's"),
        (lambda m: steer(m, Scale("z", 0.0)), "edits must be a list"),
        (
            lambda m: steer(m, [Set("z", 0.0), Set("z", 1.0, where=Where(layers=(1,)))]),
            "set and set both replace 'z' in layer 1",
        ),
        (lambda m: steer(m, [SetAttention({1: 1.0}), SetAttention({2: 1.0})]), "both replace 'scores' in layer 0"),
        (lambda m: steer(m, [SetAttention({1: -1.0})]), "weights must not be negative"),
        (lambda m: watch(m, ["entropy"], layers=[3]), "layers names layer 3; the model has layers 0 to 2"),
        (lambda m: record(m, ["zz"]), "there is no site 'zz'"),
        (lambda m: record(m, "z"), "sites must be a list of names"),
        (lambda _: Where(rows="first"), 'rows must be "all", "last" or Keys'),
        (lambda _: Where(layers=(1,), heads={1: (0,)}), "heads names layers already"),
        (lambda _: Keys.span(4, 4), "0 <= start < stop"),
        (lambda _: steer(torch.nn.Linear(2, 2), []), "no attention of Linear can be reached"),
    ],
)  # fmt: skip
def test_wrong_sessions_say_what_there_is(make, message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        make(small())


def test_wrong_use_of_sessions_says_what_is_wrong():
    model, tokens = small(), ids()
    with steer(model, [SetAttention({30: 1.0})]), pytest.raises(ValueError, match=r"set_attention names.*\[30\]"):
        model(tokens)
    with steer(model, [KeyBias(1.0, Keys((((0, 1),),) * 3))]), pytest.raises(ValueError, match="3 sequences"):
        model(tokens)
    with watch(model, ["entropy"]) as seen:
        pass
    with pytest.raises(KeyError, match="no pass ran"):
        seen["entropy"]
    with record(model, ["z"]) as recording:
        model(tokens[:, :4])
    with steer(model, [Patch("z", recording)]), pytest.raises(ValueError, match="the recording has 4 tokens"):
        model(tokens)


def test_layers_on_grids_are_sites():
    torch.manual_seed(0)
    layer = windeye.nn.NeighborhoodAttention2d(16, num_heads=2, kernel_size=3).double()
    x = torch.randn(2, 4, 5, 16, dtype=torch.float64)
    plain = layer(x)
    with watch(layer, ["entropy"]) as seen, record(layer, ["q", "k", "z"]) as kept:
        assert torch.equal(layer(x), plain)
    mask = layer.pattern.bind((4, 5)).mask()
    logits = torch.einsum("bqhd,bkhd->bhqk", kept["q", 0], kept["k", 0]) * layer.head_dim**-0.5
    maps = torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=-1)
    close(seen["entropy", 0], torch.special.entr(maps).sum(-1).transpose(1, 2))
    with steer(layer, [Scale("z", 0.0)]):
        close(layer(x), layer.proj.bias.expand_as(x))
    with_table = windeye.nn.NeighborhoodAttention2d(16, num_heads=2, kernel_size=3, bias_table=True).double()
    with watch(with_table, ["entropy"]) as seen, record(with_table, ["q", "k"]) as kept:
        with_table(x)
    logits = torch.einsum("bqhd,bkhd->bhqk", kept["q", 0], kept["k", 0]) * layer.head_dim**-0.5
    logits = logits + spread_bias(with_table.rpb, (4, 5), (1, 1))
    maps = torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=-1)
    close(seen["entropy", 0], torch.special.entr(maps).sum(-1).transpose(1, 2))
    with steer(with_table, [Scale("z", 0.0)]):
        close(with_table(x), with_table.proj.bias.expand_as(x))
