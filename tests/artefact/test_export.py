"""An exported graph is PyTorch's equal on images of its own, or it is not left behind."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headfirst.artefact.export as exporting
import headfirst.artefact.graph as tracing
from headfirst.adapt import KNN, Calibration, GaussianNaiveBayes, LinearProbe, TunedModel, on_backbone
from headfirst.artefact import Exported, export_model, load_model, save_model, verify_model
from headfirst.artefact.runtimes import RUNNERS
from headfirst.artefact.seal import sealed
from headfirst.data import ImageSet, ImageSplit, few_shot, prepare, prepare_split, preprocess, read_paths
from headfirst.errors import ArtefactError, InputError
from headfirst.features import embed
from headfirst.nn import load_backbone

_ABSENT = [name for name in ("onnx", "onnxscript", "onnxruntime", "openvino") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(_ABSENT), reason=f"needs the export extra, absent: {', '.join(_ABSENT)}")
FORMATS = ["onnx", "openvino"]
DOCS = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="session")
def digits() -> dict[str, ImageSplit]:
    """A few digits of each class, prepared for the embedded backbone."""
    preprocessing, images = load_backbone("builtin/glyph").preprocessing, ImageSet.digits()
    counts = {"train": 20, "val": 10, "test": 5}
    return {name: prepare_split(few_shot(images[name], k, seed=0), preprocessing)[0] for name, k in counts.items()}


@pytest.fixture(scope="session")
def tuned(digits: dict[str, ImageSplit]) -> TunedModel:
    backbone = load_backbone("builtin/glyph")
    return on_backbone(backbone, LinearProbe().fit(embed(backbone, digits["train"])))


@pytest.fixture(scope="session")
def exported(tuned: TunedModel, digits: dict[str, ImageSplit], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with both exports beside it; copy it before changing it."""
    val = tuned.predictions(digits["val"])
    calibration = Calibration(temperature=1.5, logits=val.values, labels=val.labels, chosen_on="val")
    model = TunedModel(**{**vars(tuned), "calibration": calibration})
    directory = save_model(model, tmp_path_factory.mktemp("glyph") / "model")
    graph = export_model(directory, "onnx").graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "_write_onnx", lambda _, path: shutil.copyfile(graph, path))
        export_model(directory, "openvino")
    return directory


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "model")


