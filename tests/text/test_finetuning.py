"""Fine-tuning, whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from text.checkpoint import load, save
from text.config import TextConfig, TransferConfig
from text.dataset import Samples
from text.encoder import TextEncoder
from text.errors import CheckpointError, TrainingError, WeightsError
from text.finetuning import FinetuneResult, check_start, finetune
from text.networks.build import build_encoder
from text.retrieval import word_query_hit_rate
from text.training.checkpoints import read_checkpoint
from text.training.learner import Learner

Planted = Callable[..., Samples]


def test_words_find_titles_that_training_never_saw(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    train, held_out = planted(320), planted(200, seed=9)
    config = small_config.model_copy(update={"learning_rate": 3e-3, "class_weight": 1.0})
    result = finetune(train, config, validation=held_out, workdir=tmp_path, seed=0)
    untrained = build_encoder(config, train.texts, seed=0)
    before, after = (
        word_query_hit_rate(encoder, held_out.texts, k=1, n_words=1, seed=0)
        for encoder in (untrained, result.encoder)
    )
    assert before < 0.3
    assert after > 0.9
    assert result.metrics["word_query/hit_rate@10"] > 0.95
    assert result.metrics["accuracy/brand"] > 0.95
    assert result.metrics["accuracy/category.0 level"] > 0.95
    assert result.epochs == config.epochs
    assert not result.encoder.training


def test_every_word_can_be_read_from_the_embedding_after_training(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    train, held_out = planted(320), planted(200, seed=9)
    encoder = finetune(train, small_config, workdir=tmp_path, seed=0).encoder
    words = sorted({word for text in train.texts for word in text.split()})

    def embed(samples: Samples) -> np.ndarray:
        return np.c_[encoder.embed(samples.texts), np.ones(len(samples))]

    def presence(samples: Samples) -> np.ndarray:
        return np.array([[word in text.split() for word in words] for text in samples.texts])

    weights, *_ = np.linalg.lstsq(embed(train), presence(train).astype(float), rcond=None)
    read = embed(held_out) @ weights > 0.5
    assert (read == presence(held_out)).mean() > 0.98


def test_equal_arguments_give_equal_runs(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    samples, texts = planted(96), planted(20, seed=5).texts
    config = small_config.model_copy(update={"epochs": 2, "dropout": 0.1})

    def run(name: str, seed: int) -> np.ndarray:
        return finetune(samples, config, workdir=tmp_path / name, seed=seed).encoder.embed(texts)

    state = torch.random.get_rng_state()
    first = run("first", 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)  # what the caller's generator holds must not matter
    np.testing.assert_array_equal(first, run("second", 1))
    assert np.abs(first - run("third", 2)).max() > 0.01


class _InterruptError(Exception):
    pass


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    planted: Planted, small_config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, held_out = planted(96), planted(40, seed=5)
    config = small_config.model_copy(update={"dropout": 0.1})

    def run(name: str) -> Any:
        return finetune(samples, config, validation=held_out, workdir=tmp_path / name, seed=3)

    whole = run("whole")
    step = Learner.training_step

    def interrupt(self: Learner, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 2 and batch_idx == 1:
            raise _InterruptError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Learner, "training_step", interrupt)
        with pytest.raises(_InterruptError):
            run("parts")
    resumed = run("parts")
    assert resumed.epochs == whole.epochs == 4
    assert resumed.metrics == whole.metrics
    texts = held_out.texts
    np.testing.assert_array_equal(resumed.encoder.embed(texts), whole.encoder.embed(texts))


def test_a_finished_run_is_not_trained_again(
    planted: Planted, small_config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = planted(64)
    first = finetune(samples, small_config, workdir=tmp_path, seed=0).encoder.embed(samples.texts)

    def fail(*_: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Learner, "training_step", fail)
    again = finetune(samples, small_config, workdir=tmp_path, seed=0).encoder.embed(samples.texts)
    np.testing.assert_array_equal(first, again)


def test_no_epochs_return_the_encoder_as_it_is(
    planted: Planted, small_config: TextConfig, encoder: TextEncoder, tmp_path: Path
) -> None:
    save(encoder, tmp_path / "given")
    config = TextConfig(checkpoint=str(tmp_path / "given"), epochs=0)
    samples = planted(20)
    result = finetune(samples, config, validation=samples, workdir=tmp_path / "none", seed=0)
    texts = samples.texts
    np.testing.assert_array_equal(result.encoder.embed(texts), encoder.embed(texts))
    assert result.epochs == 0
    assert set(result.metrics) == {"word_query/hit_rate@10"}
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_with_another_tokenizer_is_trained_and_saved(
    planted: Planted, small_config: TextConfig, encoder: TextEncoder, tmp_path: Path
) -> None:
    save(encoder, tmp_path / "given")
    config = small_config.model_copy(
        update={"checkpoint": str(tmp_path / "given"), "dim": 16, "epochs": 1}
    )
    samples = planted(64)
    trained = finetune(samples, config, workdir=tmp_path / "work", seed=0).encoder
    save(trained, tmp_path / "trained")
    loaded = load(tmp_path / "trained").embed(samples.texts)
    assert loaded.shape == (64, 16)
    np.testing.assert_array_equal(loaded, trained.embed(samples.texts))


def test_patience_keeps_the_best_epoch(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    samples, held_out = planted(96), planted(40, seed=5)
    # So high a rate that later epochs are worse than the first ones.
    config = small_config.model_copy(
        update={"epochs": 30, "patience": 2, "learning_rate": 0.2, "warmup_epochs": 0.0}
    )
    result = finetune(samples, config, validation=held_out, workdir=tmp_path, seed=0)
    best = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert result.epochs < 30
    assert best["epoch"] <= result.epochs - 3
    stopping = best["callbacks"]
    assert any(
        float(state.get("best_model_score", torch.inf)) == pytest.approx(result.metrics["loss"])
        for state in stopping.values()
        if state.get("best_model_score") is not None
    )


def test_a_run_that_stopped_early_is_not_trained_further(
    planted: Planted, small_config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, held_out = planted(96), planted(40, seed=5)
    config = small_config.model_copy(
        update={"epochs": 30, "patience": 1, "learning_rate": 0.2, "warmup_epochs": 0.0}
    )

    def run() -> FinetuneResult:
        return finetune(samples, config, validation=held_out, workdir=tmp_path, seed=0)

    first = run()
    assert first.epochs < 30

    def fail(*_: Any) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(Learner, "training_step", fail)
    again = run()
    assert (again.epochs, again.metrics) == (first.epochs, first.metrics)
    texts = held_out.texts
    np.testing.assert_array_equal(again.encoder.embed(texts), first.encoder.embed(texts))


def test_texts_without_targets_train_on_words_alone(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    samples = Samples(planted(64).texts)
    config = small_config.model_copy(update={"epochs": 1})
    result = finetune(samples, config, validation=samples, workdir=tmp_path, seed=0)
    assert set(result.metrics) == {"loss", "word_query/hit_rate@10"}


def test_a_category_finds_titles_that_do_not_name_it(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    rooms = {"mug": "Kitchen", "teapot": "Kitchen"}
    train, held_out = (
        Samples(
            texts := planted(count, seed=seed).texts,
            categories=[("Home", rooms.get(text.split()[-1], "Living")) for text in texts],
        )
        for count, seed in ((240, 0), (100, 9))
    )
    config = small_config.model_copy(update={"category_weight": 1.0, "learning_rate": 3e-3})

    def precision(config: TextConfig, name: str) -> float:
        encoder = finetune(train, config, workdir=tmp_path / name, seed=0).encoder
        nearest = np.argsort(-encoder.embed(held_out.texts) @ encoder.embed(["kitchen"])[0])
        return float(np.mean(["Kitchen" in held_out.categories[row] for row in nearest[:20]]))

    assert precision(config, "with") > 0.9
    assert precision(config.model_copy(update={"category_weight": 0.0}), "without") < 0.7


def test_texts_of_one_category_are_not_negatives_of_each_other(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    samples = Samples(planted(40).texts, categories=[("Home", "Living")] * 40)
    config = small_config.model_copy(update={"epochs": 1, "contrastive_weight": 0.0})
    result = finetune(samples, config, validation=samples, workdir=tmp_path, seed=0)
    assert result.metrics["loss"] == 0.0


def test_titles_of_a_pair_become_similar(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    texts, held_out = planted(240).texts, planted(100, seed=9).texts
    brands = [text.split()[0] for text in texts]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(texts), size=(8000, 2))
    fit = {("Aldero", "Kestrel"), ("Brenna", "Norrhem"), ("Dorvik", "Pellini")}
    pairs = np.array([pair for pair in drawn if (brands[pair[0]], brands[pair[1]]) in fit])
    config = small_config.model_copy(update={"pair_weight": 1.0, "learning_rate": 3e-3})

    def margin(config: TextConfig, name: str) -> float:
        samples = Samples(texts, pairs=pairs)
        encoder = finetune(samples, config, workdir=tmp_path / name, seed=0).encoder
        scores = encoder.embed(held_out) @ encoder.embed(held_out).T
        kinds = [[(a.split()[0], b.split()[0]) in fit for b in held_out] for a in held_out]
        together = np.array(kinds)
        strangers = ~(together | together.T)
        return float(scores[together].mean() - scores[strangers].mean())

    assert margin(config, "with") > 0.1
    assert margin(config.model_copy(update={"pair_weight": 0.0}), "without") < 0.05


def test_gradients_of_several_batches_make_one_step(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    config = small_config.model_copy(update={"batch_size": 16, "accumulate": 2, "epochs": 3})
    finetune(planted(80), config, workdir=tmp_path, seed=0)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3 * 3  # five batches an epoch: two, two and one
    assert state["lr_schedulers"][0]["_last_lr"] == [0.0, 0.0]


def test_an_epoch_of_many_texts_ends_after_a_number_of_them(
    planted: Planted,
    small_config: TextConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = {"batch_size": 16, "epochs": 3, "texts_per_epoch": 40}
    finetune(planted(80), small_config.model_copy(update=short), workdir=tmp_path, seed=0)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3 * 2  # two full batches of 40 texts
    assert state["lr_schedulers"][0]["_last_lr"] == [0.0, 0.0]
    assert "an epoch has 40 of the 80 texts" in caplog.text


def test_multilingual_and_empty_titles_train(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    titles = ["红色连衣裙 女 XL", "メンズ ジーンズ", "Sonnenblumenöl 🌻", "", "Кофеварка", ""]
    config = small_config.model_copy(update={"epochs": 2, "batch_size": 3})
    encoder = finetune(Samples(titles), config, workdir=tmp_path, seed=0).encoder
    assert np.isfinite(encoder.embed(titles)).all()


def test_nothing_is_printed_or_logged(
    planted: Planted,
    small_config: TextConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = small_config.model_copy(update={"epochs": 1})
    finetune(planted(64), config, validation=planted(20), workdir=tmp_path, seed=0)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_progress_shows_a_bar(
    planted: Planted,
    small_config: TextConfig,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = small_config.model_copy(update={"epochs": 1})
    finetune(planted(64), config, workdir=tmp_path, seed=0, progress=True)
    captured = capfd.readouterr()
    assert "Epoch 0" in captured.out + captured.err


def test_a_loss_that_is_not_finite_says_what_to_change(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    config = small_config.model_copy(
        update={"learning_rate": 1e30, "warmup_epochs": 0.0, "weight_decay": 1.0}
    )
    with pytest.raises(TrainingError, match=r"loss must be finite, got .* lower learning_rate"):
        finetune(planted(96), config, workdir=tmp_path, seed=0)


@pytest.mark.parametrize("changed", ["texts", "pairs", "categories", "config", "seed"])
def test_the_checkpoint_of_another_run_is_refused(
    planted: Planted, small_config: TextConfig, tmp_path: Path, changed: str
) -> None:
    config = small_config.model_copy(update={"epochs": 1})
    finetune(planted(64), config, workdir=tmp_path, seed=0)
    samples = planted(64, seed=1 if changed == "texts" else 0)
    if changed == "pairs":
        samples = replace(samples, pairs=np.array([[0, 1]]))
    if changed == "categories":
        samples = replace(samples, categories=[("Home",)] * 64)
    other = config.model_copy(update={"temperature": 0.1}) if changed == "config" else config
    with pytest.raises(TrainingError, match=r"last\.ckpt is of a run with other data"):
        finetune(samples, other, workdir=tmp_path, seed=int(changed == "seed"))


def test_a_damaged_checkpoint_is_replaced(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"not a checkpoint")
    result = finetune(planted(64), small_config, workdir=tmp_path, seed=0)
    assert result.epochs == small_config.epochs
    assert read_checkpoint(tmp_path / "last.ckpt")["finished"]


def _refused(samples: Samples, config: TextConfig, message: str, **arguments: Any) -> None:
    with pytest.raises(ValueError, match=message):
        finetune(samples, config, workdir=Path("never-made"), seed=0, **arguments)
    assert not Path("never-made").exists()


def test_a_checkpoint_on_this_machine_is_looked_at_before_training(
    planted: Planted, small_config: TextConfig, tmp_path: Path
) -> None:
    change = small_config.model_copy
    check_start(small_config)
    check_start(change(update={"checkpoint": "owner/name"}))  # the hub's
    with pytest.raises(WeightsError, match=r"existing folder or a hub id, got '\./nowhere'"):
        check_start(change(update={"checkpoint": "./nowhere"}))
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        check_start(change(update={"checkpoint": str(tmp_path)}))
    save(build_encoder(small_config, planted(8).texts, seed=0), tmp_path)
    given = change(update={"checkpoint": str(tmp_path)})
    check_start(given)
    deep = given.model_copy(update={"transfer": TransferConfig(frozen_stages=9)})
    with pytest.raises(ValueError, match="frozen_stages must be at most"):
        check_start(deep)


def test_arguments_that_cannot_be_used_are_refused(
    planted: Planted, small_config: TextConfig
) -> None:
    samples = planted(64)
    change = small_config.model_copy
    _refused(Samples(["one"]), small_config, "at least 2 texts to learn from, got 1")
    _refused(samples, change(update={"patience": 2}), "patience = 2 needs validation samples")
    _refused(
        samples, change(update={"target_weights": {"brnd": 2.0}}), r"\(brand, .*got \['brnd'\]"
    )
    _refused(samples, small_config, "must have the targets", validation=Samples(["red vase"]))
    nothing = change(update={"contrastive_weight": 0.0, "class_weight": 0.0})
    _refused(Samples(samples.texts, categories=[()] * 64), nothing, "nothing to learn from")
    _refused(samples, nothing, "nothing to learn from: contrastive_weight is 0")
