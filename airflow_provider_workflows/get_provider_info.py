"""What Airflow is told about this package; the connection forms are defined here and nowhere else."""

from __future__ import annotations

from typing import Any

PRODUCTS = {"Procore": "procore", "Procore Legacy": "procore_legacy", "Workflowsoft": "workflowsoft"}
# Where one product's triggers are in several modules.
FURTHER = {
    ("triggers", "procore"): ("procore_events",),
    ("triggers", "workflowsoft"): ("workflowsoft_events",),
}

# Airflow 3.3.1 and 3.3.2 reject to test a stored connection without a port (apache/airflow#73298).
TEST_PORT = "empty, or 443 where Airflow rejects to test"


def get_provider_info() -> dict[str, Any]:
    return {
        "package-name": "airflow-provider-workflows",
        "name": "Workflows",
        "description": "Wait for, answer and audit approval workflows in Procore and Workflowsoft.",
        "versions": ["0.1.0"],
        "integrations": [
            {
                "integration-name": "Procore",
                "external-doc-url": "https://developers.procore.com/documentation/tutorial-workflows-v2",
                "tags": ["service"],
            },
            {
                "integration-name": "Procore Legacy",
                "external-doc-url": "https://developers.procore.com/documentation/tutorial-workflows",
                "tags": ["service"],
            },
            {
                "integration-name": "Workflowsoft",
                "external-doc-url": "https://www.workflowsoft.com",
                "tags": ["service"],
            },
        ],
        **{room: _modules(room) for room in ("hooks", "operators", "sensors", "triggers")},
        "asset-uris": [
            {
                "schemes": ["procore", "workflowsoft"],
                "handler": "airflow_provider_workflows.assets.events.sanitize_uri",
            }
        ],
        "notifications": ["airflow_provider_workflows.notifications.workflowsoft.WorkflowsoftTaskNotifier"],
        "task-decorators": [
            {
                "name": "procore_response",
                "class-name": "airflow_provider_workflows.decorators.procore.procore_response",
            },
            {
                "name": "workflowsoft_integration",
                "class-name": "airflow_provider_workflows.decorators.workflowsoft.workflowsoft_integration",
            },
        ],
        "extra-links": [
            "airflow_provider_workflows.links.procore.ProcoreItemLink",
            "airflow_provider_workflows.links.workflowsoft.WorkflowsoftItemLink",
        ],
        "connection-types": [
            {
                "connection-type": "procore",
                "hook-class-name": "airflow_provider_workflows.hooks.procore.ProcoreHook",
                "hook-name": "Procore",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {"login": "Client ID", "password": "Client secret", "host": "API base URL"},
                    "placeholders": {"host": "empty: the one of the environment", "port": TEST_PORT},
                },
                "conn-fields": {
                    "environment": {
                        "label": "Environment",
                        "description": "Decides the login and API servers; custom takes them from the fields.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["production", "sandbox", "monthly_sandbox", "federal", "custom"],
                            "default": "production",
                        },
                    },
                    "login_url": _text("Login URL", "Where tokens come from; with environment custom only."),
                    "company_id": _text("Company ID", "Company to work in, unless an operator names another."),
                    "project_id": _text("Project ID", "Project to work in, unless an operator names another."),
                    "access_token": {
                        "label": "Ready access token",
                        "description": "Instead of client id and secret; lives for 90 minutes, so not for waits.",
                        "schema": {"type": ["string", "null"], "format": "password"},
                    },
                    **_shared_fields("{company_id} {project_id} {tool_type} {item_id} {instance_id}"),
                },
            },
            {
                "connection-type": "workflowsoft",
                "hook-class-name": "airflow_provider_workflows.hooks.workflowsoft.WorkflowsoftHook",
                "hook-name": "Workflowsoft",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "login": "Administrator login",
                        "password": "API token or administrator password",
                        "host": "Base URL",
                    },
                    "placeholders": {
                        "host": "empty: https://api.workflowsoft.com",
                        "login": "empty: the password is a ready API token",
                        "port": TEST_PORT,
                    },
                },
                "conn-fields": {
                    "login_auth": {
                        "label": "How to ask for a token",
                        "description": "Undocumented by the vendor; used when there is a login.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["basic", "bearer", "cookie"],
                            "default": "basic",
                        },
                    },
                    "login_lifetime": {
                        "label": "Lifetime to ask for",
                        "description": "Seconds.",
                        "schema": {"type": ["integer", "null"], "default": 3600, "minimum": 1},
                    },
                    "on_behalf_of": {
                        "label": "Write on behalf of",
                        "description": "A user id, or system.",
                        "schema": {"type": ["string", "null"], "default": "system"},
                    },
                    "new_integrations": {
                        "label": "Reading new integrations",
                        "description": "What a poll does to an instance it returns; undocumented by the vendor.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["consumed_on_read", "listed_until_completed"],
                            "default": "consumed_on_read",
                        },
                    },
                    "allow_consume": _flag(
                        "Allow polling",
                        "Let sensors poll for new integrations; in one Airflow only, for polls may consume.",
                    ),
                    **_shared_fields("{process_instance_id} {integration_instance_id}"),
                },
            },
        ],
        "config": {
            "workflows": {
                "description": "Settings of the provider for approval workflows.",
                "options": {
                    "poke_interval": {
                        "description": "Seconds between two looks of this provider's sensors, where a DAG gives none.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "300",
                        "default": "60",
                    },
                    "rejection_patience": {
                        "description": "Seconds for which a wait goes on although each of its polls is rejected.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "1800",
                        "default": "600",
                    },
                    "triggerer_count": {
                        "description": "How many triggerers share the rate limit of each connection.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "2",
                        "default": "1",
                    },
                },
            }
        },
    }


def _modules(room: str) -> list[dict[str, Any]]:
    return [
        {
            "integration-name": product,
            "python-modules": [
                f"airflow_provider_workflows.{room}.{module}" for module in (first, *FURTHER.get((room, first), ()))
            ],
        }
        for product, first in PRODUCTS.items()
    ]


def _text(label: str, description: str) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"]}}


def _flag(label: str, description: str) -> dict[str, Any]:
    return {
        "label": label,
        "description": description,
        "schema": {"type": ["boolean", "null"], "default": False},
    }


def _shared_fields(names: str) -> dict[str, Any]:
    return {
        "timeout": {
            "label": "Timeout",
            "description": "Seconds to wait for an answer.",
            "schema": {"type": ["integer", "null"], "default": 60, "minimum": 1},
        },
        "verify": _text("Certificates", "Path of a CA bundle, or false to accept any certificate."),
        "proxies": _text("Proxies", 'A JSON object such as {"https": "http://proxy:3128"}.'),
        "allow_http": _flag("Allow http", "Accept unencrypted http to a host other than this machine."),
        "item_url": _text("Address of an item", f"For the link from a task; may hold {names}."),
        "requests_per_hour": {
            "label": "Requests per hour",
            "description": "What the server allows, where it does not say so itself; polls take four fifths.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
    }