@pytest.fixture
def traced(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the five seconds of tracing this very model in PyTorch again."""
    graph = exported / "exports" / "model.onnx"
    monkeypatch.setattr(tracing, "_write_onnx", lambda _, path: shutil.copyfile(graph, path))


def relative_difference(run, model: TunedModel, images: ImageSplit, batch_size: int) -> float:
    """Against the model's own predictions, the pixels preprocessed anew from the images as they came."""
    expected = model.predictions(images).values.numpy()
    preprocessing = model.classifier.backbone.preprocessing
    pixels = np.stack([preprocess(np.asarray(image), preprocessing) for image in images.sources]).transpose(0, 3, 1, 2)
    starts = range(0, len(pixels), batch_size)
    got = np.concatenate([run(np.ascontiguousarray(pixels[i : i + batch_size])) for i in starts])
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("batch_size", [1, 7])
def test_it_equals_pytorch_on_images_it_never_saw(exported, tuned, digits, to: str, batch_size: int):
    run = RUNNERS[to](exported / "exports" / f"model{exporting.FORMATS[to]}", threads=1)
    assert relative_difference(run, tuned, digits["test"], batch_size) < 1e-5


def test_the_file_beside_it_says_all_there_is_to_know(exported: Path):
    folder = exported / "exports"
    names = ["model.bin", "model.onnx", "model.onnx.json", "model.xml", "model.xml.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    about = json.loads((folder / "model.xml.json").read_text())
    assert about["files"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("model.xml", "model.bin")
    }
    assert about["preprocessing"]["resize"] == [32, 32]
    assert about["input"] == {"name": "pixels", "type": "uint8", "shape": ["batch", 3, 32, 32]}
    assert (about["classes"], about["temperature"]) == (list("0123456789"), 1.5)
    assert about["mismatch"] <= about["tolerance"] == 1e-4


def test_the_snippet_of_the_documentation_predicts(exported, digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snippet = re.search(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert snippet is not None
    for name in ("model.onnx", "model.onnx.json"):
        shutil.copyfile(exported / "exports" / name, tmp_path / name)
    for i, image in enumerate(digits["test"].sources[::9]):
        Image.fromarray(np.asarray(image)).save(tmp_path / f"photo{i}.png")
    monkeypatch.chdir(tmp_path)
    model = load_model(exported)
    found = prepare(read_paths([Path(f"photo{i}.png") for i in range(6)]), model.classifier.backbone.preprocessing)
    for i, expected in enumerate(model.predict_proba(found["unlabelled"])):
        names: dict = {}
        exec(snippet.group(1).replace("photo.jpg", f"photo{i}.png"), names)
        np.testing.assert_allclose(names["probabilities"], expected.numpy(), rtol=1e-4, atol=1e-7)
        assert names["name"] == model.classes_[int(expected.argmax())]


def test_a_graph_that_disagrees_is_not_left_behind(copied: Path, monkeypatch: pytest.MonkeyPatch):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.classifier((pixels.to(torch.float32) / 250 - self.mean) / self.std)

    kept = (copied / "exports" / "model.onnx").read_bytes()
    monkeypatch.setattr(tracing.PixelClassifier, "forward", forward)
    with pytest.raises(ArtefactError, match=r"differs from PyTorch by .* so it was removed") as caught:
        export_model(copied, "onnx")
    assert "\n" not in str(caught.value)
    assert (copied / "exports" / "model.onnx").read_bytes() == kept
    assert not list((copied / "exports").glob(".*"))


def test_what_cannot_be_exported_is_one_sentence_about_the_cause(copied: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Next steps:\n- Create an issue") from ValueError("no such\noperator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ArtefactError, match=r"this resnet could not be exported \(ValueError: no such operator\)"):
        export_model(copied, "onnx", out=copied / "fresh")
    assert not list((copied / "fresh").iterdir())


@pytest.mark.parametrize("wrong", [1, 4])
def test_both_batch_sizes_are_compared(wrong: int):
    pixels, expected = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.ones(4, 5)

    def run(batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), 5), 1.5 if len(batch) == wrong else 1.0, dtype=np.float32)

    assert exporting.replayed(run, pixels, expected) == 0.5
    assert exporting.replayed(lambda batch: np.ones((len(batch), 5), np.float32), pixels, expected) == 0
    assert exporting.replayed(lambda batch: np.ones((4, 5), np.float32), pixels, expected) == float("inf")
    assert np.isnan(exporting.replayed(lambda b: np.full((len(b), 5), np.nan, np.float32), pixels, expected))


def test_a_graph_that_cannot_run_is_refused():
    def run(batch: np.ndarray) -> np.ndarray:
        raise RuntimeError("batch must be 4")

    with pytest.raises(ArtefactError, match=r"cannot be run \(RuntimeError: batch must be 4\)"):
        exporting.replayed(run, torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.ones(4, 5))


@pytest.mark.parametrize("to", FORMATS)
def test_int8_keeps_the_classes(traced, copied: Path, tuned: TunedModel, digits: dict[str, ImageSplit], to: str):
    made = export_model(copied, to, calibration=digits["val"])
    assert made.agreement is not None
    assert made.agreement >= 0.99
    assert made.graph.name == f"model-int8{exporting.FORMATS[to]}"
    weights = ".bin" if to == "openvino" else ".onnx"
    assert made.graph.with_suffix(weights).stat().st_size < 0.4 * (copied / f"exports/model{weights}").stat().st_size
    run = RUNNERS[to](made.graph)
    pixels = np.ascontiguousarray(digits["test"].batch().numpy())
    same = (run(pixels).argmax(axis=1) == tuned.predict(digits["test"]).numpy()).mean()
    assert same >= 0.96  # 50 images that calibrated nothing
    assert [e.sidecar.precision for e in verify_model(copied).exports].count("int8") == 1


def test_int8_gives_one_answer(traced, copied: Path, digits: dict[str, ImageSplit]):
    """On two threads OpenVINO's varies by a tenth of the largest logit."""
    graph = export_model(copied, "openvino", calibration=digits["val"]).graph
    pixels = np.ascontiguousarray(digits["test"].batch(np.arange(4)).numpy())
    run = RUNNERS["openvino"](graph, threads=2)
    assert len({run(pixels).tobytes() for _ in range(40)}) == 1


def test_int8_that_changes_classes_is_refused(traced, copied: Path, digits, monkeypatch: pytest.MonkeyPatch):
    """Calibrated on black images, every activation saturates."""
    quantise = tracing.quantise
    black = ImageSplit(
        name="black",
        ids=tuple(str(i) for i in range(16)),
        sources=tuple(np.zeros((32, 32, 3), dtype=np.uint8) for _ in range(16)),
        labels=np.full(16, -1),
        classes=(),
    )
    black, _ = prepare_split(black, load_backbone("builtin/glyph").preprocessing)
    monkeypatch.setattr(tracing, "quantise", lambda a, b, images, **rest: quantise(a, b, black, **rest))
    with pytest.raises(ArtefactError, match=r"int8 gives \d+\.\d % of the calibration images another class"):
        export_model(copied, "onnx", calibration=digits["val"])
    assert not list((copied / "exports").glob("*int8*"))


@pytest.mark.parametrize("recipe", [KNN(k=5), GaussianNaiveBayes()], ids=["knn", "naive-bayes"])
def test_heads_that_are_not_linear_are_exported_too(digits, tmp_path: Path, recipe: KNN | GaussianNaiveBayes):
    backbone = load_backbone("builtin/glyph")
    model = on_backbone(backbone, recipe.fit(embed(backbone, digits["train"])))
    made = export_model(save_model(model, tmp_path / "model"), "onnx", out=tmp_path / "model.onnx")
    assert made.graph == tmp_path / "model.onnx"
    assert relative_difference(RUNNERS["onnx"](made.graph), model, digits["test"], 16) < 1e-4


@pytest.mark.parametrize(
    ("to", "out", "message"),
    [
        ("onx", None, "unknown format 'onx'; did you mean 'onnx'"),
        ("onnx", "model.xml", "an export to onnx is a .onnx file"),
        ("onnx", "headfirst.json", "headfirst.json is a file; give a folder"),
        ("onnx", "mine.onnx", "is there already and no export of Headfirst"),
    ],
)
def test_wrong_requests_are_refused(copied: Path, to: str, out: str | None, message: str):
    (copied / "mine.onnx").write_text("mine")
    with pytest.raises(InputError, match=message):
        export_model(copied, to, out=None if out is None else copied / out)
    assert (copied / "mine.onnx").read_text() == "mine"


def test_few_calibration_images_are_refused(copied: Path, digits: dict[str, ImageSplit]):
    with pytest.raises(InputError, match="at least 16 calibration images, got 15"):
        export_model(copied, "onnx", calibration=digits["val"].take(range(15)))


def test_a_missing_package_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs onnxscript; pip install 'headfirst\[export\]'"):
        export_model(copied, "onnx")


def test_openvino_sends_nothing(exported: Path):
    assert sys.modules["openvino"]
    assert sys.modules["openvino_telemetry"] is None
    assert "openvino.tools.ovc.telemetry_stub" in sys.modules


def test_verify_replays_everything(exported: Path):
    verified = verify_model(exported)
    assert verified.checked.mismatch == 0
    assert [e.graph.name for e in verified.exports] == ["model.onnx", "model.xml"]
    assert all(e.mismatch is not None and e.mismatch < 1e-5 for e in verified.exports)


def rewrite(path: Path, *, sealing: bool, **entries: object) -> None:
    about = {**json.loads(path.read_text()), **entries}
    path.write_text(sealed(about) if sealing else json.dumps(about))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_a_number(folder: Path) -> None:
    """Another graph with the right hash: the bias of the head is off by a tenth."""
    import onnx

    graph = onnx.load(folder / "model.onnx")
    bias = next(t for t in graph.graph.initializer if t.name.endswith("head.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.1), bias.name))
    onnx.save(graph, folder / "model.onnx")
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    rewrite(folder / "model.onnx.json", sealing=True, files={"model.onnx": digest})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip(f / "model.onnx"), "model.onnx is not the file that was saved"),
        (lambda f: flip(f / "model.bin"), "model.bin is not the file that was saved"),
        (lambda f: (f / "model.bin").unlink(), "model.bin is missing"),
        (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda f: (f / "model.onnx.json").unlink(), "model.onnx.json is missing, without which"),
        (
            lambda f: rewrite(f / "model.onnx.json", sealing=False, classes=list("1023456789")),
            "model.onnx.json was changed after it was saved",
        ),
        (lambda f: rewrite(f / "model.onnx.json", sealing=True, model="0" * 64), "exported from another model"),
        (lambda f: rewrite(f / "model.onnx.json", sealing=True, files={"../x": "0"}), "names files elsewhere"),
        (lambda f: rewrite(f / "model.onnx.json", sealing=True, colour=1), "not understood: colour"),
        (change_a_number, r"model.onnx differs from PyTorch by .* of the largest logit"),
        (lambda f: (f.parent / "head.safetensors").unlink(), "head.safetensors is missing"),
    ],
)
def test_verify_refuses_each_damage_in_its_own_words(copied: Path, damage, message: str):
    damage(copied / "exports")
    with pytest.raises(ArtefactError, match=message):
        verify_model(copied)


def test_without_the_runtime_the_hash_is_all_there_is(exported: Path, monkeypatch: pytest.MonkeyPatch):
    import headfirst.artefact.verify as verifying

    monkeypatch.setattr(verifying, "find_spec", lambda name: None)
    assert [e.mismatch for e in verify_model(exported).exports] == [None, None]


@pytest.mark.real
@pytest.mark.parametrize("to", FORMATS)
def test_a_real_backbone_on_real_photographs(mobilenet: Path, pacs: Path, tmp_path: Path, to: str):
    backbone = load_backbone(mobilenet)
    paths = sorted(pacs.glob("train/*/*.jpg"))[::6]
    images = prepare(read_paths(paths), backbone.preprocessing)["unlabelled"]
    names = [Path(id_).parent.name for id_ in images.ids]
    classes = tuple(sorted(set(names)))
    labelled = ImageSplit(**{**vars(images), "labels": np.array([classes.index(n) for n in names]), "classes": classes})
    model = on_backbone(backbone, LinearProbe().fit(embed(backbone, labelled)))
    made: Exported = export_model(save_model(model, tmp_path / "model"), to)
    assert made.mismatch < 1e-4
    run = RUNNERS[to](made.graph)
    pixels = np.ascontiguousarray(images.batch(range(8)).numpy())
    expected = model.predictions(images.take(range(8))).values.numpy()
    assert np.abs(run(pixels) - expected).max() < 1e-4 * np.abs(expected).max()
