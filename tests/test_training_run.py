"""Training of variants: shared initial weights, exact resumption, budgets, whole checkpoints."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

from perimetry.adapters.errors import InputError, ModelFileError, NotApplicableError
from perimetry.adapters.trainable import open_trainable, pad_trainable
from perimetry.bench.output.files import StoreError
from perimetry.bench.training import trainer
from perimetry.bench.training.experiment import Experiment, Recipe, TrainingRun
from perimetry.bench.training.study import TrainingStudy, pairs
from perimetry.bench.training.trainer import Clock, probed_epochs

RECIPE = Recipe(epochs=2, batch=8, rate=0.02)
EXPERIMENT = Experiment(
    network="tiny-resnet",
    tasks=("micro_object",),
    fills=("none", "zero"),
    seeds=1,
    size=(24, 24),
    train=24,
    test=16,
    recipe=RECIPE,
    export=0,
)
UNPADDED = TrainingRun("micro_object", "zero", 0)


def study(folder, **changes):
    return TrainingStudy(replace(EXPERIMENT, **changes), folder, device="cpu")


def steps_clock(steps):
    """A clock whose budget ends after so many looks at it."""
    ticks = iter(range(10**6))
    return Clock(steps, now=lambda: next(ticks))


def no_report(_share):
    return None


def tensors(one, variant=UNPADDED):
    return load_file(one.checkpoint(variant))


def test_variants_with_zero_fill_are_the_same_function_at_step_0(tmp_path):
    """Logits before any training differ by no more than 1e-6, and kernels did grow."""
    one = study(tmp_path)
    plain, padded = one.network("micro_object", 3), one.network("micro_object", 3)
    assert len(pad_trainable(padded, "zero").layers) == 5
    x = torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for net in (plain, padded):
        net.module.eval()
    torch.testing.assert_close(padded.module(x), plain.module(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize("fill", ["zero", "fresh", "box"])
def test_variants_share_every_weight_that_they_have_in_common(fill):
    """Parameters of the same name and shape hold the same numbers; all of them are trained."""
    plain, padded = (open_trainable("tiny-resnet", 2, (24, 24), seed=1) for _ in range(2))
    pad_trainable(padded, fill, seed=1)
    own = dict(plain.module.named_parameters())
    shared = {k: v for k, v in padded.module.named_parameters() if k in own}
    same = [k for k, v in shared.items() if v.shape == own[k].shape]
    assert len(same) >= len(own) - 5
    assert all(torch.equal(shared[k], own[k]) for k in same)
    assert all(p.requires_grad for p in padded.module.parameters())


def test_new_taps_learn(tmp_path):
    """After training the rows and columns that `zero` added are no longer 0."""
    one = study(tmp_path)
    found = one.run(UNPADDED, Clock(), no_report)
    taps = {k: v for k, v in found.module.named_parameters() if "_rows" in k}
    assert len(taps) == 5
    assert all(v.detach().abs().max() > 0 for v in taps.values())


@pytest.mark.parametrize("looks", [2, 4, 5])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path, looks):
    """Weights, momenta, generators and history are equal bit for bit, wherever it stopped."""
    whole, parts = study(tmp_path / "whole"), study(tmp_path / "parts")
    expected = whole.run(UNPADDED, Clock(), no_report)
    assert parts.run(UNPADDED, steps_clock(looks), no_report) is None
    found = study(tmp_path / "parts").run(UNPADDED, Clock(), no_report)
    assert found.history == expected.history
    a, b = tensors(whole), tensors(parts)
    assert a.keys() == b.keys()
    assert any(k.startswith("optimiser.") for k in a)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_dropout_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """What the network draws itself depends on the generator's state in the checkpoint."""
    real = trainer.Trainer.__init__

    def with_dropout(self, network, *args, **kwargs):
        network.module.head = torch.nn.Sequential(torch.nn.Dropout(0.5), network.module.head)
        real(self, network, *args, **kwargs)

    monkeypatch.setattr(trainer.Trainer, "__init__", with_dropout)
    whole, parts = study(tmp_path / "whole"), study(tmp_path / "parts")
    expected = whole.run(UNPADDED, Clock(), no_report)
    assert parts.run(UNPADDED, steps_clock(3), no_report) is None
    torch.manual_seed(99)
    assert parts.run(UNPADDED, Clock(), no_report).history == expected.history


def test_training_leaves_the_global_generator_alone(tmp_path):
    """Numbers drawn after training are those that would have been drawn without it."""
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    study(tmp_path, recipe=replace(RECIPE, epochs=1)).run(UNPADDED, Clock(), no_report)
    assert torch.equal(torch.rand(3), expected)


def test_the_same_seed_gives_the_same_history_and_another_seed_another(tmp_path):
    """Two folders agree in every number; seed 1 does not."""
    found = [
        study(tmp_path / name, first_seed=seed).run(
            replace(UNPADDED, seed=seed), Clock(), no_report
        )
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]  # fmt: skip
    assert found[0].history == found[1].history
    assert found[0].history.epochs[0]["loss"] != found[2].history.epochs[0]["loss"]


