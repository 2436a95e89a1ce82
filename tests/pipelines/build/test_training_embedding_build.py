"""Captions' embeddings as targets: from a folder with an encoder to a store, a mixture, two training steps, a card."""

from pathlib import Path

import numpy as np
import pytest

from kg_targets.store import TargetStore, verify_store
from pipelines import cli
from pipelines.build.captions import CaptionEncoder
from pipelines.demo import write_demo
from tests.builds import CAPTIONS, digests, write_split
from tests.training.teachers.test_sentence import write_sentence_encoder
from tests.training.tiny import losses
from training.run import main as train
from training.teachers.base import ImageTexts
from training.teachers.sentence import open_text_encoder

pytestmark = pytest.mark.e2e


def build(*arguments: object) -> int:
    return cli.main(["build", "demo", "--workers", "1", *map(str, arguments)])


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """data/ with two splits and encoder/, a random sentence encoder."""
    write_split(tmp_path / "data", "train", [*CAPTIONS, CAPTIONS[0]])
    write_split(tmp_path / "data", "dev", CAPTIONS[2:5])
    write_sentence_encoder(tmp_path / "encoder", longest=6)
    return tmp_path


def embedded(world: Path, out: str, *extra: object, options: str = "") -> int:
    options = options or f"encoder=sentence:{world / 'encoder'}"
    arguments = ["--scorer", "embedding", "--scorer-options", options, "--data-root", world / "data"]
    return build(*arguments, "--out", world / out, *extra)


