"""Soft labels of a step: which source says what of which pairs, and what nobody may say anything of."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from kg_targets.store import TargetStore
from tests.training.med_vqa.pretrain.world import write_teacher_store
from tests.training.tiny import write_store
from training.data.sources import open_source
from training.errors import ConfigError, KGTargetsError
from training.med_vqa.pretrain.config import PretrainLossConfig, SoftLabelConfig
from training.med_vqa.pretrain.soft_labels import (
    LabelBuilder,
    StepTargets,
    open_label_source,
    open_label_sources,
    teacher_targets,
)
from training.nb_clip.batch_targets import TargetBuilder
from training.nb_clip.config import LossConfig, PolicyConfig

ROWS = torch.tensor([0, 5, 1, 15, 8, 4, 12, 9])
"""Images 0 and 1, 5 and 4, 8 and 9 are of one case each; nothing is known of 15."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("labels")
    write_store(place / "graph", place, "train")
    write_teacher_store(place / "teacher", place / "graph")
    return place


def builder(folder: Path, *entries: SoftLabelConfig, **loss: object) -> LabelBuilder:
    data = TargetStore.open(folder / "graph")
    sources = [open_label_source(entry, data, open_source(folder, data)) for entry in entries]
    return LabelBuilder(data, sources, PretrainLossConfig(**loss))  # type: ignore[arg-type]


def entry(folder: Path, name: str, **given: object) -> SoftLabelConfig:
    return SoftLabelConfig(store=str(folder / name), **given)  # type: ignore[arg-type]


def blocks(targets: StepTargets) -> list[Tensor]:
    return [targets.image_text, targets.text_image, targets.views, targets.views_back, targets.texts]


def same_case(rows: Tensor) -> Tensor:
    pairs = rows[:, None] // 2 == rows[None, :] // 2
    return pairs & ~torch.eye(len(rows), dtype=torch.bool)


def test_without_sources_the_labels_are_hard_and_one_case_is_masked(folder: Path) -> None:
    targets = builder(folder)(ROWS, ROWS, 0)
    assert all(torch.equal(block, torch.eye(8)) for block in blocks(targets))
    assert targets.mask is not None and torch.equal(targets.mask, same_case(ROWS))
    assert builder(folder)(ROWS[:2], ROWS[:2], 0).mask is None


def test_the_graphs_labels_are_nb_clips_for_every_kind_of_pair(folder: Path) -> None:
    targets = builder(folder, entry(folder, "graph", alpha=0.6))(ROWS, ROWS, 0)
    store = TargetStore.open(folder / "graph")
    policy = PolicyConfig(name="evidence", alpha=0.6)
    expected = TargetBuilder(store, LossConfig(), policy)(ROWS, ROWS, 0)
    assert torch.equal(targets.image_text, expected.i2t) and (expected.i2t.diagonal() < 1).any()
    torch.testing.assert_close(targets.text_image, expected.t2i)
    assert all(block is targets.image_text for block in (targets.views, targets.views_back, targets.texts))


def test_a_teachers_labels_are_equation_five_of_its_own_four_blocks(folder: Path) -> None:
    store, mask = TargetStore.open(folder / "teacher"), same_case(ROWS)
    kinds = ("image_text", "image_text", "image_image", "image_image", "text_text")
    for space, lam in (("logit", 0.5), ("cosine", 0.1)):
        made = builder(folder, entry(folder, "teacher"), lambda_weight=lam, lambda_space=space)
        for place, (found, kind) in enumerate(zip(blocks(made(ROWS, ROWS, 0)), kinds, strict=True)):
            block = torch.tensor(store.block(ROWS.numpy(), kind=kind))
            block = block.T if place == 1 else block
            torch.testing.assert_close(found, teacher_targets(block, 0, lam, store.scale, space, mask))
            assert not found[mask].any()
            torch.testing.assert_close(found.sum(dim=1), torch.ones(8))


def test_the_graph_by_equation_five_says_nothing_of_unknown_images(folder: Path) -> None:
    targets = builder(folder, entry(folder, "graph", policy="eq5", temperature=0.1))(ROWS, ROWS, 0)
    assert torch.equal(targets.image_text[3], torch.eye(8)[3]) and not targets.image_text[:3, 3].any()
    assert (targets.image_text[0] > 0).sum() > 1


def test_a_teacher_can_be_graded_by_a_policy_of_its_cosines(folder: Path) -> None:
    targets = builder(folder, entry(folder, "teacher", policy="fixed_mass_softmax", alpha=0.8))(ROWS, ROWS, 0)
    assert torch.allclose(targets.image_text.diagonal(), torch.tensor(0.8))
    with pytest.raises(ConfigError, match=r"evidence of random needs a threshold"):
        builder(folder, entry(folder, "teacher", policy="evidence"))


def test_sources_are_mixed_by_weight(folder: Path) -> None:
    one, two = (builder(folder, entry(folder, name))(ROWS, ROWS, 0) for name in ("graph", "teacher"))
    both = builder(folder, entry(folder, "graph", weight=3.0), entry(folder, "teacher"))(ROWS, ROWS, 0)
    for mixed, first, second in zip(blocks(both), blocks(one), blocks(two), strict=True):
        expected = (3 * first.double() + second.double()) / 4
        torch.testing.assert_close(mixed.double(), expected, atol=1e-7, rtol=0)
        torch.testing.assert_close(mixed.sum(dim=1), torch.ones(8), atol=1e-6, rtol=0)
    silent = builder(folder, entry(folder, "graph", weight=0.2), entry(folder, "teacher", weight=0.0))
    assert all(torch.equal(*pair) for pair in zip(blocks(silent(ROWS, ROWS, 0)), blocks(one), strict=True))


