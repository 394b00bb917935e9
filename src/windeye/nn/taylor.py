"""Taylor linear attention: softmax attention with the exponential cut off after its square (Based)."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from windeye.kernels.recurrence.features import width
from windeye.memory import RecurrentState, State
from windeye.nn.mixer import SequenceMixer, check_count, check_divides, expect, seen_after
from windeye.ops import linear_attention


class TaylorLinearAttention(SequenceMixer):
    """``out_i = sum_{j<=i} w(u_ij) v_j / sum_{j<=i} w(u_ij)`` with ``w(u) = 1 + u + u^2 / 2`` and
    ``u = <q, k> / sqrt(feature_dim)``, per head; no biases, no decay, no positions.

    The weight is at least 1/2 for every ``u``: outputs lie in the convex hull of past values. The state holds the sums
    of ``phi(k) v^T`` and of ``phi(k)``, with each product of two coordinates once: ``1 + f + f (f + 1) / 2`` features.

    Args:
        dim: channels in and out.
        heads: attention heads.
        feature_dim: width ``f`` of a head's query and key.
        head_dim: width of a head's value, default ``dim / heads``.

    Raises:
        ValueError, TypeError: sizes do not fit.

    Source: based spec; equal to the official layer, see tests/nn/test_based_layers.py.

    Example:
        >>> import torch
        >>> layer = TaylorLinearAttention(32, heads=4, feature_dim=8)
        >>> layer(torch.randn(2, 50, 32)).shape, layer.state_bytes(50) == layer.state_bytes(5000)
        (torch.Size([2, 50, 32]), True)
    """

    def __init__(self, dim: int, heads: int, feature_dim: int = 16, *, head_dim: int | None = None) -> None:
        super().__init__(dim)
        self.heads, self.feature_dim = check_count("heads", heads), check_count("feature_dim", feature_dim)
        self.head_dim = check_divides(heads, dim, "dim") if head_dim is None else check_count("head_dim", head_dim)
        self.q_proj = nn.Linear(dim, heads * feature_dim, bias=False)
        self.k_proj = nn.Linear(dim, heads * feature_dim, bias=False)
        self.v_proj = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.out_proj = nn.Linear(heads * self.head_dim, dim, bias=False)

    def mix(
        self, x: Float[Tensor, "batch n dim"], lengths: Int[Tensor, " batch"] | None, state: State | None
    ) -> tuple[Float[Tensor, "batch n dim"], RecurrentState]:
        past = expect(state, RecurrentState)
        query, key, value = (p(x).unflatten(-1, (self.heads, -1)) for p in (self.q_proj, self.k_proj, self.v_proj))
        # Half of the scale on either side, so that states are those of the official code.
        scale = self.feature_dim**-0.25
        out, matrix = linear_attention(
            query * scale, key * scale, value, feature_map="taylor2", normalize=True, lengths=lengths,
            initial_state=None if past is None else past.matrix, return_state=True,
        )  # fmt: skip
        return self.out_proj(out.flatten(-2)), RecurrentState(seen_after(x, lengths, past), matrix)

    def state_bytes(self, n: int) -> int:  # noqa: ARG002 - constant, which is the point
        """``4 heads features (head_dim + 1)`` in float32."""
        return self.heads * width("taylor2", self.feature_dim) * (self.head_dim + 1) * max(4, self.itemsize)

    def extra_repr(self) -> str:
        return f"{self.dim}, heads={self.heads}, feature_dim={self.feature_dim}, head_dim={self.head_dim}"
