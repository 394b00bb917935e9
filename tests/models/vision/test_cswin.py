"""CSWin against a plain network that reads the official names, written from its description."""

import torch
import torch.nn.functional as F

from windeye.models.vision import cswin
from windeye.models.vision.cswin import WEIGHTS

DIM, DEPTHS, HEADS, STRIPES = 8, (1, 2, 1), (2, 4, 4), (1, 2, None)


def norm(x, weights, name):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def conv(x, weights, name, **options):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def stripe_attention(query, key, value, weights, name, heads):
    """One stripe [batch, rows, columns, channels]: attention and the convolution of values inside it."""
    batch, rows, columns, channels = query.shape
    near = conv(value.permute(0, 3, 1, 2), weights, name, padding=1, groups=channels).permute(0, 2, 3, 1)
    query, key, value = (t.reshape(batch, rows * columns, heads, -1).transpose(1, 2) for t in (query, key, value))
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    mixed = (logits.softmax(-1) @ value).transpose(1, 2).reshape(batch, rows, columns, channels)
    return mixed + near


def attention(x, weights, name, heads, stripe):
    height, width, channels = x.shape[1:]
    query, key, value = linear(x, weights, f"{name}.qkv").chunk(3, dim=-1)
    if stripe is None:
        out = stripe_attention(query, key, value, weights, f"{name}.attns.0.get_v", heads)
        return linear(out, weights, f"{name}.proj")
    out, half = torch.empty_like(x), channels // 2
    for start in range(0, width, stripe):
        at = (slice(None), slice(None), slice(start, start + stripe), slice(None, half))
        out[at] = stripe_attention(query[at], key[at], value[at], weights, f"{name}.attns.0.get_v", heads // 2)
    for start in range(0, height, stripe):
        at = (slice(None), slice(start, start + stripe), slice(None), slice(half, None))
        out[at] = stripe_attention(query[at], key[at], value[at], weights, f"{name}.attns.1.get_v", heads // 2)
    return linear(out, weights, f"{name}.proj")


def network(images, weights):
    x = conv(images, weights, "stage1_conv_embed.0", stride=4, padding=2).permute(0, 2, 3, 1)
    x = norm(x, weights, "stage1_conv_embed.2")
    for stage, (depth, heads, stripe) in enumerate(zip(DEPTHS, HEADS, STRIPES, strict=True), start=1):
        if stage > 1:
            x = conv(x.permute(0, 3, 1, 2), weights, f"merge{stage - 1}.conv", stride=2, padding=1).permute(0, 2, 3, 1)
            x = norm(x, weights, f"merge{stage - 1}.norm")
        for block in range(depth):
            name = f"stage{stage}.{block}"
            x = x + attention(norm(x, weights, f"{name}.norm1"), weights, name, heads, stripe)
            hidden = F.gelu(linear(norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1"))
            x = x + linear(hidden, weights, f"{name}.mlp.fc2")
    return linear(norm(x, weights, "norm").mean(dim=(1, 2)), weights, "head")


def test_the_model_is_the_plain_network_on_the_same_official_weights():
    model = cswin(DIM, DEPTHS, HEADS, stripes=STRIPES, num_classes=5).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    weights = WEIGHTS.export(model)
    images = torch.randn(2, 3, 48, 64, dtype=torch.float64, requires_grad=True)
    ours, theirs = model(images), network(images, weights)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    cotangent = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * cotangent).sum(), images)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
