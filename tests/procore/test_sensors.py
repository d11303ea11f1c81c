"""Waits on Procore: the same result in every mode, and no wait that outlives its reason."""

from __future__ import annotations

import asyncio

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
)
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound, WorkflowsError
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor
from airflow_provider_workflows.triggers import base as triggers

pytestmark = pytest.mark.usefixtures("airflow_connections")

INSTANCE = "700001"
TOOL = "purchase_order_contract"
