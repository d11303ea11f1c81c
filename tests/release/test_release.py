"""What `make wheel` rejects to release."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import airflow_provider_workflows
from tests.support import release


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    release.build(folder)
    return folder


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "dist"))


def rewrite(folder: Path, change) -> None:
    """Write the wheel in a folder again, each of its files as ``change(name, content)`` returns it."""
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as read:
        files = {name: read.read(name).decode() for name in read.namelist()}
    with zipfile.ZipFile(wheel, "w") as written:
        for name, content in files.items():
            if (changed := change(name, content)) is not None:
                written.writestr(name, changed)


def test_a_file_too_few_or_too_many_is_rejected(copied):
    rewrite(copied, lambda name, content: None if name.endswith("py.typed") else content)
    (wheel,) = copied.glob("*.whl")
    with zipfile.ZipFile(wheel, "a") as more:
        more.writestr("airflow_provider_workflows/notes.txt", "")

    assert release.problems(copied) == [
        "The wheel contains airflow_provider_workflows/notes.txt, which is not in the repository's package.",
        "The wheel lacks airflow_provider_workflows/py.typed.",
    ]


def test_another_version_in_one_place_is_rejected(copied):
    version = re.compile(r'^((?:__version__ = "|Version: |        "versions": \["))\d+\.\d+\.\d+', re.MULTILINE)
    rewrite(
        copied, lambda name, content: version.sub(r"\g<1>9.9.9", content) if name.endswith("/METADATA") else content
    )

    assert any("9.9.9" in problem for problem in release.problems(copied))


def test_wheel_with_upper_caps_or_foreign_urls_is_rejected(copied):
    def change(name: str, content: str) -> str:
        if name.endswith("/METADATA"):
            return content.replace("Requires-Dist: requests>=", "Requires-Dist: requests<3,>=").replace(
                "Requires-Dist: tenacity>=8.3", "Requires-Dist: tenacity @ file:///somewhere"
            )
        return content.replace("[console_scripts]", "[scripts]") if name.endswith("/entry_points.txt") else content

    rewrite(copied, change)

    assert release.problems(copied) == [
        "The wheel holds its users back: requests<3,>=2.32.",
        "The wheel needs something that is in no package index: tenacity @ file:///somewhere.",
        "The wheel has no entry point console_scripts.",
    ]


def test_two_builds_of_a_commit_are_equal(built, tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(
        release.ROOT, checkout, ignore=shutil.ignore_patterns(".venv", ".git", "*_cache", "__pycache__", "dist")
    )
    for file in checkout.rglob("*"):
        os.utime(file, (1, 1))
        file.chmod(0o700 if file.is_dir() else 0o640)

    release.build(tmp_path / "dist", source=checkout)

    assert hashes(tmp_path / "dist") == hashes(built)


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_bill_of_materials_is_valid_cyclonedx_of_this_version(built):
    (file,) = built.glob("*.cdx.json")

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(file.read_text()) is None
    assert file.name == f"airflow_provider_workflows-{airflow_provider_workflows.__version__}.cdx.json"


def test_outdated_bill_of_materials_is_rejected(copied):
    rewrite(
        copied,
        lambda name, content: (
            content.replace('"name": "requests"', '"name": "requests2"') if name.endswith(release.SBOM) else content
        ),
    )

    assert [problem.partition("; ")[0] for problem in release.problems(copied)] == [
        f"The bill of materials names requests2 {version_of('requests')}, which is not in constraints.txt",
        "The bill of materials lacks requests",
    ]


def version_of(name: str) -> str:
    return re.search(rf"^{name}==(\S+)", (release.ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def test_a_tag_needs_its_version_and_a_day_in_the_changelog(built, tmp_path, monkeypatch):
    changelog = (release.ROOT / "CHANGELOG.md").read_text()
    version = release.re.search(r"^## (\S+)", changelog, re.MULTILINE)[1]
    files = release.package_files(None)
    monkeypatch.setattr(release, "package_files", lambda tag: files)
    assert any("the tag of 9.9.9" in problem for problem in release.problems(built, "v9.9.9"))

    shutil.copy(release.ROOT / "constraints.txt", tmp_path)
    monkeypatch.setattr(release, "ROOT", tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} (2026-12-01)\n")
    assert release.problems(built, f"v{version}") == []
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} (not released)\n")
    assert release.problems(built, f"v{version}") == [f"The changelog does not say on which day {version} is released."]