def test_a_store_of_embeddings_is_the_encoders_centred_on_the_fit_split(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(world, "out") == 0
    said = capsys.readouterr().out
    assert "encoder: sentence:encoder, 64 dimensions" in said
    assert "of 8 captions are truncated to 6 tokens" in said  # of nine, two are alike
    train, dev = (TargetStore.open(world / "out" / split) for split in ("train", "dev"))
    encoder = open_text_encoder(f"sentence:{world / 'encoder'}", "cpu")
    vectors = encoder.texts(ImageTexts(train.image_ids, train.captions, None), np.arange(9)).astype(
        np.float64
    )
    centre = vectors.mean(axis=0)
    expected = (vectors - centre) / np.linalg.norm(vectors - centre, axis=1, keepdims=True)
    np.testing.assert_allclose(train.factors, expected, atol=1e-5)
    np.testing.assert_allclose(train.vectors["centre"], centre, atol=1e-6)
    np.testing.assert_array_equal(dev.vectors["centre"], train.vectors["centre"])
    np.testing.assert_allclose(dev.factors, expected[2:5], atol=1e-5)
    assert train.known.all() and not train.cuis[3]  # "Figure 2B." names no concept
    for store in (train, dev):
        assert store.manifest["encoder"]["digest"] == encoder.digest
        assert str(world) not in str(store.manifest["encoder"])
        assert verify_store(store.path)
    assert "nothing to explain" in str(train.explain(0, 1))


def test_the_same_bytes_again_and_up_to_date_until_the_encoder_changes(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(world, "out") == embedded(world, "again") == 0
    assert digests(world / "out" / "train") == digests(world / "again" / "train")
    capsys.readouterr()
    assert embedded(world, "out") == 0
    assert capsys.readouterr().out.count("up to date") == 2
    (world / "encoder" / "sentence_bert_config.json").write_text('{"max_seq_length": 9}')
    assert embedded(world, "out") == 0
    assert "up to date" not in capsys.readouterr().out


def test_an_interrupted_build_keeps_its_embeddings_and_ends_with_the_same_bytes(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kg_targets.scoring.embedding._AT_ONCE", 3)
    calls: list[int] = []
    encode = CaptionEncoder.encode

    def counted(self: CaptionEncoder, *arguments: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CaptionEncoder, "encode", counted)
    assert embedded(world, "out") == 130
    assert not (world / "out" / "train").exists()
    assert embedded(world, "out", "--split", "train") == 0
    assert len(calls) == 4, "the first two pieces were kept"
    assert not list((world / "out").glob(".*"))
    assert embedded(world, "whole", "--split", "train") == 0
    assert digests(world / "out" / "train") == digests(world / "whole" / "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("encoder=sentence:nowhere", "does not exist; it must hold config.json"),
        ("encoder=nobody", "is not one of minilm-l6-v2, sentence:FOLDER, biomedclip, "),
        ("encoder=sentences:nowhere", "is not one of minilm-l6-v2, sentence:FOLDER, open_clip, "),
        ("encoder=none", "has no vectors of captions"),
        ("encodr=none", "encodr is not one of encoder (did you mean encoder?)"),
    ],
)
def test_a_wrong_encoder_is_one_line(
    world: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert embedded(world, "out", options=options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (world / "out").exists()


def test_a_teachers_store_is_no_part_of_a_mixture(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data-root", world / "data"]
    assert embedded(world, "embedding") == 0
    assert build(*data, "--out", world / "teacher", "--scorer", "teacher", "--teacher", "none") == 0
    capsys.readouterr()
    parts = f"{world / 'embedding'}|{world / 'teacher'}"
    assert build(*data, "--out", world / "mixed", "--scorer", "mixture", "--mix", parts) == 2
    assert "is a teacher's store" in capsys.readouterr().err


def test_ontology_and_embedding_to_a_mixture_to_training_to_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, stores = tmp_path / "data", tmp_path / "stores"
    write_demo(data, images=120, seed=0, workers=1)
    write_sentence_encoder(tmp_path / "encoder")
    encoder = ["--scorer", "embedding", "--scorer-options", f"encoder=sentence:{tmp_path / 'encoder'}"]
    mix = ["--scorer", "mixture", "--mix", f"{stores / 'ontology'}|{stores / 'embedding'}"]
    for name, options in (("ontology", []), ("embedding", encoder), ("mixture", mix)):
        assert build("--data-root", data, "--out", stores / name, *options) == 0
    store = TargetStore.open(stores / "mixture" / "train")
    assert store.manifest["factors"]["dense"] == 64
    arguments = [
        f"--data.train_store={store.path}", f"--data.dev_store={stores / 'mixture' / 'dev'}",
        f"--data.data_root={data}", f"--output={tmp_path / 'run'}", "--model.name=test-vit",
        "--data.batch_size=16", "--optim.max_steps=2", "--log.every=1", "--log.trackers=none",
        "--policy.name=evidence",
    ]  # fmt: skip
    assert train(arguments) == 0
    assert len(losses(tmp_path / "run")) == 2 and np.isfinite(losses(tmp_path / "run")).all()
    known = np.flatnonzero(store.known)
    pair = [store.image_ids[row] for row in known[:2]]
    capsys.readouterr()
    for command in (
        ["verify", store.path],
        ["explain", store.path, *pair],
        ["card", store.path, "--data-root", data, "--out", tmp_path / "card.html"],
        ["suggest", store.path, "--batch-size", 16],
        ["evaluate", "targets", store.path, stores / "ontology" / "train", "--bootstrap", "100", "--batch-sizes", "16"],
    ):  # fmt: skip
        assert cli.main([str(each) for each in command]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "embedding (sentence:encoder), weight 0.50" in said
    assert "embedding (sentence:encoder) 0." in (tmp_path / "card.html").read_text()


def test_captions_that_join_a_store_are_embedded_as_its_own_were(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedded(world, "out") == 0
    before, dev = (TargetStore.open(world / "out" / split) for split in ("train", "dev"))
    factors = before.factors.copy()
    extend = ("--split", "dev", "--data-root", world / "data", "--extend", world / "out" / "train")
    assert build(*extend) == 0
    store = TargetStore.open(world / "out" / "train")
    np.testing.assert_array_equal(store.factors[:9], factors)
    np.testing.assert_allclose(store.factors[9:], dev.factors, atol=1e-5)
    np.testing.assert_array_equal(store.vectors["centre"], before.vectors["centre"])
    assert verify_store(store.path)
    write_split(world / "data", "test", CAPTIONS[:2])
    (world / "encoder" / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    capsys.readouterr()
    assert build("--split", "test", *extend[2:]) == 2
    assert "the encoder is not the one that" in capsys.readouterr().err


def test_a_teachers_store_is_not_extended(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = ("--scorer", "teacher", "--teacher", "none", "--data-root", world / "data")
    assert build(*teacher, "--split", "train", "--out", world / "none") == 0
    capsys.readouterr()
    store = world / "none" / "train"
    assert build("--split", "dev", "--data-root", world / "data", "--extend", store) == 2
    assert "is a teacher's store, which is not extended" in capsys.readouterr().err
