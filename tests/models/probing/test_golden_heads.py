"""Heads against numbers from the official code, and their weights under official names."""

import json
from pathlib import Path

import pytest
import torch

from golden import EXACT, load, under
from windeye.models.probing import ProbeHead, export_head, head_map, load_head
from windeye.models.probing.weights import RULES
from windeye.nn.pools import create_pool

GOLDEN = Path(__file__).parents[2] / "golden" / "efficient-probing"
CASES = {
    "ep_m4_eval": ("ep", {"queries": 4}),
    "ep_m3_dout2_train": ("ep", {"queries": 3, "reduction": 2}),
    "ep_all_m8_slice1": ("ep", {"queries": 8}),
    "simpool": ("simpool", {}),
    "abmilp": ("abmilp", {}),
    "aim_train": ("aim", {"heads": 4}),
    "jepa": ("jepa", {"heads": 4}),
}


def head_of(case, dtype=torch.float64):
    meta, numbers = load("efficient-probing", case)
    kind, settings = CASES[case]
    head = ProbeHead(create_pool(kind, meta["dim"], **settings), meta["classes"]).to(dtype)
    weights = {f"head.{name}": tensor for name, tensor in under("weight.", numbers).items()}
    load_head(head, weights)
    return head.train("training" in meta["mode"]), weights, numbers


def official(head, tensors):
    """Tensors by our names, under official names."""
    names = head_map(head)
    out = {}
    for ours, tensor in tensors.items():
        rule = names.rule(ours)
        out |= dict(zip(rule.names, rule.to_theirs(tensor), strict=True))
    return out


@pytest.mark.parametrize("case", CASES)
def test_a_head_is_the_official_one_with_all_its_gradients(case):
    head, _, numbers = head_of(case)
    x = numbers["input.x"].requires_grad_()
    pooled = []
    head.pool.register_forward_hook(lambda _module, _inputs, out: pooled.append(out.detach()))
    logits = head(x)
    torch.testing.assert_close(pooled[0], numbers["output.pooled"], **EXACT)
    torch.testing.assert_close(logits, numbers["output.logits"], **EXACT)
    (logits * numbers["cotangent.logits"]).sum().backward()
    torch.testing.assert_close(x.grad, numbers["grad_input.x"], **EXACT)
    ours = official(head, {name: p.grad for name, p in head.named_parameters()})
    theirs = under("grad_weight.", numbers)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], **EXACT)
    for name, after in under("output.after.", numbers).items():
        torch.testing.assert_close(official(head, dict(head.named_buffers()))[name], after, **EXACT)


@pytest.mark.parametrize("case", CASES)
def test_in_float32_a_head_agrees_to_single_precision(case):
    head, _, numbers = head_of(case, torch.float32)
    logits, expected = head(numbers["input.x"].float()), numbers["output.logits"]
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_official_weights_make_the_round_trip_bit_by_bit(case):
    head, weights, _ = head_of(case)
    exported = export_head(head)
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], weights[name]) for name in weights)


MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
VARIANTS = {
    **{f"{kind}_d768_c1000": (kind, {}) for kind in RULES},
    "ep_d768_dout2": ("ep", {"reduction": 2}),
    "ep_d768_dout4": ("ep", {"reduction": 4}),
    "ep_d768_dout8": ("ep", {"reduction": 8}),
    "ep_dit_d1152_m128": ("ep", {"queries": 128}),
    "linear_d768": ("average", {}),
}


def test_every_head_of_the_manifest_is_known():
    assert VARIANTS.keys() == MANIFEST.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_head_has_the_official_tensors_and_parameters(variant):
    entry, (kind, settings) = MANIFEST[variant], VARIANTS[variant]
    with torch.device("meta"):
        head = ProbeHead(create_pool(kind, 1152 if "d1152" in variant else 768, **settings), classes=1000)
    shapes = {name.removeprefix("head."): list(tensor.shape) for name, tensor in export_head(head).items()}
    assert shapes == entry["state_dict"]
    assert sum(p.numel() for p in head.parameters()) == entry["parameters"]


@pytest.mark.parametrize("kind", [*RULES, "average"])
def test_heads_of_every_kind_make_the_round_trip_bit_by_bit(kind):
    heads = [ProbeHead(create_pool(kind, 192), classes=3) for _ in range(2)]
    weights = {
        name: torch.randn_like(tensor.float()).to(tensor.dtype) for name, tensor in heads[0].state_dict().items()
    }
    heads[0].load_state_dict(weights)
    report = load_head(heads[1], export_head(heads[0]))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in heads[1].state_dict().items())
    assert len(report.loaded) + len(report.dropped) == len(export_head(heads[0]))


def test_a_head_is_found_in_a_whole_checkpoint():
    head = ProbeHead(create_pool("ep", 8, queries=2), classes=3)
    fresh = ProbeHead(create_pool("ep", 8, queries=2), classes=3)
    load_head(fresh, {"blocks.0.norm1.weight": torch.ones(8)} | export_head(head))
    assert torch.equal(fresh.pool.queries, head.pool.queries)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_a_head_is_read_from_the_files_that_training_and_release_leave(tmp_path, wrapper):
    head, fresh = (ProbeHead(create_pool("ep", 8, queries=2), classes=3) for _ in range(2))
    others = {"meta": {"model": "vit", "ep_queries": 2}, "epoch": 89}
    torch.save({wrapper: export_head(head)} | others, tmp_path / "ep_head.pth")
    load_head(fresh, tmp_path / "ep_head.pth")
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), fresh.parameters(), strict=True))


def test_nan_is_refused_by_name():
    head = ProbeHead(create_pool("ep", 8, queries=2), classes=3)
    weights = export_head(head)
    weights["head.0.v.weight"][0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN in head\.0\.v\.weight"):
        load_head(ProbeHead(create_pool("ep", 8, queries=2), classes=3), weights)


def test_the_head_of_another_pool_is_refused_with_all_that_is_wrong():
    weights = export_head(ProbeHead(create_pool("ep", 8, queries=2), classes=3))
    with pytest.raises(ValueError, match=r"missing 0\.wq\.weight[\s\S]*unexpected 0\.cls_token"):
        load_head(ProbeHead(create_pool("simpool", 8), classes=3), weights)


def test_pools_of_our_own_have_no_official_names():
    with pytest.raises(ValueError, match="'cross_attention' has no official names"):
        head_map(ProbeHead(create_pool("cross_attention", 8, heads=2), classes=3))
