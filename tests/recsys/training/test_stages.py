from pathlib import Path

import pytest

from recsys.training.stages import Workspace, hash_files


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
