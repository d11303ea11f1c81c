"""The names of datasets, as OpenLineage's naming rules have them."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.operators.lineage import dataset_name


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("s3://bucket/audit/steps.parquet", ("s3://bucket", "audit/steps.parquet")),
        ("s3://aws_audit@bucket/audit/steps.parquet", ("s3://bucket", "audit/steps.parquet")),
        ("gs://bucket", ("gs://bucket", "/")),
        ("file:///tmp/a%20b/steps.jsonl", ("file", "/tmp/a b/steps.jsonl")),
        ("/tmp/a b/steps.jsonl", ("file", "/tmp/a b/steps.jsonl")),
        ("memory://audit/steps.jsonl", ("memory://audit", "steps.jsonl")),
    ],
)
def test_dataset_is_named_without_its_connection(url, named):
    assert dataset_name(url) == named
