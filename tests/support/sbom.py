"""
Write the software bill of materials (CycloneDX) that the wheel carries: ``python -m tests.support.sbom``.

The wheel contains no third-party code. The document names the dependencies of the package, all extras included, in
their tested versions, which are those of ``constraints.txt``. It contains no time and no random number, because two
builds of a commit must be equal.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import requires

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from airflow_provider_workflows import __version__
from tests.support.release import ROOT, SBOM

NAME = "airflow-provider-workflows"


def tested_dependencies() -> dict[str, set[str]]:
    """Return the tested versions of each package that the runtime needs, with all extras, on any supported Python."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
    command += ["--all-extras", "--no-annotate", "--no-header", "-c", "constraints.txt", "pyproject.toml"]
    compiled = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    versions: dict[str, set[str]] = {}
    for line in compiled.splitlines():
        requirement = Requirement(line)
        versions.setdefault(canonicalize_name(requirement.name), set()).add(
            str(requirement.specifier).removeprefix("==")
        )
    return versions


def document(versions: dict[str, set[str]]) -> str:
    """Return the bill of materials as JSON, with the package's direct dependencies as its dependency graph."""
    package = _component(NAME, __version__)
    package.licenses.add(DisjunctiveLicense(id="Apache-2.0"))
    bom = Bom()
    bom.metadata.component = package
    direct = {canonicalize_name(Requirement(line).name) for line in requires(NAME) or []}
    needed = []
    for name, of_name in sorted(versions.items()):
        for version in sorted(of_name):
            component = _component(name, version)
            bom.components.add(component)
            if name in direct:
                needed.append(component)
    bom.register_dependency(package, needed)
    written = json.loads(JsonV1Dot6(bom).output_as_string())
    # The library adds a random number and the time.
    del written["serialNumber"], written["metadata"]["timestamp"]
    return json.dumps(written, indent=1, sort_keys=True) + "\n"


def _component(name: str, version: str) -> Component:
    purl = PackageURL("pypi", None, name, version)
    return Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=str(purl))


def main() -> None:
    (ROOT / SBOM).write_text(document(tested_dependencies()))


if __name__ == "__main__":
    main()