def test_a_later_process_gets_its_rows_of_the_whole_batch(folder: Path) -> None:
    made = builder(folder, entry(folder, "graph"), entry(folder, "teacher"))
    whole, part = made(ROWS, ROWS, 0), made(ROWS[4:], ROWS, 4)
    for first, second in zip(blocks(whole), blocks(part), strict=True):
        torch.testing.assert_close(first[4:], second)
    assert whole.mask is not None and part.mask is not None and torch.equal(whole.mask[4:], part.mask)


SECOND = ROWS.roll(3)
"""What second views show: here images of any case, as those of one case have the same concepts in this store."""


def test_views_of_a_study_are_labelled_by_the_images_that_they_show(folder: Path) -> None:
    graph, teacher = (TargetStore.open(folder / name) for name in ("graph", "teacher"))
    sides = ((ROWS, SECOND), (SECOND, ROWS))
    made = builder(folder, entry(folder, "teacher"), lambda_weight=0.5)(ROWS, ROWS, 0, SECOND)
    for found, (rows, columns) in zip((made.views, made.views_back), sides, strict=True):
        block = torch.tensor(teacher.block(rows.numpy(), columns.numpy(), kind="image_image"))
        torch.testing.assert_close(
            found, teacher_targets(block, 0, 0.5, teacher.scale, "logit", same_case(ROWS))
        )
    made = builder(folder, entry(folder, "graph", policy="softmax", temperature=0.2))(ROWS, ROWS, 0, SECOND)
    for found, (rows, columns) in zip((made.views, made.views_back), sides, strict=True):
        of_columns = torch.tensor(graph.known[columns.numpy()])
        known = (torch.tensor(graph.known[rows.numpy()]) & of_columns)[:, None] & of_columns
        block = torch.tensor(graph.block(rows.numpy(), columns.numpy())) / 0.2
        block[~(known & ~same_case(ROWS) | torch.eye(8, dtype=torch.bool))] = -torch.inf
        torch.testing.assert_close(found, block.softmax(dim=1))
        for place in (3, 6):  # of image 15 nothing is known: a pair with it stays hard
            assert torch.equal(found[place], torch.eye(8)[place])
    same = builder(folder, entry(folder, "graph", policy="softmax", temperature=0.2))(ROWS, ROWS, 0)
    assert torch.equal(same.image_text, made.image_text) and not torch.equal(same.views, made.views)


def test_a_later_process_gets_its_rows_of_a_studys_views(folder: Path) -> None:
    made = builder(folder, entry(folder, "graph"), entry(folder, "teacher"))
    whole, part = made(ROWS, ROWS, 0, SECOND), made(ROWS[4:], ROWS, 4, SECOND)
    for first, second in zip(blocks(whole), blocks(part), strict=True):
        torch.testing.assert_close(first[4:], second)


def test_a_teacher_that_says_nothing_leaves_a_studys_views_hard(folder: Path) -> None:
    targets = builder(folder, SoftLabelConfig(teacher="none"))(ROWS, ROWS, 0, SECOND)
    assert all(torch.equal(block, torch.eye(8)) for block in blocks(targets))


def test_a_teacher_that_is_asked_at_each_step_stands_in_its_stores_place(folder: Path) -> None:
    targets = builder(folder, SoftLabelConfig(teacher="none"))(ROWS, ROWS, 0)
    assert all(torch.equal(block, torch.eye(8)) for block in blocks(targets))


def test_a_store_of_other_captions_or_of_damaged_factors_is_refused(folder: Path, tmp_path: Path) -> None:
    data = TargetStore.open(folder / "graph")
    source = open_source(folder, data)
    write_store(tmp_path / "other", tmp_path, "other")
    with pytest.raises(KGTargetsError, match=r"the image in row 0 is 'other0'"):
        open_label_source(entry(tmp_path, "other"), data, source)
    write_teacher_store(tmp_path / "narrow", folder / "graph", stated_dim=5)
    with pytest.raises(KGTargetsError, match="image_factor is 6 wide, the manifest says 5"):
        open_label_source(entry(tmp_path, "narrow"), data, source)
    write_teacher_store(tmp_path / "nan", folder / "graph", first_value=float("nan"))
    with pytest.raises(KGTargetsError, match="column image_factor has values that are not finite"):
        open_label_source(entry(tmp_path, "nan", policy="softmax"), data, source)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": "graph", "temperature": 0.1}, "evidence of .* does not read temperature"),
        ({"name": "teacher", "alpha": 0.6}, "eq5 of .* does not read alpha"),
        ({"name": "teacher", "policy": "softmax", "threshold": 0.2}, "softmax of .* does not read threshold"),
        ({"name": "graph", "policy": "uniform", "saturation": 2.0}, "uniform of .* does not read saturation"),
    ],
)
def test_a_field_that_the_policy_does_not_read_is_refused(
    folder: Path, given: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        builder(folder, entry(folder, **given))  # type: ignore[arg-type]


def test_a_lambda_that_no_source_reads_is_refused(folder: Path) -> None:
    data = TargetStore.open(folder / "graph")
    images = open_source(folder, data)
    graph, teacher = entry(folder, "graph"), entry(folder, "teacher")
    louder = PretrainLossConfig(lambda_weight=5.0)
    for entries in ([], [graph]):
        with pytest.raises(ConfigError, match=r"loss\.lambda_weight 5\.0 changes nothing"):
            open_label_sources(entries, louder, data, images)
    assert len(open_label_sources([graph, teacher], louder, data, images)) == 2
    assert not open_label_sources([], PretrainLossConfig(), data, images)
