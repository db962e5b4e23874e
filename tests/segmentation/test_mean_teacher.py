"""The mean teacher against its formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from medgen.seeds import torch_rng
from medgen.segmentation.mean_teacher import MeanTeacher, ema_decay, ramp_up
from medgen.segmentation.recipe import Consistency
from medgen.system.precision import precision_of
from medgen.training.trainer import device_of

PRECISION = precision_of("32", device_of("cpu"))


class Scores(nn.Module):
    """Scores (0, a) wherever the voxel is, for a single weight a."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image), self.value.expand_as(image)], dim=1)


def test_the_teacher_is_the_moving_average_of_the_student() -> None:
    student = Scores(1.0)
    teacher = MeanTeacher(student, Consistency(torch.rand(2, 1, 4, 4, 4), decay=0.9))
    expected = 1.0
    for step in range(30):
        with torch.no_grad():
            student.value.fill_(math.sin(step))
        teacher.update(student, step)
        alpha = min(1 - 1 / (step + 1), 0.9)
        expected = alpha * expected + (1 - alpha) * math.sin(step)
        assert float(teacher.network.value.detach()) == pytest.approx(expected, abs=1e-5)
    assert not teacher.network.value.requires_grad
    assert ema_decay(0, 0.9) == 0


def test_the_loss_is_the_weighted_squared_difference_and_moves_the_student_only() -> None:
    student = Scores(2.0)
    config = Consistency(torch.rand(3, 1, 4, 4, 4), weight=0.5, ramp=0.4)
    teacher = MeanTeacher(Scores(-1.0), config)
    difference = 1 / (1 + math.exp(-2)) - 1 / (1 + math.exp(1))
    for progress in (0.0, 0.2, 0.4, 1.0):
        loss = teacher.loss(student, 2, progress, None, PRECISION, torch_rng(0))
        expected = 0.5 * math.exp(-5 * max(1 - progress / 0.4, 0) ** 2) * difference**2
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert student.value.grad is not None
    assert float(student.value.grad) > 0
    assert teacher.network.value.grad is None
    assert ramp_up(0.0, 0.0) == 1
