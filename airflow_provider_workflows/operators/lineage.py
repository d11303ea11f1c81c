"""The datasets that an operator reads and writes, for the OpenLineage provider if it is installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit


def dataset_name(url: str) -> tuple[str, str]:
    """
    Return the namespace and the name of a file or folder as OpenLineage names datasets.

    :param url: A path, or a URL such as ``s3://conn_id@bucket/key``; its connection id is left out.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        return "file", str(PurePosixPath("/", unquote(parts.path) if parts.scheme else url))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.strip("/") or "/"


def lineage_of(*, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> Any:
    """
    Return what the OpenLineage provider asks an operator for; only that provider calls it.

    :param inputs: Paths and URLs that were read.
    :param outputs: Paths and URLs that were written.
    """
    from airflow.providers.common.compat.openlineage.facet import Dataset

    # No dependency of this package: it is there whenever it asks.
    extractors = import_module("airflow.providers.openlineage.extractors")

    def datasets(urls: Iterable[str]) -> list[Any]:
        names = dict.fromkeys(dataset_name(url) for url in urls)
        return [Dataset(namespace=namespace, name=name) for namespace, name in names]

    return extractors.OperatorLineage(inputs=datasets(inputs), outputs=datasets(outputs))
