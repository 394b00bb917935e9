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


def decoded(model, ids, prefill):
    """Logits of a prompt that is read in one pass, and of every token behind it that is read alone."""
    logits, state = model(ids[:, :prefill], return_state=True)
    outs = [logits]
    for token in ids[:, prefill:].split(1, dim=1):
        logits, state = model(token, state=state, return_state=True)
        outs.append(logits)
    return torch.cat(outs, dim=1)


def there_and_back(weights, make):
    """Weights exported, loaded into another model and exported again are the same bits; the file and what was loaded
    of it."""
    one, two = make(), make()
    official = weights.export(one)
    report = weights.load(two, official)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    again = weights.export(two)
    assert again.keys() == official.keys()
    assert all(torch.equal(again[name], official[name]) for name in official)
    return official, report
