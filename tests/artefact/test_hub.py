"""A model fetched by its id, a model pushed, and every refusal in one sentence; only the network is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

from headfirst.adapt import LinearProbe, TunedModel, on_backbone
from headfirst.artefact import load_model, push_model, save_model
from headfirst.data import ImageSet
from headfirst.errors import ArtefactError, InputError
from headfirst.features import embed
from headfirst.nn import PretrainedBackbone


@pytest.fixture
def model(backbone: PretrainedBackbone, images: ImageSet) -> TunedModel:
    return on_backbone(backbone, LinearProbe().fit(embed(backbone, images["train"])))


@pytest.fixture
def saved(model: TunedModel, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "model")


class Hub:
    """What the hub keeps: one repository as a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.public, self.calls = folder, False, []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", repo_id, private))

    def model_info(self, repo_id: str) -> SimpleNamespace:
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, *, folder_path: Path, allow_patterns: list[str], **rest: Any) -> SimpleNamespace:
        paths = [path.relative_to(folder_path).as_posix() for path in folder_path.rglob("*") if path.is_file()]
        for name in huggingface_hub.utils.filter_repo_objects(paths, allow_patterns=allow_patterns):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder_path / name, self.folder / name)
        return SimpleNamespace(commit_url="https://hub/commit/1")

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str], **rest: Any) -> str:
        self.calls.append(("download", repo_id, revision))
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    hub = Hub(tmp_path / "hub")
    hub.folder.mkdir()
    for name in ("create_repo", "model_info", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(hub, name))
    return hub


def test_what_is_pushed_is_loaded_by_its_id(hub: Hub, saved: Path, model: TunedModel, images: ImageSet):
    (saved / "notes.txt").write_text("private")
    assert push_model(saved, "someone/colours") == "https://hub/commit/1"
    loaded = load_model("someone/colours", revision="v1")
    assert torch.equal(loaded.predictions(images["test"]).values, model.predictions(images["test"]).values)
    assert hub.calls == [("create", "someone/colours", True), ("download", "someone/colours", "v1")]
    assert not (hub.folder / "notes.txt").exists()


def test_a_damaged_model_is_not_pushed(hub: Hub, saved: Path):
    (saved / "head.safetensors").unlink()
    with pytest.raises(ArtefactError, match="missing"):
        push_model(saved, "someone/colours")
    assert hub.calls == []


def test_nothing_private_goes_to_a_public_place(hub: Hub, saved: Path):
    hub.public = True
    with pytest.raises(InputError, match=r"someone/colours exists and is public; pass private=False"):
        push_model(saved, "someone/colours")
    assert not any(hub.folder.iterdir())
    push_model(saved, "someone/colours", private=False)
    assert (hub.folder / "headfirst.json").is_file()


def test_without_a_token_the_push_says_what_to_do(hub: Hub, saved: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise huggingface_hub.errors.LocalTokenNotFoundError("no token")

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(InputError, match=r"could not be written \(LocalTokenNotFoundError: no token\); run `hf auth"):
        push_model(saved, "someone/colours")
    with pytest.raises(InputError, match="'colours' is no hub id; give owner/name"):
        push_model(saved, "colours")


def test_a_repository_without_a_model_is_named(hub: Hub):
    with pytest.raises(InputError, match="someone/else on the hub is no Headfirst model"):
        load_model("someone/else")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            huggingface_hub.errors.LocalEntryNotFoundError("offline"),
            "the hub cannot be reached; connect",
        ),
        (OSError("reset"), r"could not be fetched \(OSError: reset\); try again"),
    ],
)
def test_an_unreachable_id_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str):
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match=f"there is no folder someone/else, and .*{message}") as caught:
        load_model("someone/else")
    assert "\n" not in str(caught.value)


def test_offline_means_offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"no folder headfirst-tests/not-there, and .* hub cannot be reached"):
        load_model("headfirst-tests/not-there")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/else", "a/b/c", "nowhere", Path("some/where")])
def test_paths_never_ask_the_hub(hub: Hub, name: str | Path):
    with pytest.raises(InputError, match="does not exist; give the model"):
        load_model(name)
    assert hub.calls == []


def test_a_revision_of_a_folder_makes_no_sense(saved: Path):
    with pytest.raises(InputError, match="local folder, which has no revision 'v1'"):
        load_model(saved, revision="v1")
