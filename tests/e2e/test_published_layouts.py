"""Data sets as they are published, with drawn images and invented texts: check, build, two steps, evaluation, card."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState

from pipelines.cli import main
from tests.images import png
from tests.kg_targets.manifest.test_reports import XML
from training.run import main as train

pytestmark = pytest.mark.e2e
CAPTIONS = [
    f"{modality} of the {organ} shows {finding}."
    for modality in ("CT", "MRI", "Radiograph")
    for organ in ("chest", "brain")
    for finding in ("a mass", "no fracture")
]


def images(folder: Path, names: Iterable[str]) -> None:
    """Images of these names below a folder."""
    for row, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(row * 20))


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


def roco_v2_as_files(root: Path) -> tuple[str, str]:
    images(root / "train_images" / "train", (f"ROCOv2_{row}.jpg" for row in range(12)))
    tables = {"captions": "ID,Caption\n", "concepts": "ID,CUIs\n", "concepts_manual": "ID,CUIs\n"}
    licences = "ID,PMCID,Attribution,Link\n"
    for row, caption in enumerate(CAPTIONS):
        name = f"ROCOv2_{row}"
        for table, value in zip(tables, (caption, "C0040405;C0024109", "C0040405;C0817096"), strict=True):
            tables[table] += f"{name},{value}\n"
        licences += f"{name},PMC{row // 2},CC BY,x\n"
    for table, content in tables.items():
        (root / f"train_{table}.csv").write_text(content)
    (root / "license_information.csv").write_text(licences)
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
    (root / "commercial").mkdir()
    of_article = (
        "title journal date abstract mesh_terms keywords reference_ids reference_count subject citation text"
    )
    for shard in range(2):
        with tarfile.open(root / "commercial" / f"{shard:06d}.tar", "w") as archive:
            for row in range(shard * 6, shard * 6 + 6):
                told = {"article_accession_id": f"PMC{row // 2}", "article_license": "CC BY"}
                told |= {f"article_{name}": "x" for name in of_article.split()}
                labels = {
                    "image_primary_label": ["Clinical Imaging"],
                    "image_secondary_label": ["x-ray", "chest"],
                }
                context: dict[str, object] = {
                    "image_context": {f"F{row}": "x"},
                    "image_set": [{"image_id": "F1"}],
                }
                content = json.dumps(told | labels | context)
                for ending, data in (
                    ("jpg", png(row * 20)),
                    ("txt", CAPTIONS[row].encode()),
                    ("json", content.encode()),
                ):
                    member = tarfile.TarInfo(f"12_{shard}-PMC{row // 2}-{row}-image-{row}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return "biomedica", "all"


def test_check_of_biomedica_reads_what_its_authors_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", biomedica(tmp_path)[0], "--data-root", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["all"]
    assert found["labels"]["image_secondary_label"]["most_frequent"] == {"x-ray|chest": 12}
    assert found["columns"]["licence"] == "article_license" and found["cases"] == 6
    assert not any(found["ignored_columns"].values())


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


def iu_xray_open_i(root: Path) -> tuple[str, str]:
    (root / "ecgen-radiology").mkdir()
    for study in range(6):
        named = [f"CXR{study}_1_IM-{row}" for row in (2 * study, 2 * study + 1)]
        shown = "".join(f'<parentImage id="{name}"/>' for name in named)
        report = XML.format(
            findings=CAPTIONS[study * 2],
            impression="No change.",
            terms="<major>Mass/lung</major>",
            images=shown,
        )
        (root / "ecgen-radiology" / f"{study}.xml").write_text(report)
    images(root / "images", (f"CXR{row // 2}_1_IM-{row}.png" for row in range(12)))
    return "iu_xray", "all"


def iu_xray_kaggle(root: Path) -> tuple[str, str]:
    reports = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
    reports += "".join(f"{study},Mass/lung,x,x,x,x,{CAPTIONS[study * 2]},No change.\n" for study in range(6))
    projections = "uid,filename,projection\n"
    projections += "".join(f"{row // 2},{row // 2}_IM-{row}.dcm.png,Frontal\n" for row in range(12))
    (root / "indiana_reports.csv").write_text(reports)
    (root / "indiana_projections.csv").write_text(projections)
    images(root / "images" / "images_normalized", (f"{row // 2}_IM-{row}.dcm.png" for row in range(12)))
    return "iu_xray", "all"


def iu_xray_r2gen(root: Path) -> tuple[str, str]:
    studies = [
        {"id": f"CXR{n}", "report": CAPTIONS[n * 2], "image_path": [f"CXR{n}/0.png", f"CXR{n}/1.png"]}
        for n in range(6)
    ]
    (root / "annotation.json").write_text(
        json.dumps({"train": studies, "val": studies[:1], "test": studies[:1]})
    )
    images(root / "images", (f"CXR{row // 2}/{row % 2}.png" for row in range(12)))
    return "iu_xray_r2gen", "train"


def json_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pmc_oa(root: Path) -> tuple[str, str]:
    names = [f"PMC{row // 2}_Fig{row}.jpg" for row in range(12)]
    json_lines(
        root / "pmc_oa.jsonl",
        ({"image": name, "caption": caption} for name, caption in zip(names, CAPTIONS, strict=True)),
    )
    images(root / "caption_T060_filtered_top4_sep_v0_subfigures", names)
    return "pmc_oa", "all"


def medconcept_23m(root: Path) -> tuple[str, str]:
    concepts = [{"umls_cui": "C0040405", "start_char": 0, "end_char": 2, "tokens": ["CT"]}]
    rows = [
        {"pmc": str(row // 2), "image": f"{row}.jpg", "caption": caption, "umls_meta_info": concepts}
        for row, caption in enumerate(CAPTIONS)
    ]
    json_lines(root / "medconcept_23m.jsonl", rows)
    images(root / "images", (f"{row}.jpg" for row in range(12)))
    return "medconcept_23m", "all"


def imagefolder(root: Path) -> tuple[str, str]:
    images(root / "train", (f"{row}.png" for row in range(12)))
    rows = [
        {"file_name": f"{row}.png", "text": caption, "group_id": f"p{row // 2}"}
        for row, caption in enumerate(CAPTIONS)
    ]
    json_lines(root / "train" / "metadata.jsonl", rows)
    return "imagefolder", "train"


LAYOUTS = [
    roco_v2, roco_v2_as_files, medpix, biomedica, mimic_cxr, iu_xray_open_i, iu_xray_kaggle, iu_xray_r2gen, pmc_oa,
    medconcept_23m, imagefolder,
]  # fmt: skip


@pytest.mark.parametrize("publish", LAYOUTS)
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
