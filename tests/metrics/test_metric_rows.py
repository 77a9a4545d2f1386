import pytest
import torch

from headfirst import metrics
from headfirst.errors import InputError

CLASSES = ("a", "b", "c")


def simulated(seeds=2, n=90, skill=1.5):
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (n,), generator=random)  # class c has no images
    logits = torch.randn(seeds, n, 3, generator=random, dtype=torch.float64)
    return (logits + skill * torch.nn.functional.one_hot(labels, 3)).log_softmax(2), labels


def rows_by_metric(log_p, labels, **options):
    rows = metrics.metric_rows("probe", "test", "val", log_p, labels, seed=0, **options)
    return {row.metric: row for row in rows}


def test_each_value_is_the_public_metric_averaged_over_seeds():
    log_p, labels = simulated()
    rows = rows_by_metric(log_p, labels, classes=CLASSES)
    expected = {
        "accuracy": lambda one: metrics.accuracy(one, labels),
        "balanced_accuracy": lambda one: metrics.balanced_accuracy(one, labels),
        "log_loss": lambda one: metrics.log_loss(one, labels),
        "brier_score": lambda one: metrics.brier_score(one.exp(), labels),
        "expected_calibration_error": lambda one: metrics.expected_calibration_error(one.exp(), labels, binning="mass"),
        "expected_calibration_error_width": lambda one: metrics.expected_calibration_error(one.exp(), labels),
        "class_accuracy:a": lambda one: metrics.per_class_accuracy(one, labels)[0].item(),
        "class_accuracy:b": lambda one: metrics.per_class_accuracy(one, labels)[1].item(),
    }
    assert rows.keys() == expected.keys()
    for metric, compute in expected.items():
        mean = sum(compute(one) for one in log_p) / len(log_p)
        row = rows[metric]
        assert row.value == pytest.approx(mean, abs=1e-12), metric
        assert row.low < row.high
        assert row.low <= row.value <= row.high
        assert (row.method, row.split, row.chosen_on, row.seed_count) == ("probe", "test", "val", 2)
    assert rows["accuracy"].n == 90
    assert rows["class_accuracy:a"].n == int((labels == 0).sum())


def test_a_confident_vote_for_the_wrong_class_stays_finite():
    p = torch.eye(3, dtype=torch.float64)[[1, 0, 1]]
    rows = rows_by_metric(p.log()[None], torch.tensor([0, 0, 1]))
    assert rows["log_loss"].value == pytest.approx(36.0437 / 3, abs=1e-4)
    assert rows["log_loss"].high <= 36.05


def test_difference_is_the_difference_of_the_accuracies():
    (a, labels), (b, _) = simulated(seeds=3, skill=2.5), simulated(seeds=3, skill=1.0)
    a_right, b_right = metrics.is_correct(a, labels), metrics.is_correct(b, labels)
    row = metrics.difference_row("lp-ft", "probe", "test", "val", a_right, b_right, seed=0)
    difference = rows_by_metric(a, labels)["accuracy"].value - rows_by_metric(b, labels)["accuracy"].value
    assert row.value == pytest.approx(difference)
    assert (row.metric, row.baseline, row.n, row.seed_count) == ("accuracy_difference", "probe", 90, 3)


def test_shifts_are_summed_up_each_counting_alike():
    right = {"shift-x": torch.ones(1, 10).bool(), "shift-y": torch.arange(40)[None] % 4 == 0}
    row = metrics.mean_over_shifts_row("knn", "fixed", right, seed=0)
    assert (row.value, row.split, row.n) == (0.625, "mean over shifts", 50)
    wrong = {name: ~block for name, block in right.items()}
    row = metrics.mean_difference_over_shifts_row("knn", "probe", "fixed", right, wrong, seed=0)
    assert (row.value, row.baseline) == (0.25, "probe")


def test_the_worst_shift_has_the_least_bounds():
    log_p, labels = simulated()
    first = rows_by_metric(log_p, labels)["accuracy"]
    second = rows_by_metric(log_p[:, :20], labels[:20])["accuracy"]
    worst = metrics.worst_shift_row([first, second])
    assert worst.split == "worst shift"
    assert worst.value == min(first.value, second.value)
    assert (worst.low, worst.high) == (min(first.low, second.low), min(first.high, second.high))


def test_refuses_class_names_that_do_not_fit_and_logits():
    log_p, labels = simulated()
    with pytest.raises(InputError, match="need 3 class names, got 1"):
        rows_by_metric(log_p, labels, classes=("a",))
    with pytest.raises(InputError, match="apply log_softmax"):
        rows_by_metric(log_p * 2, labels)
