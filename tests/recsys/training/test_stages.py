import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recsys.errors import FileAccessError
from recsys.training.stages import Workspace, hash_files
from tests.full_disk import files_up_to


def test_a_stage_runs_once_and_is_skipped_while_its_inputs_are_the_same(tmp_path: Path) -> None:
    announced: list[str] = []
    for n in range(2):
        workspace = Workspace(tmp_path, announce=announced.append)
        stage = workspace.run("towers", {"size": 1}, lambda folder: (folder / "x").touch())
        assert stage.skipped == (n == 1)
        assert (stage.folder / "x").exists()
    assert announced == ["towers"]


def test_other_inputs_or_another_name_run_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, announce=lambda name: None)
    stages = [
        workspace.run(name, inputs, lambda folder: None)
        for name, inputs in [("a", {"size": 1}), ("a", {"size": 2}), ("b", {"size": 1})]
    ]
    assert len({stage.folder for stage in stages}) == len({stage.key for stage in stages}) == 3
    assert not any(stage.skipped for stage in stages)


def test_an_interrupted_stage_finds_its_folder_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, announce=lambda name: None)

    def fail(folder: Path) -> None:
        (folder / "last.ckpt").write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.run("towers", {}, fail)
    found: list[str] = []
    stage = workspace.run(
        "towers", {}, lambda folder: found.append((folder / "last.ckpt").read_text())
    )
    assert found == ["half way"]
    assert not stage.skipped


def write(content: str) -> Callable[[Path], None]:
    def action(folder: Path) -> None:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "weights").write_text(content)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").write_text(content)

    return action


def remove(folder: Path) -> None:
    (folder / "deep" / "weights").unlink()


def shorten(folder: Path) -> None:
    (folder / "deep" / "weights").write_text("wh")


def cut_record(folder: Path) -> None:
    done = folder / "done.json"
    done.write_text(done.read_text()[:20])


def empty_record(folder: Path) -> None:
    (folder / "done.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "deep/weights must have 5 bytes, it is missing"),
        (shorten, "deep/weights must have 5 bytes, got 2"),
        (cut_record, "done.json is damaged"),
        (empty_record, "done.json is damaged"),
    ],
)
def test_a_stage_whose_results_are_not_whole_runs_again(
    damage: Callable[[Path], None], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(tmp_path, announce=lambda name: None)
    folder = workspace.run("towers", {}, write("whole")).folder
    damage(folder)
    assert not workspace.run("towers", {}, write("again")).skipped
    assert "the stage runs again: " in caplog.text
    assert message in caplog.text
    assert workspace.run("towers", {}, write("never")).skipped
    assert (folder / "deep" / "weights").read_text() == "again"


def test_checkpoints_of_a_finished_stage_may_be_deleted(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, announce=lambda name: None)
    shutil.rmtree(workspace.run("towers", {}, write("whole")).folder / "checkpoints")
    assert workspace.run("towers", {}, write("again")).skipped


def test_a_stage_of_an_earlier_release_has_no_sizes_and_is_skipped(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, announce=lambda name: None)
    folder = workspace.run("towers", {}, write("whole")).folder
    (folder / "done.json").write_text('{"seconds": 3.5, "inputs": {}}')
    assert workspace.run("towers", {}, write("again")).seconds == 3.5


def test_a_stage_that_finds_the_disk_full_names_its_folder_and_runs_again(tmp_path: Path) -> None:
    def fill_up(folder: Path) -> None:
        save_file({"weights": torch.ones(10_000)}, folder / "weights")

    workspace = Workspace(tmp_path, announce=lambda name: None)
    wanted = r"towers-\w+ cannot be written \(File too large\)"
    with pytest.raises(FileAccessError, match=wanted), files_up_to(1_000):
        workspace.run("towers", {}, fill_up)
    assert not workspace.run("towers", {}, write("whole")).skipped


def test_the_time_of_a_skipped_stage_is_that_of_the_run_that_did_it(tmp_path: Path) -> None:
    first = Workspace(tmp_path, announce=lambda name: None).run("a", {}, lambda folder: None)
    again = Workspace(tmp_path, announce=lambda name: None).run("a", {}, lambda folder: None)
    assert again.skipped
    assert again.seconds == first.seconds


def test_weights_in_the_home_of_a_user_who_has_none_have_no_hash(homeless: None) -> None:
    assert hash_files("~/weights") == ""


def test_the_hash_of_a_folder_changes_with_content_and_place_of_a_file(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "weights"
    (weights / "deep").mkdir(parents=True)
    (weights / "model.bin").write_bytes(b"1")
    before = hash_files(str(weights))
    (weights / "model.bin").write_bytes(b"2")
    other = hash_files(str(weights))
    (weights / "model.bin").rename(weights / "deep" / "model.bin")
    moved = hash_files(str(weights))
    (weights / "deep" / "model.bin").write_bytes(b"1")
    (weights / "deep" / "model.bin").rename(weights / "model.bin")
    assert len({before, other, moved, hash_files(str(weights / "model.bin"))}) == 4
    assert hash_files(str(weights)) == before
    assert hash_files("owner/name") == hash_files(None) == hash_files(True) == ""
