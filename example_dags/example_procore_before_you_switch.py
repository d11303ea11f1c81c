"""
Export all Legacy histories before Procore moves the company to Workflows v2, and verify every file.

The upgrade of a tool removes the histories of running Legacy instances for good. Run the DAG days before the switch,
and once more right before it: with the same folder it reads only what is new or has moved.
"""

from __future__ import annotations

import hashlib
import json

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two concurrent runs would write one manifest
    params={
        "root": Param("file:///tmp/procore-legacy-archive", type="string", description="Folder for the export"),
        "instance_ids": Param(
            [],
            type="array",
            description="Ids of ended instances that the company has stored; Procore does not list them",
        ),
        "earlier_exports": Param(
            "",
            type="string",
            description="Folder of the nightly export, whose instances are exported again; may be empty",
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_before_you_switch():
    @task
    def collect_ids(params: dict) -> list[str]:
        """Return the ids of ended instances: those given, and those in earlier exports."""
        found = [str(instance_id) for instance_id in params["instance_ids"]]
        if params["earlier_exports"]:
            for table in sorted(ObjectStoragePath(params["earlier_exports"]).glob("*/legacy/instances.jsonl")):
                found += [json.loads(line)["instance_id"] for line in table.read_text().splitlines()]
        return list(dict.fromkeys(found))

    @task
    def report_readiness() -> dict:
        """Print what the upgrade would do; an instance that would be stuck needs a default preset in v2 first."""
        from airflow_provider_workflows.diagnostics.legacy_readiness import LegacyReadiness

        readiness = LegacyReadiness("procore_default").read()
        print(*readiness.lines(), sep="\n")
        return {name: readiness.to_dict()[name] for name in ("ok", "running", "ready", "stuck", "unclear")}

    ids = collect_ids()

    # [START howto_operator_procore_legacy_history_in_parts]
    export = ProcoreLegacyHistoryToObjectStorageOperator(
        task_id="export_histories",
        instance_ids=ids,
        include_active=True,
        path="{{ params.root }}",
        file_format="jsonl",
        part_size=200,
        retries=5,
    )
    # [END howto_operator_procore_legacy_history_in_parts]

    @task
    def verify_files(export: dict) -> dict[str, int]:
        """Read each file of the manifest, and compare its hash and its rows; return the number of rows by table."""
        manifest = ObjectStoragePath(export["manifest"])
        content = manifest.read_bytes()
        if hashlib.sha256(content).hexdigest() != export["manifest_sha256"]:
            raise ValueError(f"{manifest} is not the manifest of this export.")
        rows: dict[str, int] = {}
        for file in json.loads(content)["files"]:
            data = (manifest.parent / file["path"]).read_bytes()
            if (hashlib.sha256(data).hexdigest(), data.count(b"\n")) != (file["sha256"], file["rows"]):
                raise ValueError(f"{file['path']} is not as the manifest says.")
            rows[file["table"]] = rows.get(file["table"], 0) + file["rows"]
        return rows

    @task
    def verify_counts(export: dict, ids: list[str], rows: dict[str, int]) -> None:
        """Fail if an instance is missing: it cannot be read any more after the switch."""
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        stored = json.loads(ObjectStoragePath(export["manifest"]).read_bytes())["stored"]
        running = {instance["id"] for instance in ProcoreLegacyHook().list_instances()}
        missing = sorted({*ids, *running} - set(stored))
        failed = export["forbidden"] + export["failed"]
        if missing or failed or not export["complete"]:
            raise ValueError(f"The export is not complete. Missing: {missing}. Failed reads: {failed}.")
        # A part that was replaced by a later one still has its rows.
        if rows.get("instances", 0) < export["instances"] or rows.get("activities", 0) < export["activities"]:
            raise ValueError(f"The files have {rows}, but the export counted {export}.")

    @task
    def report(export: dict, readiness: dict) -> dict:
        """Return what to store outside of this folder: the manifest's hash proves all files."""
        print(f"{export['instances']} instances with {export['activities']} activities: {export['manifest']}")
        if not readiness["ok"]:
            print(f"Not ready to switch: {readiness['stuck']} would be stuck, {readiness['unclear']} are unclear.")
        return {"manifest_sha256": export["manifest_sha256"], "ready": readiness["ok"]}

    rows = verify_files(export.output)
    verify_counts(export.output, ids, rows) >> report(export.output, report_readiness())


example_procore_before_you_switch()
