"""Real models by name: their classes, their tokens, and facts that are known of them."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'windeye[hf]'")

from transformers import BertConfig, BertModel, BertTokenizer, LlamaConfig, LlamaForCausalLM

from hf.real import real
from windeye.hf import pretrained
from windeye.hf.pretrained import load
from windeye.hf.smiles import smiles_tokenizer

REACTION = "CC(=O)O.NCc1ccccc1>>CC(=O)NCc1ccccc1"


def test_a_language_model_knows_the_capital_of_france():
    model, tokenizer = real("smollm2-135m-instruct")
    assert type(model) is LlamaForCausalLM
    assert not model.training
    assert model.dtype == torch.float32
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )


def test_a_language_model_repeats_what_it_read():
    model, _ = real("smollm2-135m-instruct")
    ids = torch.randint(1000, 40000, (1, 48)).repeat(1, 2)
    with torch.no_grad():
        logits = model(ids).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    assert loss[:47].mean() > 10
    assert loss[-24:].mean() < 4


def test_an_encoder_knows_what_is_alike():
    model, tokenizer = real("all-minilm-l6-v2")
    batch = tokenizer(["a cat", "a kitten", "a tax form"], return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch.attention_mask[..., None]
    means = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert means[0] @ means[1] > 0.5 > means[0] @ means[2] + 0.2


def test_a_reaction_model_reads_atoms_and_knows_what_is_hidden():
    model, tokenizer = real("rxnmapper")
    ids = tokenizer(REACTION, return_tensors="pt").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[0])[:9] == ["[CLS]", "C", "C", "(", "=", "O", ")", "O", "."]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == REACTION
    hidden = ids.clone()
    hidden[0, tokenizer.tokenize(REACTION).index(">>") + 1] = tokenizer.mask_token_id
    with torch.no_grad():
        assert tokenizer.decode(model(hidden).logits[hidden == tokenizer.mask_token_id].argmax()) == ">>"


def test_atoms_in_brackets_and_elements_of_two_letters_are_one_token(tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "Cl", "Br", "[C@@H]", "%12", ">>", ".", "c", "\\"]
    (tmp_path / "vocab.txt").write_text("\n".join(names) + "\n")
    tokenizer = smiles_tokenizer(tmp_path / "vocab.txt")
    text = "Cl[C@@H]%12.CBr>>\\cC"
    tokens = ["Cl", "[C@@H]", "%12", ".", "C", "Br", ">>", "\\", "c", "C"]
    assert tokenizer.tokenize(text) == tokens
    assert tokenizer(text).input_ids == [2, *map(names.index, tokens), 3]
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.tokenize("C#Si") == ["C", "[UNK]", "[UNK]", "[UNK]"]


@pytest.fixture
def folder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "wind", "eye"]
    (tmp_path / "words").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(tmp_path / "words"))
    config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_folders_load_in_the_dtype_that_is_asked_for(folder):
    model, tokenizer = load(folder, dtype=torch.float64)
    assert type(model) is BertModel
    assert model.dtype == torch.float64
    assert tokenizer("wind eye").input_ids == [2, 5, 6, 3]
    assert type(load(str(folder))[0]) is BertModel


def test_missing_weights_are_an_error(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.key.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"BertModel are missing: encoder\.layer\.0\.attention\.self\.key\.weight"):
        load(folder)


def test_heads_follow_the_configuration(folder):
    small = LlamaConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    LlamaForCausalLM(small).save_pretrained(folder)
    assert type(load(folder)[0]) is LlamaForCausalLM


def test_errors_name_what_exists(tmp_path):
    for name in ("smollm2", "rxnmaper", "minilm-l6-v2"):
        with pytest.raises(ValueError, match=f"no model '{name}'; did you mean .*There are smollm2-135m-instruct, "):
            load(name)
    with pytest.raises(ValueError, match=r"there is no folder or file ./nowhere\. There are"):
        load("./nowhere")
    with pytest.raises(ValueError, match="holds no model"):
        load(tmp_path)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ValueError, match=r"there are several, name one: a\.gguf, b\.gguf"):
        load(tmp_path)
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ValueError, match=r"a folder, or a file that ends in \.gguf"):
        load(tmp_path / "weights.bin")
    with pytest.raises(ValueError, match=r"no model 'somebody/something': .*There are"):
        load("somebody/something", offline=True)


def test_an_asset_in_the_gguf_format_is_unpacked_once(tmp_path, monkeypatch):
    """What the second call reads are the same weights and tokens as those of the first."""
    from transformers import PreTrainedTokenizerFast

    _, tokenizer = real("smollm2-135m-instruct")
    calls = []
    monkeypatch.setenv("WINDEYE_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained.assets, "get", lambda name, **_: SimpleNamespace(folder=tmp_path / name))
    (tmp_path / "smollm2-135m-instruct").mkdir()
    (tmp_path / "smollm2-135m-instruct" / "model.gguf").touch()
    small = LlamaForCausalLM(LlamaConfig(vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                                         intermediate_size=8))  # fmt: skip
    read = pretrained._read

    def counted(place, dtype, **options):
        calls.append(place)
        return (small, tokenizer) if place.name == "smollm2-135m-instruct" else read(place, dtype, **options)

    monkeypatch.setattr(pretrained, "_read", counted)
    first, second = load("smollm2-135m-instruct"), load("smollm2-135m-instruct", dtype=torch.bfloat16)
    assert [place.name for place in calls].count("smollm2-135m-instruct") == 1
    assert isinstance(second[1], PreTrainedTokenizerFast)
    for ours, theirs in zip(first[0].parameters(), small.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second[0].dtype == torch.bfloat16
    assert second[1]("The capital").input_ids == tokenizer("The capital").input_ids
