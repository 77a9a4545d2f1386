"""DINO: a student that sees small crops agrees with a teacher that sees large ones; the teacher is its own average."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.distributed as dist
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from headfirst.data import View, Views
from headfirst.errors import InputError
from headfirst.nn import (
    PretrainedBackbone,
    dino_loss,
    features_at,
    teacher_entropies,
    teacher_probabilities,
)
from headfirst.nn.seeds import seeded
from headfirst.pretrain.pretext import as_input, mlp, rows_of_views, whole_patches
from headfirst.randomness import Draw
from headfirst.train import update_average
from headfirst.types import Preprocessing

_GLOBAL = 2


@dataclass(frozen=True, kw_only=True)
class DINO:
    """Self-distillation with multi-crop, centring and sharpening.

    Attributes:
        prototypes: K, how many classes the two make up between them.
        local_crops: small views that only the student sees; with the two large ones, all but the same pair agree.
        local_size: side of a small view as a share of the image's.
        global_area, local_area: what share of the image the views show.
        student_temperature, teacher_temperature: of the softmaxes; the teacher's is the sharper.
        momentum: of the teacher's average of the student, rising to 1 along half a cosine.
        center_momentum: of the running mean that is taken off the teacher's logits.

    Source: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, sections 3.1 and 3.2.
    Deviations: sized for small sets (fewer prototypes, a smaller head with layer norm, a faster teacher, and one twice
    as sharp: at 0.04 it fell silent on the embedded digits); the teacher's temperature does not warm up.
    """

    prototypes: int = 1024
    local_crops: int = 4
    local_size: float = 0.5
    global_area: tuple[float, float] = (0.4, 1.0)
    local_area: tuple[float, float] = (0.1, 0.4)
    student_temperature: float = 0.1
    teacher_temperature: float = 0.02
    momentum: float = 0.99
    center_momentum: float = 0.9

    method: ClassVar[str] = "dino"
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.prototypes < 2 or self.local_crops < 0 or not 0 < self.local_size <= 1:
            raise InputError(
                "prototypes must be at least 2, local_crops at least 0 and local_size in (0, 1], got "
                f"{self.prototypes}, {self.local_crops} and {self.local_size}"
            )
        if not 0 < self.teacher_temperature <= self.student_temperature:
            raise InputError(
                "the teacher must be at least as sharp as the student, 0 < teacher_temperature <= student_temperature; "
                f"got {self.teacher_temperature} and {self.student_temperature}"
            )
        if not (0 <= self.momentum <= 1 and 0 <= self.center_momentum < 1):
            raise InputError(f"momenta lie in [0, 1), got {self.momentum} and {self.center_momentum}")

    @classmethod
    def handwriting(cls) -> DINO:
        """Larger crops and fewer: a third of a digit shows no digit, and from such crops the teacher fell silent."""
        return cls(global_area=(0.8, 1.0), local_area=(0.4, 0.8), local_crops=2)

    def learner(self, backbone: PretrainedBackbone, *, seed: int, num_steps: int) -> StudentAndTeacher:
        """See `Pretext`."""
        with seeded(seed, 1):
            head = PrototypeHead(backbone.feature_dim, self.prototypes)
        return StudentAndTeacher(backbone, head, self, num_steps)

    def views(self, *, mirror: bool) -> View:
        """See `Pretext`."""
        return Views.photographs(mirror=mirror)

    def preprocessing(self, backbone: PretrainedBackbone) -> Preprocessing:
        """See `Pretext`."""
        return backbone.preprocessing

    def mended(self, attempt: int) -> tuple[DINO, str]:
        """A sharper teacher against one that says nothing, then a quicker centre against one that always says the
        same: section 5.3."""
        if attempt % 2 == 0:
            sharper = self.teacher_temperature / 2
            return replace(self, teacher_temperature=sharper), f"the teacher's temperature lowered to {sharper:g}"
        momentum = self.center_momentum / 2
        return replace(self, center_momentum=momentum), f"the centre's momentum lowered to {momentum:g}"


class PrototypeHead(nn.Module):
    """Features → bottleneck of unit length → cosines with unit prototypes, times their one shared length of 1."""

    def __init__(self, num_features: int, prototypes: int, bottleneck: int = 64) -> None:
        super().__init__()
        self.project = mlp(num_features, max(num_features, 256), bottleneck)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return F.linear(F.normalize(self.project(features), dim=1), F.normalize(self.prototypes, dim=1))


class StudentAndTeacher(nn.Module):
    """Two copies of backbone and head. Rows are the student's logits of all views, then the teacher's of the large."""

    center: Tensor
    batch_center: Tensor
    steps_done: Tensor

    def __init__(self, backbone: PretrainedBackbone, head: PrototypeHead, task: DINO, num_steps: int) -> None:
        super().__init__()
        self.task, self.num_steps = task, num_steps
        self.backbone, self.head = backbone, head
        self.teacher, self.teacher_head = copy.deepcopy(backbone), copy.deepcopy(head)
        self.teacher.requires_grad_(False)
        self.teacher_head.requires_grad_(False)
        self.register_buffer("center", torch.zeros(task.prototypes))
        self.register_buffer("batch_center", torch.zeros(task.prototypes))
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        height, width = (whole_patches(backbone, side * task.local_size) for side in backbone.preprocessing.size)
        self.local = (height, width)

    def encode(self, images: UInt8[Tensor, "b 3 h w"], draw: Draw, views: View) -> Float[Tensor, "b v k"]:
        """(b, 2 + local + 2, K) logits."""
        preprocessing, task = self.backbone.preprocessing, self.task
        large = torch.cat(
            [views(images, draw, i, size=preprocessing.size, area=task.global_area) for i in range(_GLOBAL)]
        )
        large = as_input(large, self.backbone)
        rows = [rows_of_views(self.head(self.backbone(large)), _GLOBAL)]
        if task.local_crops:
            numbers = range(_GLOBAL, _GLOBAL + task.local_crops)
            small = torch.cat([views(images, draw, i, size=self.local, area=task.local_area) for i in numbers])
            seen = features_at(self.backbone, as_input(small, self.backbone))
            rows.append(rows_of_views(self.head(seen), task.local_crops))
        with torch.no_grad():
            rows.append(rows_of_views(self.teacher_head(self.teacher(large)), _GLOBAL))
        return torch.cat(rows, dim=1)

    def loss(self, rows: Float[Tensor, "n v k"], draw: Draw, workers: dist.ProcessGroup | None) -> Tensor:
        """`dino_loss`, the mean over all pairs of a large view of the teacher and another of the student."""
        student, teacher = rows[:, :-_GLOBAL], rows[:, -_GLOBAL:].detach()
        self.batch_center = mean_of_all(teacher.flatten(0, 1), workers)
        pairs = [(t, s) for t in range(_GLOBAL) for s in range(student.shape[1]) if s != t]
        task = self.task
        return torch.stack(
            [dino_loss(student[:, s], teacher[:, t], self.center, task.student_temperature, task.teacher_temperature)
             for t, s in pairs]
        ).mean()  # fmt: skip

    @torch.no_grad()
    def stepped(self) -> None:
        """The teacher follows the student, and the centre the teacher's logits: equations 4 and section 3.1."""
        share = float(self.steps_done) / max(1, self.num_steps)
        momentum = 1 - (1 - self.task.momentum) * (1 + math.cos(math.pi * share)) / 2
        for mine, theirs in ((self.teacher, self.backbone), (self.teacher_head, self.head)):
            update_average(list(mine.parameters()), list(theirs.parameters()), momentum)
        self.center.lerp_(self.batch_center, 1 - self.task.center_momentum)
        self.steps_done += 1

    def taught(self) -> PretrainedBackbone:
        """The teacher, which is the better of the two throughout (section 5.2)."""
        return self.teacher

    @torch.no_grad()
    def entropies(self, images: Float[Tensor, "b 3 h w"]) -> tuple[float, float]:
        """`teacher_entropies` on normalised images."""
        logits = self.teacher_head(self.teacher(images))
        return teacher_entropies(teacher_probabilities(logits, self.center, self.task.teacher_temperature))


def mean_of_all(rows: Float[Tensor, "n k"], workers: dist.ProcessGroup | None) -> Float[Tensor, " k"]:
    """The mean row over all workers."""
    total, count = rows.sum(dim=0), torch.tensor(float(len(rows)), device=rows.device)
    if workers is not None:
        dist.all_reduce(total, group=workers)
        dist.all_reduce(count, group=workers)
    return total / count
