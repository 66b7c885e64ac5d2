import logging
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.errors import TrainingError
from recsys.training.loop import adamw, fit
from recsys.training.rows import Columns, EpochSampler, row_batches
from vision.training.callbacks import VALIDATION_LOSS
from vision.training.run import FitSettings, TrainingRun

N_ROWS = 24
EPOCHS = 4
T = TypeVar("T", bound="Line")


class Line(L.LightningModule):
    """Least squares with dropout on a planted line; raises at step ``fail_at``, like a crash."""

    def __init__(
        self,
        *,
        width: int = 3,
        dropout: float = 0.2,
        fail_at: int | None = None,
        n_steps: int = 6 * EPOCHS,
    ) -> None:
        super().__init__()
        torch.manual_seed(5)
        inputs = torch.randn(N_ROWS, width)
        self.data = Columns(
            {"inputs": inputs.numpy(), "targets": inputs.sum(dim=1).add(1.0).numpy()}
        )
        self.linear = nn.Linear(width, 1)
        self.dropout = nn.Dropout(dropout)
        self.fail_at, self.n_steps = fail_at, n_steps
        self.rows_by_epoch: dict[int, list[int]] = {}

    def loss(self, rows: Tensor) -> Tensor:
        batch = self.data.at(rows)
        predicted = self.linear(self.dropout(batch["inputs"])).squeeze(1)
        return (predicted - batch["targets"]).square().mean()

    def training_step(self, rows: Tensor, batch_index: int) -> Tensor:
        if self.global_step == self.fail_at:
            raise OSError("the power went")
        self.rows_by_epoch.setdefault(self.current_epoch, []).extend(rows.tolist())
        return self.loss(rows)

    def configure_optimizers(self) -> Any:
        return adamw(self, n_steps=self.n_steps, learning_rate=0.1, weight_decay=0.01)


class Validated(Line):
    """A line with validation, which may report ``losses`` by epoch in place of its own."""

    def __init__(self, losses: list[float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.losses = losses
        self.weights_by_epoch: list[Tensor] = []

    def validation_step(self, rows: Tensor, batch_index: int) -> None:
        self.weights_by_epoch.append(weights(self))
        loss = self.loss(rows)
        if self.losses is not None:
            loss = torch.tensor(self.losses[self.current_epoch])
        self.log(VALIDATION_LOSS, loss, batch_size=len(rows))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().ravel().clone() for parameter in module.parameters()])


def run(module: T, workdir: Path, **changes: Any) -> T:
    sampler = EpochSampler(lambda rng: rng.permutation(N_ROWS), N_ROWS, seed=0)
    place = TrainingRun(workdir, changes.pop("seed", 0), torch.device("cpu"))
    options: dict[str, Any] = {"epochs": EPOCHS, "precision": "32-true", **changes}
    validation = None
    if isinstance(module, Validated):
        options["keep"] = "best"
        validation = row_batches(range(N_ROWS), N_ROWS)
    fit(module, row_batches(sampler, 4), validation, FitSettings(**options), place)
    return module


def test_a_planted_line_is_found(tmp_path: Path) -> None:
    module = run(Line(n_steps=6 * 30), tmp_path, epochs=30)
    assert not module.training
    assert float(module.loss(torch.arange(N_ROWS)).detach()) < 0.5
    assert float(Line().eval().loss(torch.arange(N_ROWS)).detach()) > 3


@pytest.mark.parametrize("build", [Line, Validated])
@pytest.mark.parametrize("fail_at", [6, 15, 23])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    build: type[Line], fail_at: int, tmp_path: Path
) -> None:
    whole = run(build(), tmp_path / "whole")
    with pytest.raises(OSError, match="the power went"):
        run(build(fail_at=fail_at), tmp_path / "cut")
    resumed = run(build(), tmp_path / "cut")
    assert min(resumed.rows_by_epoch) == fail_at // 6  # resumed, rather than started again
    for epoch, rows in resumed.rows_by_epoch.items():
        assert rows == whole.rows_by_epoch[epoch]
    assert torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(Validated(), tmp_path)
    again = run(Validated(), tmp_path)
    assert not again.rows_by_epoch
    assert torch.equal(weights(again), weights(first))


def test_a_run_that_stopped_early_is_not_trained_further(tmp_path: Path) -> None:
    losses = [1.0, 2.0, 3.0, 0.5]
    first = run(Validated(losses), tmp_path, patience=2)
    assert list(first.rows_by_epoch) == [0, 1, 2]
    again = run(Validated(losses), tmp_path, patience=2)
    assert not again.rows_by_epoch
    assert torch.equal(weights(again), weights(first))
    assert torch.equal(weights(again), first.weights_by_epoch[0])


def test_a_run_keeps_its_best_weights_or_without_validation_its_last(
    tmp_path: Path,
) -> None:
    losses = [3.0, 1.0, 2.0, 4.0]
    module = run(Validated(losses), tmp_path / "best")
    assert len(module.weights_by_epoch) == EPOCHS
    assert torch.equal(weights(module), module.weights_by_epoch[1])
    last = run(Line(), tmp_path / "last")
    assert torch.equal(weights(last), module.weights_by_epoch[-1])


