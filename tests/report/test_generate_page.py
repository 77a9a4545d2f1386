"""A generator's page: every number is the scores', parts are optional, nothing foreign runs or is fetched."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_page import HOSTILE, Reader

from headfirst.errors import DataError, InputError
from headfirst.metrics import Memorisation
from headfirst.report import generate_json, read_scores, score_lines, write_generate
from headfirst.report.generate_page import generate_page
from headfirst.study.generator_evaluation import Lookalike
from headfirst.study.generator_report import GeneratorReport, Strip
from headfirst.study.generator_scores import ClassScore, GeneratorScores, ModelBound, Repeats, Score

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def scores(name: str = "cat") -> GeneratorScores:
    made = {
        "frechet": Score(value=31.234),
        "frechet_corrected": Score(value=-0.0234, low=0.0, high=0.0567, expected=0.0),
        "kernel": Score(value=1.5e-5, low=0.0, high=2.5e-5, expected=0.0),
        "precision": Score(value=0.8123, low=0.7913, high=0.8323, expected=0.8512),
        "recall": Score(value=0.7123, low=0.6913, high=0.7323, expected=0.8512),
        "density": Score(value=0.9123, expected=1.0),
        "coverage": Score(value=0.9313, expected=0.9687),
        "class_weights": Score(value=0.0453, expected=0.0271),
        "recognised": Score(value=0.9012, low=0.8812, high=0.9212),
    }
    real = {key: dataclasses.replace(score, value=score.value / 2) for key, score in made.items()}
    return GeneratorScores(
        generator="0" * 64, kind="vae", recipe=f"VAE({name})", data=name, split="test", real="1" * 64, backbone=name,
        features="2" * 64, preprocessing={"resize": 28, "crop": None}, size=28, seed=3, num_generated=2000,
        num_real=1999, num_reference=1998, of_generated=made, of_real=real,
        repeats=Repeats(pairs=7, threshold=0.125, support=1234.5, low=678.9, high=None),
        by_class=(ClassScore(name=name, generated=40, recognised=30),
                  ClassScore(name="none", generated=0, recognised=0)),
        memorisation=Memorisation(share=0.5561, expected=0.5552, z=1.0, p_value=0.1618, least_p_value=1e-4,
                                  verdict="no sign of it"),
        bound=ModelBound(nats=-1234.0, low=-1240.0, high=-1228.5, num_images=500, draws=100),
    )  # fmt: skip


def training(name: str = "cat") -> GeneratorReport:
    return GeneratorReport(
        name=name, kind="gan", epochs=4, planned=8, seconds=75.0,
        readings=tuple({"epoch": e, "loss": 2.0 / e, "val_elbo": None if e < 3 else -80.5 - e, "warning": name}
                       for e in (1, 2, 3, 4)),
        events=(f"epoch 3: {name}",),
        strips=(Strip(name=name, picture=PIXEL, num=12), Strip(name="b", picture=PIXEL, num=12)),
        grown=(Strip(name="1", picture=PIXEL, num=12), Strip(name="2", picture=PIXEL, num=12)),
        about={"data": name}, versions={"headfirst": name},
    )  # fmt: skip


def evaluation(name: str = "cat") -> GeneratorReport:
    alike = Lookalike(sample="0-00001", picture=PIXEL, training=f"train/{name}", training_picture=PIXEL,
                      training_distance=0.4321, held_out=f"test/{name}", held_out_picture=PIXEL,
                      held_out_distance=0.5678)  # fmt: skip
    return dataclasses.replace(
        training(name), grown=(), scores=scores(name), lookalikes=(alike,), verdict=f"{name} is better than b"
    )


def text_of(report: GeneratorReport) -> str:
    return " ".join(" ".join(Reader(generate_page(report)).text).split())


def test_every_score_is_on_the_page_beside_what_is_expected_and_what_is_real():
    table = next(
        rows for about, rows in Reader(generate_page(evaluation())).tables if about.get("data-metric") == "scores"
    )
    cells = [[" ".join("".join(cell).split()) for cell in row] for row in table[1:]]
    assert len(cells) == 9
    by_title = {row[0]: row[1:] for row in cells}
    assert by_title["Fréchet distance, without the bias of few images"] == [
        "−0.02340 to 0.0567", "0", "−0.01170 to 0.0567",
    ]  # fmt: skip
    assert by_title["Kernel distance"][0] == "1.5e−050 to 2.5e−05"
    assert by_title["Precision: made images among real ones"] == [
        "81.2 %79.1 % to 83.2 %", "85.1 %", "40.6 %79.1 % to 83.2 %",
    ]  # fmt: skip
    assert by_title["Density"] == ["0.912", "1", "0.456"]
    assert by_title["Recognised as the class asked for"][1] == "–"


def test_the_rest_of_the_scores():
    text = text_of(evaluation())
    assert "Too few images to tell made ones from real ones: Fréchet distance 0 [0, 0.0567]" in text
    assert "2,000 made images in the features of cat , against 1,999 images of test" in text
    assert "what 1,998 real training images get" in text
    assert "Cat is better than b." in text
    assert "7 pairs of made images" in text
    assert "1,234 different images [678, no upper bound]" in text
    assert "No sign of it." in text
    assert "is a training image for 55.6 % of them; 55.5 % of the real" in text
    assert "with probability 0.16" in text
    assert "0.432 to cat (training), 0.568 to cat" in text
    assert "cat 40 30 75.0" in text
    assert "none 0 0 –" in text
    assert "at least −1234 nats an image [−1240, −1228.5], from 500 images and 100 draws each." in text
    none = dataclasses.replace(
        scores(), memorisation=None, why_not="it was elsewhere",
        repeats=Repeats(pairs=0, threshold=0.1, support=None, low=541.2, high=None),
    )  # fmt: skip
    text = text_of(dataclasses.replace(evaluation(), scores=none))
    assert "Not asked: it was elsewhere." in text
    assert "there are at least 541 different images" in text


def test_a_training_that_grows():
    text = text_of(training())
    assert "4 of 8 epochs so far in 1 min 15 s" in text
    assert "Epoch 3: cat." in text
    assert "How it grew" in text
    assert "How far from real" not in text
    assert "val elbo" in text
    assert "-84.5" in text
    done = text_of(dataclasses.replace(training(), epochs=8, grown=(), strips=()))
    assert "GAN, 8 epochs in" in done
    assert "How it grew" not in done
    assert text_of(GeneratorReport(name="a", kind="vae"))


@pytest.mark.parametrize("make", [training, evaluation])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_page_fetches_and_runs_nothing(make, name: str):
    html = generate_page(make(name))
    reader = Reader(html)
    assert {"script", "link", "iframe", "object"}.isdisjoint(reader.tags)
    sources = [value for _, attribute, value in reader.attributes if attribute in ("src", "href")]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)
    assert not [attribute for _, attribute, _ in reader.attributes if attribute.startswith("on")]
    assert "<script>alert(1)" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_pictures_must_lie_in_the_page():
    bad = "https://example.org/a.png"
    for report in (
        dataclasses.replace(training(), strips=(Strip(name="a", picture=bad, num=1),)),
        dataclasses.replace(training(), grown=(Strip(name="a", picture=bad, num=1),)),
        dataclasses.replace(
            evaluation(), lookalikes=(dataclasses.replace(evaluation().lookalikes[0], held_out_picture=bad),)
        ),
    ):
        with pytest.raises(InputError, match="must be data:image"):
            generate_page(report)


def test_scores_come_back_from_json(tmp_path: Path):
    page = write_generate(evaluation(), tmp_path / "out")
    assert page == tmp_path / "out" / "scores.html"
    document = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert document == json.loads(generate_json(evaluation()))
    assert (document["schema_version"], document["verdict"]) == (1, "cat is better than b")
    assert "base64" not in json.dumps(document)
    assert read_scores(tmp_path / "out") == read_scores(tmp_path / "out" / "scores.json") == scores()
    with pytest.raises(DataError, match="no scores at"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"schema_version": 1, "kind": 3}')
    with pytest.raises(DataError, match="lacks the field 'generator'"):
        read_scores(tmp_path)
    (tmp_path / "scores.json").write_text('{"schema_version": 9}')
    with pytest.raises(DataError, match="schema 1; evaluate again"):
        read_scores(tmp_path)


def test_a_training_is_written_beside_scores(tmp_path: Path):
    write_generate(evaluation(), tmp_path)
    page = write_generate(training(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "scores.html",
        "scores.json",
        "generate.html",
        "generate.json",
    }
    assert page.name == "generate.html"
    document = json.loads((tmp_path / "generate.json").read_text())
    assert [reading["epoch"] for reading in document["readings"]] == [1, 2, 3, 4]
    assert "base64" not in json.dumps(document)


def test_lines_for_the_terminal():
    lines = {name: rest for name, *rest in score_lines(scores())}
    assert lines["coverage"] == ["Coverage: real images with a made one near", "93.1 %", "", "96.9 %", "46.6 %", ""]
    without = dataclasses.replace(scores(), of_real={})
    assert all(line[5:] == ("–", "") for line in score_lines(without))