def test_a_full_disk_is_told_and_the_checkpoint_before_stays_whole(tmp_path, monkeypatch):
    """The error says what to do; what was saved is still what training goes on from."""
    one = study(tmp_path)
    assert one.run(UNPADDED, steps_clock(4), no_report) is None
    before = one.checkpoint(UNPADDED).read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="no space left"):
        one.run(UNPADDED, Clock(), no_report)
    assert one.checkpoint(UNPADDED).read_bytes() == before
    assert list(one.checkpoint(UNPADDED).parent.iterdir()) == [one.checkpoint(UNPADDED)]
    monkeypatch.undo()
    assert one.run(UNPADDED, Clock(), no_report) is not None


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", b"\x10\0\0\0\0\0\0\0{}"])
def test_a_damaged_checkpoint_is_refused_with_what_to_do(tmp_path, damage):
    """A damaged checkpoint is refused, and its file is not overwritten."""
    one = study(tmp_path)
    path = one.checkpoint(UNPADDED)
    path.parent.mkdir()
    path.write_bytes(damage)
    with pytest.raises(ModelFileError):
        one.run(UNPADDED, Clock(), no_report)
    assert path.read_bytes() == damage


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    """Tensors that do not fit are an error, and none is loaded."""
    one = study(tmp_path)
    one.run(UNPADDED, steps_clock(2), no_report)
    data, facts = trainer.load_checkpoint(one.checkpoint(UNPADDED))
    data.pop("model.head.weight")
    trainer.save_checkpoint(one.checkpoint(UNPADDED), data, facts)
    with pytest.raises(ModelFileError):
        one.run(UNPADDED, Clock(), no_report)


def test_a_study_stops_by_budget_and_goes_on(tmp_path):
    """Without time nothing is done and nothing recorded; with it every variant gets its record."""
    one = study(tmp_path)
    stopped = one.train(Clock(0.0))
    assert stopped.records == []
    assert stopped.remaining == one.runs()
    result = one.train()
    assert result.remaining == []
    assert [(r.protocol, r.fill) for r in result.records] == [
        ("micro_object", "none"),
        ("micro_object", "zero"),
    ]


def test_a_finished_study_trains_nothing_again(tmp_path):
    """A second call reads the checkpoints: equal numbers, and the files are untouched."""
    one = study(tmp_path)
    first = one.train().records
    stamps = [p.stat().st_mtime_ns for p in sorted((tmp_path / "checkpoints").iterdir())]
    again = study(tmp_path).train().records
    assert [r.metrics for r in first] == [r.metrics for r in again]
    assert [r.key for r in first] == [r.key for r in again]
    assert stamps == [p.stat().st_mtime_ns for p in sorted((tmp_path / "checkpoints").iterdir())]


def test_a_spent_budget_still_tells_what_is_finished(tmp_path):
    """The records of what was trained before need no more time."""
    first = study(tmp_path).train().records
    again = study(tmp_path).train(Clock(0.0))
    assert again.remaining == []
    assert [r.metrics for r in again.records] == [r.metrics for r in first]


def test_what_changes_the_numbers_changes_the_key(tmp_path):
    """Fill, seed, box, recipe and data each have a checkpoint of their own."""
    base = study(tmp_path)
    others = [
        base.checkpoint(replace(UNPADDED, fill="none")),
        base.checkpoint(replace(UNPADDED, seed=1)),
        study(tmp_path, side=2).checkpoint(UNPADDED),
        study(tmp_path, recipe=replace(RECIPE, rate=0.01)).checkpoint(UNPADDED),
        study(tmp_path, train=23).checkpoint(UNPADDED),
        study(tmp_path, network="small-resnet").checkpoint(UNPADDED),
    ]
    assert len({base.checkpoint(UNPADDED), *others}) == 7


def test_records_of_variants_pair_by_seed(tmp_path):
    """The difference of two variants' records has the interval of the seeds' differences."""
    from scipy.stats import t as student

    from perimetry.bench.statistics.difference import metric_difference

    result = study(tmp_path, seeds=4, recipe=replace(RECIPE, epochs=1)).train()
    ((treated, plain),) = pairs(result.records)
    found = metric_difference(treated, plain, "erf_end")
    rows = [[row["erf_end"] for row in r.tables["seeds"]] for r in (treated, plain)]
    each = torch.tensor(rows[0]) - torch.tensor(rows[1])
    half = float(each.std()) / 2 * float(student.ppf(0.975, 3))
    assert found.method == "paired"
    assert found.value == pytest.approx(float(each.mean()), abs=1e-5)
    assert found.high - found.value == pytest.approx(half, rel=0.15)


def test_a_loss_that_is_not_finite_is_told(tmp_path):
    """A rate far too high ends with the advice to lower it."""
    one = study(tmp_path, recipe=replace(RECIPE, rate=1e30))
    with pytest.raises(NotApplicableError, match="lower the rate"):
        one.run(UNPADDED, Clock(), no_report)


def test_bfloat16_trains_beside_float32(tmp_path):
    """Mixed precision changes the losses a little, and keeps float32 weights."""
    losses = []
    for precision in ("float32", "bfloat16"):
        one = study(tmp_path, recipe=replace(RECIPE, epochs=1, precision=precision))
        losses.append(one.run(UNPADDED, Clock(), no_report).history.epochs[0]["loss"])
        assert tensors(one)["model.head.weight"].dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_fewer_images_than_a_batch_are_refused(tmp_path):
    """Fewer images than a batch are refused with both numbers."""
    one = study(tmp_path, recipe=replace(RECIPE, batch=25))
    with pytest.raises(InputError, match=r"24 training images.*25"):
        one.run(UNPADDED, Clock(), no_report)


def test_the_rate_rises_and_falls():
    """The learning rate rises linearly over the first tenth and falls as a cosine to nearly 0."""
    recipe = Recipe(rate=1.0, warmup=0.1)
    rates = [recipe.rate_at(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, {0, 1}), (6, {0, 1, 2, 4, 6}), (8, {0, 1, 2, 4, 8})]
)
def test_probes_are_at_powers_of_two_and_the_end(epochs, expected):
    """Early epochs, where most happens, are looked at more often."""
    assert probed_epochs(epochs) == expected
