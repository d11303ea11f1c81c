"""
Build the wheel and the source archive, and reject what must not be released.

``python -m tests.support.release FOLDER [--tag v1.2.3]`` builds into the folder and ends with 1 when anything is wrong;
with a tag, everything must have its version and the changelog its day.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGE = "airflow_provider_workflows"
SBOM = "sbom.cdx.json"
ENTRY_POINTS = ("airflow.plugins", "apache_airflow_provider", "console_scripts", "pytest11")


def build(folder: Path, source: Path = ROOT) -> None:
    """Build the wheel and the source archive from a checkout, and put the bill of materials beside them."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    shutil.copyfile(source / SBOM, folder / f"{'-'.join(wheel.stem.split('-')[:2])}.cdx.json")


def problems(folder: Path, tag: str | None = None) -> list[str]:
    """Return what is wrong with the wheel and the source archive in a folder, a line each."""
    wheels, archives = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if len(wheels) != 1 or len(archives) != 1:
        return [f"{folder} must hold one wheel and one source archive; it holds {len(wheels)} and {len(archives)}."]
    expected = package_files(tag)
    with zipfile.ZipFile(wheels[0]) as wheel:
        found = [*_contents(wheel, expected), *_metadata(wheel), *_versions(wheel, wheels[0].name, tag), *_sbom(wheel)]
    return [*found, *_source(archives[0], expected)]


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(_text(wheel, "METADATA"))


def _text(wheel: zipfile.ZipFile, name: str) -> str:
    matching = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(matching[0]).decode() if matching else ""


def package_files(tag: str | None) -> set[str]:
    """Return the files of the package: for a release as git knows them, else as they lie here."""
    if tag is not None:
        command = ["git", "ls-files", PACKAGE]
        return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    files = (file for file in (ROOT / PACKAGE).rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(ROOT)) for file in files}


def _contents(wheel: zipfile.ZipFile, expected: set[str]) -> list[str]:
    contained = {name for name in wheel.namelist() if ".dist-info/" not in name}
    strange = [
        f"The wheel contains {name}, which is not in the repository's package." for name in sorted(contained - expected)
    ]
    missing = [f"The wheel lacks {name}." for name in sorted(expected - contained)]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist()):
        missing.append("The wheel lacks the license.")
    return strange + missing


def _metadata(wheel: zipfile.ZipFile) -> list[str]:
    found = []
    for line in metadata_of(wheel).get_all("Requires-Dist") or []:
        if "<" in line.partition(";")[0]:
            found.append(f"The wheel holds its users back: {line}.")
        if "@" in line or "://" in line:
            found.append(f"The wheel needs something that is in no package index: {line}.")
    entry_points = _text(wheel, "entry_points.txt")
    found += [f"The wheel has no entry point {name}." for name in ENTRY_POINTS if f"[{name}]" not in entry_points]
    return found


def _versions(wheel: zipfile.ZipFile, file_name: str, tag: str | None) -> list[str]:
    version = str(metadata_of(wheel)["Version"])
    code = wheel.read(f"{PACKAGE}/__init__.py").decode() if f"{PACKAGE}/__init__.py" in wheel.namelist() else ""
    info = f"{PACKAGE}/get_provider_info.py"
    reported = wheel.read(info).decode() if info in wheel.namelist() else ""
    heading = re.search(r"^## (\S+) \((.*)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = {
        "the wheel's name": file_name.split("-")[1],
        "the package": _first(r'^__version__ = "(.*)"$', code),
        "get_provider_info": _first(r'"versions": \["([^"]+)"', reported),
        "the changelog's newest entry": heading[1] if heading else None,
    }
    if tag is not None:
        versions["the tag"] = tag.removeprefix("v")
    found = [f"The wheel is of version {version}, {what} of {of}." for what, of in versions.items() if of != version]
    if tag is not None and not (heading and re.fullmatch(r"\d{4}-\d\d-\d\d", heading[2])):
        found.append(f"The changelog does not say on which day {version} is released.")
    return found


def _sbom(wheel: zipfile.ZipFile) -> list[str]:
    """Compare the bill of materials in the wheel with its metadata and with the tested versions."""
    text = _text(wheel, f"sboms/{SBOM}")
    if not text:
        return ["The wheel lacks its bill of materials; run make sbom."]
    sbom, metadata = json.loads(text), metadata_of(wheel)
    package = sbom["metadata"]["component"]
    found = []
    if (package["name"], package["version"]) != (metadata["Name"], metadata["Version"]):
        found.append(f"The bill of materials is of {package['name']} {package['version']}; run make sbom.")
    named = {(component["name"], component["version"]) for component in sbom["components"]}
    tested = set(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    found += [
        f"The bill of materials names {name} {version}, which is not in constraints.txt; run make sbom."
        for name, version in sorted(named - tested)
    ]
    needed = {canonicalize_name(Requirement(line).name) for line in metadata.get_all("Requires-Dist") or []}
    (direct,) = [entry["dependsOn"] for entry in sbom["dependencies"] if entry["ref"] == package["bom-ref"]]
    lacking = sorted(needed - {component["name"] for component in sbom["components"] if component["bom-ref"] in direct})
    return found + [f"The bill of materials lacks {name}; run make sbom." for name in lacking]


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _source(archive: Path, package: set[str]) -> list[str]:
    with tarfile.open(archive) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    top = {name.partition("/")[0] for name in names}
    expected = {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        SBOM,
        "docs",
        "example_dags",
        "tests",
    }
    found = [f"The source archive lacks {name}." for name in sorted(expected - top)]
    found += [f"The source archive lacks {name}." for name in sorted(package - names)]
    litter = (name for name in sorted(names) if re.search(r"(^|/)(__pycache__|\.git|\.venv|\.env)(/|$)", name))
    return found + [f"The source archive holds {name}." for name in litter]


def main() -> int:
    parser = argparse.ArgumentParser(description="Build what is released, and reject it if it is wrong.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tag", help="the tag that is released, such as v1.2.3")
    arguments = parser.parse_args()
    build(arguments.folder)
    found = problems(arguments.folder, arguments.tag or None)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print("\n".join(str(file) for file in sorted(arguments.folder.iterdir())))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
