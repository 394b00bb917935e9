"""Where two mixers are the same thing, they are; and layouts are only layouts."""

import pytest
import torch
from torch.nn import functional as F

from windeye.nn.mixers import FullMixer, NeighborhoodMixer, SpatialReductionMixer, StripeMixer, WindowMixer
from windeye.nn.mixers.layouts import as_nchw, as_sequence

EXACT = {"rtol": 1e-10, "atol": 1e-11}
DIM, HEADS = 12, 2


def a_map(*size):
    return torch.randn(2, *size, DIM, dtype=torch.float64)


def full():
    return FullMixer(DIM, HEADS).double()


def given(mixer, other):
    """With the projections of another mixer."""
    mixer = mixer.double()
    mixer.load_state_dict(other.state_dict(), strict=False)
    return mixer


@pytest.mark.parametrize("options", [{"window": 7}, {"window": 9}, {"window": (9, 7), "pad_input": True}])
def test_a_window_as_large_as_the_map_is_full_attention(options):
    reference, x = full(), a_map(7, 7)
    mixer = given(WindowMixer(DIM, HEADS, **options, bias_table=False), reference)
    torch.testing.assert_close(mixer(x), reference(x), **EXACT)


def test_a_neighbourhood_as_large_as_the_map_is_full_attention():
    reference, x = full(), a_map(5, 7)
    mixer = NeighborhoodMixer(DIM, HEADS, (5, 7), bias_table=False).double()
    mixer.layer.load_state_dict(reference.state_dict())
    torch.testing.assert_close(mixer(x), reference(x), **EXACT)


def test_a_neighbourhood_with_the_stride_of_its_window_is_windowed_attention():
    mixer, x = WindowMixer(DIM, HEADS, (2, 3)).double(), a_map(4, 6)
    strided = NeighborhoodMixer(DIM, HEADS, (2, 3), stride=(2, 3)).double()
    weights = mixer.state_dict()
    weights["rpb"] = weights.pop("bias_table")
    strided.layer.load_state_dict(weights)
    torch.testing.assert_close(strided(x), mixer(x), **EXACT)


def test_a_dilated_neighbourhood_is_a_plain_one_on_every_residue():
    dilated, x = NeighborhoodMixer(DIM, HEADS, 3, dilation=2).double(), a_map(8, 6)
    plain = NeighborhoodMixer(DIM, HEADS, 3).double()
    plain.load_state_dict(dilated.state_dict())
    whole = dilated(x)
    for y in (0, 1):
        for z in (0, 1):
            torch.testing.assert_close(whole[:, y::2, z::2], plain(x[:, y::2, z::2]), **EXACT)


def test_reduction_by_one_is_full_attention():
    reference, x = full(), a_map(4, 5)
    mixer = SpatialReductionMixer(DIM, HEADS, 1).double()
    weights = reference.state_dict()
    for kind in ("weight", "bias"):
        joint = weights.pop(f"qkv.{kind}")
        weights[f"query.{kind}"], weights[f"key_value.{kind}"] = joint[:DIM], joint[DIM:]
    mixer.load_state_dict(weights)
    torch.testing.assert_close(mixer(x), reference(x), **EXACT)


