"""The loss with a teacher: against the formula, at its two ends, and where some rows have no label."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.train.soft import SoftTargets, alignment

THREE = SingleLabel(("a", "b", "c"))
LISTS = MultiLabel(("a", "b", "c"))
NUMBERS = Regression(("x", "y"), means=(10.0, 0.0), scales=(5.0, 1.0))
LABELS = {
    THREE: ["a", "c", "c", "b"],
    LISTS: ['["a"]', "[]", '["a", "c"]', '["b"]'],
    NUMBERS: ['{"x": 1, "y": 2}', '{"x": 9, "y": 0}', '{"x": 12, "y": -1}', '{"x": 30, "y": 4}'],
}
TASKS = pytest.mark.parametrize("task", LABELS, ids=lambda task: task.name)


def logits_of(task, seed, n=4):
    return torch.from_numpy(np.random.RandomState(seed).normal(0, 2, (n, task.n_outputs)))


def taught(task, seed=1, n=4):
    """A teacher's outputs and its logits."""
    logits = logits_of(task, seed, n)
    return task.outputs(logits).numpy(), logits


def soft_part(task, student, teacher, t):
    """By the formula, from both sides' logits."""
    if task is THREE:
        p, q = (F.softmax(x / t, dim=1) for x in (teacher, student))
        return t**2 * (p * (p / q).log()).sum() / len(p)
    if task is LISTS:
        p, q = (torch.sigmoid(x / t) for x in (teacher, student))
        return t**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    return ((student - teacher) ** 2).mean()  # logits are standardised numbers


@TASKS
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_loss_is_the_formula(task, temperature):
    student, (outputs, teacher) = logits_of(task, 0), taught(task)
    soft = SoftTargets(task, temperature, 0.3)
    found = soft.loss(student, soft.targets(LABELS[task], outputs))
    hard = task.targets(LABELS[task])
    wanted = 0.7 * task.loss(student, hard) + 0.3 * soft_part(task, student, teacher, temperature)
    torch.testing.assert_close(found, wanted.double(), rtol=1e-5, atol=1e-6)


@TASKS
def test_rows_without_a_label_have_the_soft_part_alone(task):
    student, (outputs, teacher) = logits_of(task, 0, 6), taught(task, n=6)
    soft = SoftTargets(task, 2.0, 0.3)
    targets = soft.targets(LABELS[task], outputs)
    first = soft.loss(student[:4], targets[:4])
    rest = soft_part(task, student[4:], teacher[4:], 2.0)
    torch.testing.assert_close(soft.loss(student[4:], targets[4:]), rest, rtol=1e-5, atol=1e-6)
    # A batch is the mean of its parts, by their weights, as the loop puts them together.
    weights = soft.loss_weight(targets[:4]), soft.loss_weight(targets[4:])
    torch.testing.assert_close(
        soft.loss(student, targets), (weights[0] * first + weights[1] * rest) / 6, rtol=1e-5, atol=1e-6
    )
    measured = soft.measure(student, targets)
    assert measured == pytest.approx(task.measure(student[:4], task.targets(LABELS[task])), abs=1e-6)


@TASKS
def test_a_share_of_nothing_is_plain_training(task):
    student, (outputs, _) = logits_of(task, 0).requires_grad_(), taught(task)
    soft = SoftTargets(task, 2.0, 0.0)
    soft.loss(student, soft.targets(LABELS[task], outputs)).backward()
    plain = logits_of(task, 0).requires_grad_()
    hard = task.targets(LABELS[task])
    task.loss(plain, hard.double() if hard.is_floating_point() else hard).backward()
    torch.testing.assert_close(student.grad, plain.grad)


def test_plain_targets_have_the_loss_of_the_task():
    for task, labels in LABELS.items():
        hard, student = task.targets(labels), logits_of(task, 0).float()
        soft = SoftTargets(task, 2.0, 0.9)
        assert soft.loss(student, hard) == task.loss(student, hard)
        assert soft.measure(student, hard) == task.measure(student, hard)


def test_a_high_temperature_matches_logits():
    """Equation 4 of Hinton et al. 2015: for logits of mean 0 it is (z - v) / (N T²), here times T²."""
    student, (outputs, teacher) = logits_of(THREE, 0).requires_grad_(), taught(THREE)
    soft = SoftTargets(THREE, 1e4, 1.0)
    soft.loss(student, soft.targets([], outputs)).backward()
    centred = [x - x.mean(dim=1, keepdim=True) for x in (student.detach(), teacher)]
    wanted = (centred[0] - centred[1]) / THREE.n_outputs / len(student)
    torch.testing.assert_close(student.grad, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("task", [THREE, LISTS], ids=["single", "multi"])
def test_a_teacher_that_is_certain_leaves_the_loss_finite(task):
    outputs = np.eye(3, dtype=np.float32)
    soft = SoftTargets(task, 2.0, 0.5)
    logits = torch.tensor([[0.0, 200.0, -200.0]] * 3, requires_grad=True)
    loss = soft.loss(logits, soft.targets(LABELS[task][:3], outputs).float())
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_alignment_is_the_formula_whichever_way_vectors_are_turned():
    """CKA with a linear kernel as Kornblith et al. write it, over features in place of texts."""
    random = np.random.RandomState(0)
    x, y = random.normal(1, 2, (20, 6)), random.normal(0, 1, (20, 3))
    x[:, :3] += 3 * y
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    wanted = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert 0.2 < wanted < 0.95
    turned = 7 * x @ np.linalg.qr(random.normal(0, 1, (6, 6)))[0] + 100
    for each in (x, turned):
        found = alignment(torch.from_numpy(each), torch.from_numpy(y))
        torch.testing.assert_close(found.item(), wanted)
    torch.testing.assert_close(alignment(torch.from_numpy(x), torch.from_numpy(turned)).item(), 1.0)


@TASKS
def test_vectors_behind_the_logits_are_compared_with_the_teachers(task):
    student, (outputs, _) = logits_of(task, 0), taught(task)
    theirs, ours = (np.random.RandomState(seed).normal(0, 1, (4, n)) for seed, n in ((2, 5), (3, 7)))
    soft = SoftTargets(task, 2.0, 0.3, hidden=1.5)
    targets = soft.targets(LABELS[task], np.concatenate([outputs, theirs], axis=1))
    plain = SoftTargets(task, 2.0, 0.3).loss(student, soft.targets(LABELS[task], outputs))
    ours = torch.from_numpy(ours).requires_grad_()
    added = soft.loss(torch.cat([student, ours], dim=1), targets) - plain
    torch.testing.assert_close(added, 1.5 * (1 - alignment(ours, torch.from_numpy(theirs))))
    added.backward()
    assert ours.grad.abs().max() > 0
    torch.testing.assert_close(soft.loss(student, targets), plain)  # as it is looked at between steps
    assert soft.measure(student, targets) == task.measure(student, task.targets(LABELS[task]))


def test_vectors_that_are_all_the_same_or_alone_are_no_division_by_nothing():
    for n in (1, 4):
        same = torch.ones(n, 3, requires_grad=True)
        found = alignment(same, torch.randn(n, 2))
        found.backward()
        assert found.item() == 0
        assert torch.equal(same.grad, torch.zeros(n, 3))
