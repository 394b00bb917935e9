"""Every pool as its published text has it, one batch entry at a time: keys and values of all tokens, maps of weights.

``pooled[kind](pool, x)`` reads a pool's weights and gives [out_dim] for tokens [tokens, dim], in evaluation mode.
"""

import torch
import torch.nn.functional as F


def attention(query, key, value, heads):
    """One query [inner] over keys and values [tokens, inner], each head on its own channels."""
    found = []
    for q, k, v in zip(query.chunk(heads), key.chunk(heads, dim=1), value.chunk(heads, dim=1), strict=True):
        logits = torch.stack([(q * row).sum() for row in k]) / len(q) ** 0.5
        found.append(logits.softmax(0) @ v)
    return torch.cat(found)


def self_attention(layer, x):
    query, key, value = layer.qkv(x).chunk(3, dim=1)
    return layer.proj(torch.stack([attention(row, key, value, layer.heads) for row in query]))


def normed(norm, x):
    """Batch norm by its running statistics."""
    out = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    return out * norm.weight + norm.bias if norm.affine else out


def ep(pool, x):
    values = pool.value(x).chunk(len(pool.queries), dim=1)
    maps = (x @ pool.queries.T / x.shape[1] ** 0.5).softmax(0)
    return torch.cat([maps[:, j] @ v for j, v in enumerate(values)])


def cross_attention(pool, x):
    query = pool.query if pool.query_proj is None else pool.query_proj(pool.query)
    out = attention(query[0], *pool.kv_proj(x).chunk(2, dim=1), pool.heads)
    return out if pool.out_proj is None else pool.out_proj(out)


def simpool(pool, x):
    n = pool.norm(x)
    return attention(pool.query(x.mean(0)), pool.key(n), n, heads=1)


def esimpool(pool, x):
    return attention(pool.norm(x.mean(0)), pool.norm(x), x, pool.heads)


def abmilp(pool, x):
    y = x if pool.attention is None else self_attention(pool.attention, x)
    return pool.score(torch.tanh(pool.hidden(y)))[:, 0].softmax(0) @ y


def clip(pool, x):
    n = pool.norm(x)
    y = torch.cat([n.mean(0, keepdim=True), n]) + pool.positions
    query, key, value = pool.qkv(y).chunk(3, dim=1)
    return pool.proj(attention(query[0], key, value, pool.heads))


def siglip(pool, x):
    z = pool.proj(attention(pool.query(pool.latent)[0], *pool.kv(x).chunk(2, dim=1), pool.heads))
    return z + pool.feed_forward.fc2(F.gelu(pool.feed_forward.fc1(z)))


def aim(pool, x):
    n = normed(pool.norm, x)
    return attention(pool.query[0], pool.key(n), pool.value(n), pool.heads)


def coca(pool, x):
    key, value = pool.kv(x).chunk(2, dim=1)
    query = pool.query(pool.norm(pool.queries))[0]
    return pool.proj(torch.cat([attention(q, key, value, heads=1) for q in query.chunk(pool.heads)]))


def cait(pool, x):
    y = pool.norm1(torch.cat([pool.token, x]))
    query, key, value = pool.qkv(y).chunk(3, dim=1)
    z = pool.token[0] + pool.scale1 * pool.proj(attention(query[0], key, value, pool.heads))
    return pool.norm(z + pool.scale2 * pool.feed_forward.fc2(F.gelu(pool.feed_forward.fc1(pool.norm2(z)))))


def cae(pool, x):
    query, key, value = pool.query(pool.norm_q(pool.token))[0], pool.key(pool.norm_k(x)), pool.value(pool.norm_v(x))
    return pool.proj(attention(query, key, value, pool.heads))


def jepa(pool, x):
    out = attention(pool.query(pool.token)[0], *pool.kv(pool.norm1(x)).chunk(2, dim=1), pool.heads)
    z = pool.token[0] + pool.proj(out)
    return z + pool.feed_forward.fc2(F.gelu(pool.feed_forward.fc1(pool.norm2(z))))


def dinovit(pool, x):
    z = x + self_attention(pool.attention, pool.norm1(x))
    return (z + pool.feed_forward.fc2(F.gelu(pool.feed_forward.fc1(pool.norm2(z))))).mean(0)


def cbam(pool, x):
    """Of a square map."""
    side = round(len(x) ** 0.5)
    mean, maximum = (pool.grow.weight @ (pool.shrink.weight @ v).relu() for v in (x.mean(0), x.amax(0)))
    gated = x * (mean + maximum).sigmoid()
    said = F.pad(torch.stack([gated.mean(1), gated.amax(1)]).view(2, side, side), (3, 3, 3, 3))
    around = [(said[:, i : i + 7, j : j + 7] * pool.conv.weight[0]).sum() for i in range(side) for j in range(side)]
    places = normed(pool.norm, torch.stack(around)[:, None]).sigmoid()
    return (x + gated * places).relu().mean(0)


def dolg(pool, x):
    y = normed(pool.norm, pool.proj(x))
    scores = F.softplus(pool.score(y.relu()))
    return (scores * y / y.norm(dim=1, keepdim=True)).mean(0)


LEARNED = (
    ep, cross_attention, simpool, esimpool, abmilp, clip, siglip, aim, coca, cait, cae, jepa, dinovit, cbam, dolg,
)  # fmt: skip
pooled = {
    "average": lambda _, x: x.mean(0),
    "class_token": lambda _, x: x[0],
    "mean_max": lambda _, x: torch.cat([x.mean(0), x.amax(0)]),
    **{pool.__name__: pool for pool in LEARNED},
}
