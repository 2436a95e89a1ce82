"""Data sets as they are published, with drawn images and invented texts: check, build, two steps, evaluation, card."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from pipelines.cli import main
from tests.images import png
from training.run import main as train

pytestmark = pytest.mark.e2e
CAPTIONS = [
    f"{modality} of the {organ} shows {finding}."
    for modality in ("CT", "MRI", "Radiograph")
    for organ in ("chest", "brain")
    for finding in ("a mass", "no fracture")
]


def roco_v2(root: Path) -> tuple[str, str]:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = {
        "image": pa.array([{"bytes": png(row * 20), "path": None} for row in range(12)], kind),
        "image_id": [f"ROCOv2_{row}" for row in range(12)],
        "caption": CAPTIONS,
        "cui": [["C0040405"], ["C0024485"], ["C1306645", "C0817096"]] * 4,
    }
    (root / "data").mkdir()
    pq.write_table(pa.table(table), root / "data" / "train-00000-of-00001.parquet", row_group_size=4)
    rows = "".join(f"ROCOv2_{row},PMC{row // 2},CC BY,x\n" for row in range(12))
    (root / "license_information.csv").write_text("ID,PMCID,Attribution,Link\n" + rows)
    return "roco_v2", "train"


def medpix(root: Path) -> tuple[str, str]:
    (root / "images").mkdir()
    (root / "splitted_dataset").mkdir()
    lines = []
    for row, caption in enumerate(CAPTIONS):
        name = f"MPX{row // 2}_synpic{row}"
        (root / "images" / f"{name}.png").write_bytes(png(row * 20))
        description = {"Caption": caption, "Plane": "Axial"}
        line = {"Type": "CT", "U_id": f"MPX{row // 2}", "image": name, "Description": description}
        lines.append(json.dumps(line | {"Location Category": "Head"}))
    (root / "splitted_dataset" / "descriptions_train.jsonl").write_text("\n".join(lines))
    return "medpix", "train"


def biomedica(root: Path) -> tuple[str, str]:
    for shard in range(2):
        with tarfile.open(root / f"{shard}.tar", "w") as archive:
            for row in range(shard * 6, shard * 6 + 6):
                for ending, data in ((".jpg", png(row * 20)), (".txt", CAPTIONS[row].encode())):
                    member = tarfile.TarInfo(f"PMC{row // 2}_{row}{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return "biomedica", "all"


def mimic_cxr(root: Path) -> tuple[str, str]:
    lines = ["dicom_id,study_id,subject_id,split"]
    for row, caption in enumerate(CAPTIONS):
        subject = f"1000000{row // 2}"
        folder = root / "files" / "p10" / f"p{subject}"
        (folder / f"s{row}").mkdir(parents=True)
        (folder / f"s{row}" / f"d{row}.jpg").write_bytes(png(row * 20))
        (folder / f"s{row}.txt").write_text(f" FINDINGS:\n {caption}\n")
        lines.append(f"d{row},{row},{subject},train")
    (root / "mimic-cxr-2.0.0-split.csv").write_text("\n".join(lines))
    return "mimic_cxr", "train"


@pytest.mark.parametrize("publish", [roco_v2, medpix, biomedica, mimic_cxr])
def test_a_published_layout_goes_all_the_way(
    publish: Callable[[Path], tuple[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, stores, run = tmp_path / "data root", tmp_path / "stores", tmp_path / "run"
    root.mkdir()
    name, split = publish(root)
    data = ["--data-root", str(root)]
    assert main(["check", name, *data]) == 0
    told = capsys.readouterr().out
    assert f"{split}: 12 captions, 6 cases, 12 of 12 images present" in told
    assert main(["build", name, *data, "--split", split, "--out", str(stores)]) == 0
    store = str(stores / split)
    AcceleratorState._reset_state(reset_partial_state=True)
    options = [
        f"--data.train_store={store}", "--data.dev_store=null", f"--data.data_root={root}", f"--output={run}",
        "--model.name=test-vit", "--data.batch_size=6", "--optim.max_steps=2", "--log.trackers=none",
    ]  # fmt: skip
    assert train(options) == 0
    scores = ["--run", str(run), "--out", str(tmp_path / "scores")]
    assert main(["evaluate", "retrieval", "--store", store, *data, *scores]) == 0
    assert main(["card", store, *data, "--out", str(tmp_path / "card.html")]) == 0
