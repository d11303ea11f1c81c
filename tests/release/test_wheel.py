from __future__ import annotations

import importlib
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Wheel and source archive, built from what git tracks here, as a release would."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "airflow_provider_workflows").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert {name for name in names if ".dist-info/" not in name} == package
    assert "airflow_provider_workflows/py.typed" in package
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_is_and_needs(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    metadata = Parser().parsestr(archive.read(name).decode())
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]

    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Framework :: Apache Airflow :: Provider" in metadata.get_all("Classifier")
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL")} == {
        "Documentation",
        "Source",
        "Changelog",
    }
    assert {line.partition(">")[0] for line in needed} == {
        "apache-airflow",
        "apache-airflow-providers-common-compat",
        "pendulum",
        "requests",
        "rich",
        "simplejson",
        "tenacity",
    }
    assert not any("<" in line for line in needed)
    assert set(metadata.get_all("Provides-Extra")) == {"emulator", "parquet"}


def test_the_wheel_brings_the_command_the_fixtures_and_the_provider(built):
    (wheel,) = built.glob("*.whl")
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    entry_points = ConfigParser()
    entry_points.read_string(archive.read(name).decode())

    for group, point in (
        ("console_scripts", "airflow-workflows"),
        ("pytest11", "airflow_workflows"),
        ("apache_airflow_provider", "provider_info"),
    ):
        module, _, function = entry_points[group][point].partition(":")
        loaded = importlib.import_module(module)
        assert not function or callable(getattr(loaded, function))


def test_the_source_archive_can_run_its_tests(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        top = {Path(name).parts[1] for name in source.getnames() if len(Path(name).parts) > 1}

    assert {"airflow_provider_workflows", "docs", "example_dags", "tests", "pyproject.toml"} <= top


def test_the_constraints_name_no_package_index():
    text = (ROOT / "constraints.txt").read_text()

    assert "://" not in text
    assert not any(line.startswith("-") for line in text.splitlines())
