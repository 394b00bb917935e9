"""Tensors of a forward pass, kept by site and layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from windeye.sites.call import AttentionCall
from windeye.sites.session import CALL_SITES, SITES, STREAM_SITES, Session


class Recording(Session):
    """What stood at some sites in the passes that ran while this was open.

    ``recording[site]`` is [layers, batch, tokens, ...] (without layers for "embed" and "logits"); ``recording[site,
    layer]`` one of them. Passes that continue each other, as in generation, are joined along the tokens.

    Example:
        >>> from windeye.models import transformer
        >>> model = transformer(layers=2, dim=32, heads=4, vocab_size=50)
        >>> with record(model, ["z", "resid_post"]) as recording:
        ...     logits = model(torch.arange(6)[None])
        >>> recording["z"].shape, recording["resid_post", 1].shape
        (torch.Size([2, 1, 6, 4, 8]), torch.Size([1, 6, 32]))
    """

    def __init__(self, model: nn.Module, sites: Sequence[str], layers: Iterable[int] | None = None) -> None:
        super().__init__(model)
        check_sites(sites)
        self.layers = self.parts.chosen(layers)
        self.sites = tuple(sites)
        self.path: Path | None = None
        """The file that this was saved to or loaded from."""
        self._kept: dict[tuple[str, int], list[Tensor]] = {}

    def stream_sites(self) -> Iterable[tuple[str, int]]:
        for site in self.sites:
            if site in STREAM_SITES:
                yield from ((site, layer) for layer in self.layers)
            elif site not in CALL_SITES:
                yield site, 0

    def at(self, site: str, layer: int, tensor: Tensor) -> Tensor:
        if layer in self.layers or site not in STREAM_SITES:
            self._keep(site, layer, tensor)
        return tensor

    def output(self, layer: int, call: AttentionCall, out: Tensor) -> Tensor:
        if layer in self.layers:
            tensors = {"q": call.query, "z": out}
            if "k" in self.sites or "v" in self.sites:
                own = slice(call.relation.offset, call.relation.offset + call.query.shape[1])
                tensors |= {"k": call.key[:, own], "v": call.value[:, own]}
            for site in self.sites:
                if site in tensors:
                    self._keep(site, layer, tensors[site])
        return out

    def clear(self) -> None:
        """Forget all passes."""
        self._kept.clear()

    def __getitem__(self, place: str | tuple[str, int]) -> Float[Tensor, "*layers batch tokens *rest"]:
        site, layer = place if isinstance(place, tuple) else (place, None)
        if site not in self.sites:
            raise KeyError(f"site {site!r} was not recorded; there are {', '.join(self.sites)}")
        if site in SITES and site not in CALL_SITES + STREAM_SITES:
            return self._of(site, 0)
        if layer is None:
            return torch.stack([self._of(site, layer) for layer in self.layers])
        if layer not in self.layers:
            raise KeyError(f"layer {layer} was not recorded; there are {', '.join(map(str, self.layers))}")
        return self._of(site, layer)

    def save(self, path: Path) -> None:
        """Write what was recorded as safetensors."""
        from safetensors.torch import save_file

        tensors = {f"{site}.{layer}": self._of(site, layer).contiguous() for site, layer in self._kept}
        save_file(tensors, path)
        self.path = Path(path)

    @classmethod
    def load(cls, model: nn.Module, path: Path) -> Recording:
        """What `save` wrote, for a model of the same shape."""
        from safetensors.torch import load_file

        tensors = {(site, int(layer)): t for name, t in load_file(path).items() for site, layer in [name.split(".")]}
        layered = sorted({layer for site, layer in tensors if site in CALL_SITES + STREAM_SITES})
        recording = cls(model, sorted({site for site, _ in tensors}), layered)
        recording._kept = {place: [tensor] for place, tensor in tensors.items()}
        recording.path = Path(path)
        return recording

    def _keep(self, site: str, layer: int, tensor: Tensor) -> None:
        self._kept.setdefault((site, layer), []).append(tensor.detach())

    def _of(self, site: str, layer: int) -> Tensor:
        parts = self._kept.get((site, layer))
        if not parts:
            raise KeyError(f"nothing was recorded at {site!r} in layer {layer}: no pass ran while this was open")
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def record(model: nn.Module, sites: Sequence[str], layers: Iterable[int] | None = None) -> Recording:
    """Keep the tensors at some sites while this is open: see `Recording`.

    Args:
        sites: of "q", "k", "v", "z", "resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "embed", "logits".
        layers: default all.

    Raises:
        ValueError, IndexError: sites or layers that there are not; lists those that there are.
    """
    return Recording(model, sites, layers)


def check_sites(sites: Sequence[str]) -> None:
    """Refuse names of sites that no model has."""
    if isinstance(sites, str):
        raise TypeError(f"sites must be a list of names, got the text {sites!r}")
    for site in sites:
        if site not in SITES:
            raise ValueError(f"there is no site {site!r}; sites are {', '.join(SITES)}")
