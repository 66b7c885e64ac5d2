import os
from pathlib import Path

from vision.config import VisionConfig
from vision.file_states import file_state, hash_states, hash_weights


def write(path: Path, text: str, time_ns: int) -> Path:
    path.write_text(text)
    os.utime(path, ns=(time_ns, time_ns))
    return path


def test_a_file_that_keeps_its_name_has_another_state_after_a_change(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    states = {
        file_state(file),  # missing
        file_state(write(file, "one", 1)),
        file_state(write(file, "two", 2)),
        file_state(write(file, "longer", 2)),
    }
    assert len(states) == 4
    assert file_state(write(file, "other", 2)) == file_state(write(file, "words", 2))


def test_the_digest_is_of_names_relative_to_the_root(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write(folder / "a.png", "pixels", 1)
    names = [Path("a.png"), Path("b.png")]
    assert hash_states(names, one) == hash_states(names, other) != hash_states(names[:1], one)
    write(other / "b.png", "pixels", 1)
    assert hash_states(names, one) != hash_states(names, other)


def test_weights_are_files_and_folders_by_state_and_hubs_by_name(tmp_path: Path) -> None:
    def hashed(pretrained: str | bool, backbone: str = "resnet18") -> str:
        return hash_weights(VisionConfig(pretrained=pretrained, backbone=backbone))

    file = write(tmp_path / "model.safetensors", "weights", 1)
    before = hashed(str(file)), hashed(str(tmp_path)), hashed(False, f"transformers/{tmp_path}")
    assert hashed(True) == hashed(False) == hashed("owner/name")
    assert hashed(True) not in before
    write(file, "weights", 2)
    after = hashed(str(file)), hashed(str(tmp_path)), hashed(False, f"transformers/{tmp_path}")
    assert all(one != other for one, other in zip(before, after, strict=True))
