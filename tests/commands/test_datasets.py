"""Every dataset in every layout, from a folder to scores by its protocol, as a user goes there."""

import json
import shlex

import pytest

from deblur_lab.data.synthesize import Settings, synthesize
from deblur_lab.data.writers import LAYOUTS
from tests.commands.processes import TINY, forked
from tests.commands.runs import results_of, rows_of

# What each is scored by, and what the first and the last of its three test pictures are called as published.
PUBLISHED = {
    "gopro": ("gopro", "GOPR0374_11_00/000001", "GOPR0376_11_00/000001"),
    "hide": ("hide", "1fromGOPR0952.MP4", "1fromGOPR0954.MP4"),
    "realblur_j": ("realblur", "scene003/1", "scene005/1"),
    "realblur_r": ("realblur", "scene003/1", "scene005/1"),
    "reloblur": ("local", "s02/01/00", "s03/01/00"),
}
RELAID = {
    ("gopro", "relaid"): ("GOPR0374_11_00-000001", "GOPR0376_11_00-000001"),
    ("gopro", "flat"): ("GOPR0374_11_00_001", "GOPR0376_11_00_001"),
    ("realblur_j", "relaid"): ("scene003-1", "scene005-1"),
    ("realblur_r", "relaid"): ("scene003-1", "scene005-1"),
}


@pytest.mark.parametrize(
    ("layout", "variant"), [(layout, variant) for layout in PUBLISHED for variant in LAYOUTS[layout]]
)
def test_a_dataset_is_trained_on_and_scored_by_its_protocol(tmp_path, layout, variant):
    made = forked(
        "deblur_lab.data.synthesize",
        f"layout={layout}",
        f"variant={variant}",
        *("output=data", "train_scenes=2", "test_scenes=3", "size=80x64", "num_workers=0"),
        cwd=tmp_path,
    ).succeeded()
    # The command that is proposed, on fewer and smaller things.
    (proposed,) = [line for line in made.stdout.splitlines() if line.startswith("next: ")]
    module, *given = shlex.split(proposed)[3:]
    assert f"data={layout}" in given
    said = forked(
        module,
        *given,
        "model=nafnet",
        *TINY,
        *("trainer.max_steps=2", "val_every_steps=2", "pictures=0", "output=run"),
        cwd=tmp_path,
    ).succeeded()
    masks = "masks known" if layout == "reloblur" else "blurred all over"
    assert f"{layout}: 2 train, 3 val, 3 test, {masks}; made-up scenes (synthetic.json), not " in said.stdout
    protocol, *names = PUBLISHED[layout]
    assert f"protocol {protocol}: " in said.stdout
    (result,) = results_of(tmp_path / "run")
    assert (result["dataset"], result["protocol"]["name"], result["images"]) == (layout, protocol, 3)
    # The net has learned next to nothing, and the pictures are as blurry as they were made.
    assert 10 < result["blurry_scores"]["psnr_db"] < 60
    assert abs(result["scores"]["psnr_db"] - result["blurry_scores"]["psnr_db"]) < 5
    rows = rows_of(tmp_path / "run" / "scores.csv")
    assert [row["dataset"] for row in rows] == [layout] * 3
    first, _, last = (row["name"] for row in rows)
    assert [first, last] == list(RELAID.get((layout, variant), names))
    assert len(rows_of(tmp_path / "run" / "metrics.csv")) == 2
    settings = json.loads((tmp_path / "run" / "scores.json").read_text(encoding="utf-8"))
    assert settings["trained_on"][0].startswith(layout)


@pytest.mark.parametrize(
    ("data", "more", "said"),
    [
        (
            "realblur_j",
            [],
            "has no RealBlur_J_train_list.txt in it or beside it, which says what the train split",
        ),
        (
            "realblur_j",
            ["data.layout=relaid"],
            "is not laid out as data.layout=relaid says: looked for {train,",
        ),
        (
            "realblur_r",
            [],
            "has no known layout: looked for RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref/",
        ),
        (
            "reloblur",
            ["data.layout=raw"],
            "is not laid out as data.layout=raw says: looked for dataset/{train,",
        ),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path, data, more, said):
    synthesize(Settings(tmp_path / "data", "realblur_j", None, 1, 1, (48, 40), num_workers=0))
    for path in (tmp_path / "data").glob("*_list.txt"):
        path.unlink()
    given = ["model=nafnet", *TINY, "trainer.max_steps=1", f"data={data}", "data.root=data", *more]
    assert said in forked("deblur_lab.train", *given, cwd=tmp_path).failed(3)
