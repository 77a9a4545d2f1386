"""Distillation: a small student gives the features of a large teacher, on images without labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from headfirst.data import View, Views
from headfirst.nn import PretrainedBackbone
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import as_input
from headfirst.randomness import Draw
from headfirst.types import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The student's features, linearly mapped, match the teacher's standardised ones on the same view.

    Attributes:
        teacher: any backbone; it stays as it is, bit for bit.
        teacher_hash: its fingerprint, which names it in the run's identity.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3, at the last layer; the same view
    for both: Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent", CVPR 2022. Deviation:
    the teacher's features are standardised without an affine part, layer norm over the features of an image, so that
    no batch enters.
    """

    teacher: PretrainedBackbone = field(repr=False)
    teacher_hash: str = field(init=False)

    method: ClassVar[str] = "distil"
    compares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher_hash", self.teacher.fingerprint)

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> Student:
        """See `Pretext`."""
        with seeded(seed, 1):
            projection = nn.Linear(backbone.feature_dim, self.teacher.feature_dim)
        return Student(backbone, projection, self.teacher)

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.gentle(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """The larger of the two geometries: the teacher should see what it can."""
        of_teacher, of_student = self.teacher.preprocessing, backbone.preprocessing
        return of_teacher if sum(of_teacher.size) > sum(of_student.size) else of_student

    def mended(self, attempt: int) -> None:
        """Only a smaller learning rate helps."""


class Student(nn.Module):
    """Backbone and a linear map to the teacher's features; a row is the loss of one image."""

    def __init__(self, backbone: PretrainedBackbone, projection: nn.Linear, teacher: PretrainedBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection
        self.__dict__["teacher"] = teacher  # past registration: it is neither trained nor saved

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b 1"]:
        """Mean squared distance of each image's two descriptions."""
        teacher: PretrainedBackbone = self.__dict__["teacher"].to(images.device)
        shown = [
            as_input(views(images, draw, 0, size=each.preprocessing.size), each) for each in (self.backbone, teacher)
        ]
        with torch.no_grad():
            wanted = teacher(shown[1])
            wanted = nn.functional.layer_norm(wanted, wanted.shape[1:])
        return (self.projection(self.backbone(shown[0])) - wanted).square().mean(dim=1, keepdim=True)

    def loss(self, rows: Float[Tensor, "n 1"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """The mean over the images."""
        return rows.mean()

    def stepped(self) -> None:
        """Nothing follows a step."""

    def taught(self) -> PretrainedBackbone:
        """The backbone without the linear map."""
        return self.backbone
