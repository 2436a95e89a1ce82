"""What trained models say on the local site: tiny ones, trained for two steps or not at all."""

import re
from pathlib import Path

import pytest

from kg_targets.store import TargetStore
from pipelines.browse.pages import open_pages
from tests.pipelines.browse.test_site import get, served
from tests.training.med_vqa.answer.fakes import answers, tiny_med_vqa
from tests.training.tiny import arguments, write_world
from training.med_vqa.model.saving import save_med_vqa
from training.run import main as run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_world(tmp_path_factory.mktemp("models"))
    assert run(arguments(folder, folder / "run", "--optim.max_steps=2")) == 0
    built = tiny_med_vqa(folder / "tokenizer")
    save_med_vqa(folder / "vqa", built.model, built.tokenizer, answers())
    return folder


def test_a_run_and_a_med_vqa_model_are_asked_about_the_stores_images(world: Path) -> None:
    pages = open_pages(world / "train", None, world / "data", world / "run", world / "vqa")
    store = TargetStore.open(world / "train")
    assert pages.finder is not None and pages.vqa is not None
    scores = pages.finder.scores(3)
    assert len(scores) == len(store) and abs(scores).max() <= 1 + 1e-6
    with served(pages, world / "marks.csv") as address:
        status, page, _ = get(f"{address}/image?id=train3")
        assert status == 200 and "captions that run finds for it" in page
        status, page, _ = get(f"{address}/ask?id=train3&question=is+ct+left")
        assert status == 200 and "what the question alone suggests" in page
        chances = [float(one) for one in re.findall(r'<td class="number">([0-9.]+)</td>', page)]
        assert len(chances) == 10 and chances[:5] == sorted(chances[:5], reverse=True)
        assert "data:image/png;base64," in page and "transport maps" in page
        assert get(f"{address}/ask?id=train3&question=+")[0] == 400
        assert get(f"{address}/ask?id=nobody&question=ct")[0] == 400