@pytest.mark.parametrize("stripe", [None, 7, 20])
def test_stripes_as_wide_as_the_map_are_full_attention_and_the_convolution_of_values(stripe):
    reference, x = full(), a_map(6, 7)
    mixer = given(StripeMixer(DIM, HEADS, stripe), reference)
    torch.testing.assert_close(mixer.attention(x), reference.attention(x), **EXACT)
    value = mixer.qkv(x).chunk(3, dim=-1)[2].permute(0, 3, 1, 2)
    parts = zip(mixer.local, value.chunk(len(mixer.local), dim=1), strict=True)
    near = torch.cat([conv(part) for conv, part in parts], dim=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(mixer(x), mixer.proj(reference.attention(x).flatten(-2) + near), **EXACT)


def test_the_convolution_of_values_does_not_leave_its_stripe():
    mixer, x = StripeMixer(DIM, HEADS, 3).double(), a_map(7, 8)
    value = mixer.qkv(x).chunk(3, dim=-1)[2]
    near = torch.zeros_like(value)
    half = DIM // 2
    for start in range(0, 8, 3):
        columns = slice(start, min(start + 3, 8))
        inside = value[:, :, columns, :half].permute(0, 3, 1, 2)
        near[:, :, columns, :half] = mixer.local[0](inside).permute(0, 2, 3, 1)
    for start in range(0, 7, 3):
        rows = slice(start, min(start + 3, 7))
        inside = value[:, rows, :, half:].permute(0, 3, 1, 2)
        near[:, rows, :, half:] = mixer.local[1](inside).permute(0, 2, 3, 1)
    torch.testing.assert_close(mixer(x), mixer.proj(mixer.attention(x).flatten(-2) + near), **EXACT)


def test_swin_shifts_by_rolling_the_map_and_masking_what_met_at_the_seam():
    """Swin as it is written elsewhere: roll, cut, mask between nine regions, roll back."""
    window, shift, height, width = 4, 2, 8, 12
    mixer, x = WindowMixer(DIM, HEADS, window, shift=shift).double(), a_map(height, width)
    region = torch.zeros(height, width)
    bands = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate([(r, c) for r in bands for c in bands]):
        region[rows, columns] = number

    def cut(t):
        return t.unflatten(0, (height // window, window)).unflatten(2, (width // window, window)).transpose(1, 2)

    rolled = x.roll((-shift, -shift), dims=(1, 2))
    out = torch.empty(2, height, width, HEADS, DIM // HEADS, dtype=torch.float64)
    for b in range(2):
        windows = cut(mixer.qkv(rolled[b])).flatten(2, 3).flatten(0, 1)
        query, key, value = windows.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        labels = cut(region).flatten(2, 3).flatten(0, 1)
        apart = torch.where(labels[:, None, :, None] == labels[:, None, None, :], 0.0, -100.0).double()
        steps = torch.arange(window)
        step = (steps[None] - steps[:, None]) + window - 1
        table = mixer.bias_table[:, step[:, None, :, None], step[None, :, None, :]].flatten(3, 4).flatten(1, 2)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=table[None] + apart)
        grid = (height // window, width // window, HEADS, window, window, -1)
        mixed = mixed.reshape(*grid).permute(0, 3, 1, 4, 2, 5)
        out[b] = mixed.reshape(height, width, HEADS, -1)
    torch.testing.assert_close(mixer.attention(x), out.roll((shift, shift), dims=(1, 2)), **EXACT)


def test_layouts_are_only_layouts():
    mixer, x = WindowMixer(DIM, HEADS, 3).double(), a_map(5, 8)
    assert torch.equal(as_nchw(mixer)(x.permute(0, 3, 1, 2)), mixer(x).permute(0, 3, 1, 2))
    assert torch.equal(as_sequence(mixer)(x.flatten(1, 2), 5, 8), mixer(x).flatten(1, 2))
    with pytest.raises(ValueError, match="40 tokens but a map of 5 x 7 has 35"):
        as_sequence(mixer)(x.flatten(1, 2), 5, 7)


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: WindowMixer(12, 5), ValueError, "dim 12 must be a multiple of heads 5"),
        (lambda: WindowMixer(12, 2, 4, shift=4), ValueError, r"shift \(4, 4\) must be smaller than window \(4, 4\)"),
        (lambda: WindowMixer(12, 2, 0), ValueError, "window"),
        (lambda: FullMixer(12, 2, attn_drop=1.0), ValueError, r"attn_drop must be in \[0, 1\), got 1.0"),
        (lambda: FullMixer(12, 2, proj_drop="a"), TypeError, "proj_drop must be a number"),
        (lambda: SpatialReductionMixer(12, 2, 0), ValueError, "ratio must be at least 1, got 0"),
        (lambda: StripeMixer(9, 3), ValueError, "heads must be even, half for each direction, got 3"),
        (lambda: StripeMixer(12, 2, 0), ValueError, "stripe must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_bad_options_are_named(build, error, match):
    with pytest.raises(error, match=match):
        build()
