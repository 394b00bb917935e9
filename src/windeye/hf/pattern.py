"""Another attention pattern for a pretrained model: what it saw before, and what the pattern shows of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from windeye.kernels.statistics.relation import Masked, Relation, Runs, seen_at_all
from windeye.ops import attend
from windeye.patterns import Causal, Pattern


def attend_pattern(
    pattern: Pattern, query: Tensor, key: Tensor, value: Tensor, relation: Relation, pads: Sequence[int],
    key_start: int, *, causal: bool, scale: float,
) -> Tensor:  # fmt: skip
    """Attention over what both the relation and the pattern show, heads last but one.

    Where the relation is the whole past behind some padding, `windeye.attend` runs the pattern as it is, without a
    mask, once for each length of padding; single queries and other relations take torch's attention with a mask.

    Args:
        relation: what each query saw before.
        pads: padding in front of each sequence, in tokens; the pattern counts from there.
        key_start: position of the first key at hand.
    """
    queries, keys = query.shape[1], key.shape[1]
    if not (causal and 1 < queries == keys and _is_whole_past(relation, pads)):
        shown = relation_of_pattern(pattern, relation, pads, key_start, causal=causal)
        return _masked(query, key, value, shown.visible(slice(0, queries)), scale)
    if pattern.tables:
        _refuse_padding(pattern, pads)
        return attend(query, key, value, pattern & Causal(), scale=scale)
    out = query.new_zeros(*query.shape[:3], value.shape[3])
    for pad in sorted(set(pads)):
        rows = [row for row, p in enumerate(pads) if p == pad]
        if pad < keys:
            q, k, v = (t[rows, pad:] for t in (query, key, value))
            out[rows, pad:] = attend(q, k, v, pattern & Causal(), scale=scale)
    return out


def relation_of_pattern(
    pattern: Pattern, relation: Relation, pads: Sequence[int], key_start: int, *, causal: bool
) -> Relation:
    """What both show: see `attend_pattern`.

    Raises:
        ValueError: a pattern that depends on data, and padding in front of a sequence: its tensor counts from there.
    """
    before = relation.visible(slice(0, relation.queries))
    if pattern.tables:
        _refuse_padding(pattern, pads)
        sequence = ((relation.queries,), (key_start + relation.keys,))
        shown = _causal(pattern, causal).bind(*sequence).mask()[..., key_start:].to(before.device)
        return Masked(shown & before, relation.offset)
    both = before.expand(len(pads), -1, -1, -1).clone()
    passed = key_start + relation.offset + relation.queries
    for pad in sorted(set(pads)):
        length = passed - pad
        rows = min(relation.queries, length)
        shown = torch.zeros(relation.queries, key_start + relation.keys, dtype=torch.bool, device=both.device)
        if rows > 0:
            tail = _causal(pattern, causal).bind((rows,), (length,)).mask()
            shown[relation.queries - rows :, pad:passed] = tail.to(both.device)
        both[torch.tensor(pads, device=both.device) == pad] &= shown[:, key_start:]
    if both.shape[1] == 1:
        return Runs.of_mask(both[:, 0], relation.offset)
    return Masked(both, relation.offset)


def padding_before(relation: Relation, batch: int) -> list[int]:
    """Keys in front of each sequence that no query sees."""
    pads: list[int] = seen_at_all(relation).int().argmax(dim=-1).expand(batch).tolist()
    return pads


def _refuse_padding(pattern: Pattern, pads: Sequence[int]) -> None:
    if any(pads):
        raise ValueError(
            f"{pattern!r} holds a tensor for whole sequences, but there is padding in front of some: {pads}"
        )


def _causal(pattern: Pattern, causal: bool) -> Pattern:
    return pattern & Causal() if causal else pattern


def _is_whole_past(relation: Relation, pads: Sequence[int]) -> bool:
    """Whether every token sees all tokens up to itself, and nothing else."""
    if not isinstance(relation, Runs) or relation.start.shape[1] != 1:
        return False
    place = torch.arange(relation.queries, device=relation.start.device)
    pad = torch.tensor(pads, device=place.device)[:, None]
    whole = (relation.start[:, 0] == pad) & (relation.stop[:, 0] == place + 1)
    return bool((whole | (place < pad)).all())


def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    seen = mask.any(dim=-1, keepdim=True)
    return out.masked_fill(~seen, 0.0).transpose(1, 2)