@pytest.mark.parametrize(("patience", "n_epochs"), [(1, 3), (2, 6), (None, 6)])
def test_training_stops_when_patience_runs_out(
    patience: int | None, n_epochs: int, tmp_path: Path
) -> None:
    losses = [3.0, 2.0, 2.5, 1.0, 5.0, 6.0]
    module = Validated(losses, n_steps=36)
    run(module, tmp_path, epochs=6, patience=patience)
    assert len(module.weights_by_epoch) == n_epochs
    assert torch.equal(weights(module), module.weights_by_epoch[1 if n_epochs == 3 else 3])


def test_patience_is_counted_across_an_interruption(tmp_path: Path) -> None:
    losses = [1.0, 2.0, 3.0, 4.0]
    cut = Validated(losses, fail_at=14)  # in the third epoch
    with pytest.raises(OSError, match="the power went"):
        run(cut, tmp_path, patience=2)
    resumed = run(Validated(losses), tmp_path, patience=2)
    assert list(resumed.rows_by_epoch) == [2]
    assert torch.equal(weights(resumed), cut.weights_by_epoch[0])


def test_training_depends_on_its_seed_and_leaves_global_generators_alone(
    tmp_path: Path,
) -> None:
    modules = [Line() for _ in range(3)]
    torch.manual_seed(1)
    np.random.seed(1)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = (
        weights(run(module, tmp_path / str(n), seed=seed))
        for n, (module, seed) in enumerate(zip(modules, (0, 0, 1), strict=True))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_a_loss_that_is_not_finite_is_an_error_and_writes_no_checkpoint(
    tmp_path: Path,
) -> None:
    module = Line()
    with torch.no_grad():
        module.data.all()["targets"][3] = torch.nan
    message = r"got nan at step \d .epoch 0. on (row \d+, )*row \d+; lower .* NaN in the inputs"
    with pytest.raises(TrainingError, match=message):
        run(module, tmp_path)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_damaged_checkpoint_is_replaced(tmp_path: Path) -> None:
    wanted = run(Line(), tmp_path / "whole").state_dict()
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    found = run(Line(), tmp_path).state_dict()
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


def test_a_checkpoint_of_another_module_is_an_error(tmp_path: Path) -> None:
    run(Line(), tmp_path)
    with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
        run(Line(width=5), tmp_path)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms = []

    class Steep(Line):
        def loss(self, rows: Tensor) -> Tensor:
            return 1e3 * super().loss(rows)

        def configure_gradient_clipping(self, *args: Any, **options: Any) -> None:
            super().configure_gradient_clipping(*args, **options)
            norms.append(float(torch.cat([p.grad.ravel() for p in self.parameters()]).norm()))

    run(Steep(), tmp_path, epochs=1)
    np.testing.assert_allclose(norms, FitSettings(1).gradient_clip, rtol=1e-3)


def test_training_prints_nothing_and_restores_the_loggers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    levels = [logging.getLogger(f"lightning.{name}").level for name in ("pytorch", "fabric")]
    run(Validated(), tmp_path)
    run(Validated(), tmp_path)
    out = capfd.readouterr()
    assert (out.out, out.err, caplog.records) == ("", "", [])
    after = [logging.getLogger(f"lightning.{name}").level for name in ("pytorch", "fabric")]
    assert after == levels


def test_the_rows_of_an_epoch_depend_only_on_seed_and_epoch() -> None:
    def rows(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(lambda rng: rng.permutation(9), 9, seed=seed)
        sampler.set_epoch(epoch)
        assert list(sampler) == list(sampler)
        return list(sampler)

    assert sorted(rows(0, 0)) == list(range(9))
    assert rows(0, 3) == rows(0, 3)
    assert len({tuple(rows(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_an_epoch_can_be_set_after_the_iterator_was_created() -> None:
    sampler, set_before = (EpochSampler(lambda g: g.permutation(9), 9, seed=0) for _ in range(2))
    iterator = iter(sampler)
    sampler.set_epoch(2)
    set_before.set_epoch(2)
    assert list(iterator) == list(set_before)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "drop_last", "sizes"),
    [
        (5, 2, False, [2, 2, 1]),
        (5, 2, True, [2, 2]),
        (5, 9, True, [5]),  # the only batch is kept
        (4, 2, True, [2, 2]),
    ],
)
def test_batches_have_the_rows_in_order(
    n_rows: int, batch_size: int, drop_last: bool, sizes: list[int]
) -> None:
    batches = list(row_batches(range(n_rows), batch_size, drop_last=drop_last))
    assert [len(batch) for batch in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(sum(sizes)))
    assert batches[0].dtype == torch.int64


def test_columns_follow_the_device_and_stay_out_of_checkpoints() -> None:
    columns = Columns({"a": np.arange(4), "b": np.eye(4, dtype=np.float32)})
    assert not columns.state_dict()
    assert columns.at(torch.tensor([2, 0]))["a"].tolist() == [2, 0]
    assert columns.at(torch.tensor([2, 0]))["b"].tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert list(columns.all()) == ["a", "b"]
    assert columns.to("meta").all()["b"].device.type == "meta"


def test_columns_accept_read_only_arrays() -> None:
    frozen = np.arange(6.0)[::2]
    frozen.flags.writeable = False
    assert Columns({"a": frozen}).all()["a"].tolist() == [0.0, 2.0, 4.0]
