"""The provider's metadata for Airflow; the connection forms of all Airflow versions are built from it."""

from __future__ import annotations

from typing import Any

PRODUCTS = {"Procore": "procore", "Procore Legacy": "procore_legacy", "Workflowsoft": "workflowsoft"}
# Further modules of an API whose sensors or triggers are in several.
FURTHER_MODULES = {
    ("sensors", "procore"): ("procore_base", "procore_item"),
    ("triggers", "procore"): ("procore_approval", "procore_events", "procore_item", "procore_item_parts"),
    ("triggers", "workflowsoft"): ("workflowsoft_events",),
}

# Airflow 3.3.1 and 3.3.2 do not test a stored connection that has no port (apache/airflow#73298).
TEST_PORT = "empty, or 443 if Airflow does not test without a port"


def get_provider_info() -> dict[str, Any]:
    """Return the metadata, with the keys that the schema of this Airflow version has."""
    # Not from version_compat: Airflow calls this while version_compat imports Airflow.
    from airflow import __version__ as airflow_version
    from packaging import version

    info = _all_versions()
    if version.parse(airflow_version).release >= (3, 4):
        info["retry-policies"] = [
            {"integration-name": product, "python-modules": ["airflow_provider_workflows.retries"]}
            for product in PRODUCTS
        ]
        for connection_type in info["connection-types"]:
            connection_type["external-services"] = [connection_type["hook-name"]]
    return info


def _all_versions() -> dict[str, Any]:
    return {
        "package-name": "airflow-provider-workflows",
        "name": "Workflows",
        "description": "Wait for, respond to and audit approval workflows in Procore and Workflowsoft.",
        "versions": ["0.1.0"],
        "integrations": [
            {
                "integration-name": "Procore",
                "external-doc-url": "https://developers.procore.com/documentation/tutorial-workflows-v2",
                "how-to-guide": ["/docs/procore.md"],
                "logo": "/integration-logos/procore.svg",
                "tags": ["service"],
            },
            {
                "integration-name": "Procore Legacy",
                "external-doc-url": "https://developers.procore.com/documentation/tutorial-workflows",
                "how-to-guide": ["/docs/procore-legacy.md"],
                "logo": "/integration-logos/procore-legacy.svg",
                "tags": ["service"],
            },
            {
                "integration-name": "Workflowsoft",
                "external-doc-url": "https://www.workflowsoft.com",
                "how-to-guide": ["/docs/workflowsoft.md"],
                "logo": "/integration-logos/workflowsoft.svg",
                "tags": ["service"],
            },
        ],
        **{package: _modules(package) for package in ("hooks", "operators", "sensors", "triggers")},
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
            "airflow_provider_workflows.links.airflow.ApprovalsLink",
            "airflow_provider_workflows.links.airflow.ReportLink",
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
                    "placeholders": {"host": "empty: the URL of the environment", "port": TEST_PORT},
                },
                "conn-fields": {
                    "environment": {
                        "label": "Environment",
                        "description": "Sets the login and API servers; custom takes both URLs from this form.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["production", "sandbox", "monthly_sandbox", "federal", "custom"],
                            "default": "production",
                        },
                    },
                    "login_url": _text("Login URL", "Server that issues tokens; only with environment custom."),
                    "company_id": _text("Company ID", "Company to work in, unless an operator sets another."),
                    "project_id": _text("Project ID", "Project to work in, unless an operator sets another."),
                    "access_token": {
                        "label": "Access token",
                        "description": "Instead of client ID and secret; expires after 90 minutes, so not for waits.",
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
                        "login": "empty: the password is an API token",
                        "port": TEST_PORT,
                    },
                },
                "conn-fields": {
                    "login_auth": {
                        "label": "Sign-in for the API token",
                        "description": "Used if there is a login; not documented.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["basic", "bearer", "cookie"],
                            "default": "basic",
                        },
                    },
                    "login_lifetime": {
                        "label": "Lifetime of the API token",
                        "description": "Seconds to request.",
                        "schema": {"type": ["integer", "null"], "default": 3600, "minimum": 1},
                    },
                    "on_behalf_of": {
                        "label": "Write on behalf of",
                        "description": "Id of a user, or system.",
                        "schema": {"type": ["string", "null"], "default": "system"},
                    },
                    "new_integrations": {
                        "label": "Reading new integrations",
                        "description": "Whether a poll consumes the instances it returns; not documented.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["consumed_on_read", "listed_until_completed"],
                            "default": "consumed_on_read",
                        },
                    },
                    "allow_consume": _flag(
                        "Allow polling",
                        "Let sensors poll for new integrations; in one Airflow deployment only, as polls may consume.",
                    ),
                    **_shared_fields("{process_instance_id} {integration_instance_id}"),
                },
            },
        ],
        "config": {
            "workflows": {
                "description": "Settings of the provider for approval workflows.",
                "options": {
                    "approvals_page_reads": {
                        "description": "Whether users of the Approvals page may read the current state from Procore, "
                        "with the connections of the API server.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                    "poke_interval": {
                        "description": "Seconds between two polls of a wait, unless the DAG sets poke_interval.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "300",
                        "default": "60",
                    },
                    "rejection_patience": {
                        "description": "Seconds for which a wait continues while all of its polls are rejected.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "1800",
                        "default": "600",
                    },
                    "trace_actions": {
                        "description": "Whether each action that changes something emits an OpenTelemetry span; it "
                        "goes where [traces] of Airflow sends spans.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                    "triggerer_count": {
                        "description": "Number of triggerers that share the rate limit of each connection.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "2",
                        "default": "1",
                    },
                },
            }
        },
    }


def _modules(package: str) -> list[dict[str, Any]]:
    return [
        {
            "integration-name": product,
            "python-modules": [
                f"airflow_provider_workflows.{package}.{module}"
                for module in (first, *FURTHER_MODULES.get((package, first), ()))
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
            "description": "Seconds to wait for a response.",
            "schema": {"type": ["integer", "null"], "default": 60, "minimum": 1},
        },
        "verify": _text("Certificates", "Path of a CA bundle, or false to accept any certificate."),
        "proxies": _text("Proxies", 'A JSON object such as {"https": "http://proxy:3128"}.'),
        "dry_run": _flag("Dry run", "Tasks only read: nothing is sent that changes something."),
        "allow_http": _flag("Allow http", "Accept unencrypted http to a host other than this machine."),
        "item_url": _text("URL of an item", f"For the link from a task; may contain {names}."),
        "requests_per_hour": {
            "label": "Requests per hour",
            "description": "The server's rate limit, unless its responses state it; polls use four fifths of it.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
    }
