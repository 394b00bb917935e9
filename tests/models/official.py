"""Models of the official code as ours, for the golden numbers."""

import torch
from torch.nn import functional as F

from golden import under
from windeye.models import based, doge, tnl
from windeye.models.based import WEIGHTS as BASED
from windeye.models.doge import WEIGHTS as DOGE
from windeye.models.tnl import WEIGHTS as TNL


def released_names(weights):
    """The golden TransNormerLLM was run in another repository of its authors, with another prefix."""
    return {
        k.replace("transnormer.wte", "model.embed_tokens").replace("transnormer.h.", "model.layers."): v
        for k, v in weights.items()
    }


def tnl_of(meta, numbers):
    config = meta["config"]
    lrpe_layers = (0,) if config["lrpe_layers"] == "0" else range(1, config["layers"])
    model = tnl(
        config["layers"], config["hidden"], config["heads"], config["glu_width"], vocab_size=config["vocab"],
        lrpe_layers=lrpe_layers, tied_head=config["tied_head"], scale_embedding=config["embedding_scale"],
    ).double()  # fmt: skip
    TNL.load(model, released_names(under("weight.", numbers)))
    return model


def based_of(meta, numbers):
    config = meta["config"]
    model = based(
        config["layers"], config["d_model"], config["heads"], config["linear_layers"], config["window_layers"],
        feature_dim=config["feature_dim"], window=config["visible_keys"], vocab_size=config["padded_vocab"],
    ).double()  # fmt: skip
    BASED.load(model, under("weight.", numbers))
    return model


def doge_of(meta, numbers):
    config = meta["config"]
    model = doge(
        config["layers"], config["hidden"], config["heads"], config["kv_heads"], config["inner"],
        keep=config["keep_window_size"], vocab_size=config["vocab"], tied_head=config["tied"],
    ).double()  # fmt: skip
    DOGE.load(model, under("weight.", numbers))
    return model


def loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def gradients(model, value):
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters), strict=True))
