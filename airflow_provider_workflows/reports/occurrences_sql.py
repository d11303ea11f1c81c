"""The SQL that turns exported histories of both APIs into common tables: instances, steps and responses."""

from __future__ import annotations

from airflow_provider_workflows.rules.procore_decisions import CUT_OFF_SECONDS

# Times are microseconds since 1970. ``problem`` says why a row is malformed; the views leave such rows out. ``steps``
# has an ``id``; ``responses`` repeat what they need of their step.
COMMON_TABLES = """
CREATE TABLE malformed (file INTEGER, row VARCHAR, reason VARCHAR);
CREATE TABLE instances (
    api VARCHAR, instance_id VARCHAR, template VARCHAR, company_id VARCHAR, project_id VARCHAR, tool_type VARCHAR,
    item_id VARCHAR, started_at BIGINT, ended_at BIGINT, state VARCHAR, file INTEGER, problem VARCHAR
);
CREATE SEQUENCE step_ids;
CREATE TABLE all_steps (
    id BIGINT DEFAULT nextval('step_ids'), api VARCHAR, instance_id VARCHAR, step_key VARCHAR, template VARCHAR,
    step VARCHAR, step_type VARCHAR, occurrence BIGINT, started_at BIGINT, ended_at BIGINT, due_at BIGINT,
    state VARCHAR, is_overridden BOOLEAN, overridden_by VARCHAR, decided_option VARCHAR, decided_by VARCHAR,
    assignees VARCHAR[], file INTEGER, problem VARCHAR
);
CREATE VIEW steps AS SELECT * FROM all_steps WHERE problem IS NULL AND step_type IN ('ResponseStep', 'Action', 'State');
CREATE TABLE all_responses (
    step_id BIGINT, api VARCHAR, instance_id VARCHAR, step_key VARCHAR, person_key VARCHAR, person VARCHAR,
    started_at BIGINT, responded_at BIGINT, due_at BIGINT, occurrence BIGINT, is_open BOOLEAN, response_key VARCHAR,
    file INTEGER, problem VARCHAR
);
CREATE VIEW responses AS SELECT * FROM all_responses WHERE problem IS NULL;
"""

KEYS = {
    "v2": {
        "instances": ("instance_id",),
        "steps": ("instance_id", "step_key"),
        "responses": ("instance_id", "step_key", "response_key"),
    },
    "legacy": {"instances": ("instance_id",), "activities": ("instance_id", "history_id")},
}
# The latest time of a row that is in the past when the row is exported.
NEWEST = {
    "v2": {
        "instances": "greatest(updated_at, started_at, ended_at)",
        "steps": "greatest(started_at, ended_at, overridden_at)",
        "responses": "responded_at",
    },
    "legacy": {
        "instances": "greatest(state_set_at, terminated_at)",
        "activities": "greatest(created_at, started_at, ended_at)",
    },
}


# Several exports may contain an instance. Its rows are taken from the export that recorded the latest time of it, or,
# if these are equal, from the folder whose name sorts last: all rows of an instance are exported together, and
# what was recorded later contains what was recorded before.
LATEST = """
CREATE TABLE {api}_latest AS
SELECT instance_id, max({{'seen': seen, 'part': part}}).part AS part
FROM (
    SELECT instance_id, part, coalesce(max(seen), 0) AS seen FROM ({seen}) WHERE instance_id IS NOT NULL GROUP BY ALL
)
GROUP BY instance_id
"""
# One export may contain a row twice, for example if a tool was named twice.
NO_ROW_TWICE = "QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest} DESC NULLS LAST, file DESC) = 1"


def latest_instances(api: str) -> str:
    """Return the SQL of the table ``{api}_latest``: which export has the latest rows of each instance."""
    seen = " UNION ALL ".join(
        f"SELECT instance_id, part, {newest} AS seen FROM {api}_{table}_read" for table, newest in NEWEST[api].items()
    )
    return LATEST.format(api=api, seen=seen)


def has_row_twice(api: str, table: str) -> str:
    """Return the SQL of a query whether a key may occur twice in one export; rarely true without such a row."""
    keys = ", ".join(("part", *KEYS[api][table]))
    return f"SELECT count(*) != count(DISTINCT hash({keys})) FROM {api}_{table}_read"


def latest_rows(api: str, table: str, *, of_several_exports: bool, has_row_twice: bool) -> str:
    """Return the SQL that reduces the table ``{api}_{table}_read`` to the latest row of each key."""
    keys = KEYS[api][table]
    latest = f"JOIN {api}_latest USING (instance_id, part)" if of_several_exports else ""
    once = NO_ROW_TWICE.format(keys=", ".join(keys), newest=NEWEST[api][table]) if has_row_twice else ""
    has_key = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    # Materialized only where that is necessary: a million rows take seconds.
    kind = "TABLE" if latest or once else "VIEW"
    return f"CREATE {kind} {api}_{table} AS SELECT r.* FROM {api}_{table}_read r {latest} WHERE {has_key} {once}"


# A malformed row is left out of all numbers; a malformed instance stays as the name of its steps.
V2 = f"""
INSERT INTO instances
SELECT
    'v2', instance_id, coalesce(workflow, '(unnamed)'), company_id, project_id, tool_type, item_id,
    started_at, ended_at,
    CASE
        WHEN status = 'terminated' THEN 'terminated'
        WHEN ended_at IS NOT NULL OR status IN ('complete', 'ended') THEN 'ended'
        ELSE 'open'
    END,
    file,
    CASE
        WHEN unreadable != '' THEN unreadable
        WHEN ended_at < started_at
            THEN 'ended_at ' || iso(ended_at) || ' is before started_at ' || iso(started_at)
    END
FROM v2_instances;

INSERT INTO all_steps BY NAME
WITH events AS (
    SELECT
        s.*, coalesce(i.template, '') AS template, i.state AS instance_state, i.ended_at AS instance_ended_at,
        coalesce(s.ended_at, s.overridden_at, i.ended_at) AS stopped_at, i.instance_id IS NULL AS is_lost
    FROM v2_steps s LEFT JOIN instances i ON i.api = 'v2' AND i.instance_id = s.instance_id
),
checked AS (
    SELECT
        *,
        CASE
            WHEN event_type IS NULL OR event_type NOT IN (
                'WorkflowStarted', 'ResponseStep', 'Action', 'Conditional', 'EndStep', 'WorkflowTerminated'
            ) THEN 'the event type ' || coalesce(event_type, '(none)') || ' is unknown'
            WHEN unreadable != '' THEN unreadable
            WHEN raw IS NOT NULL
                THEN 'the export could not read a time or the format of the event, see the column raw'
            WHEN is_lost THEN 'its instance is missing in the table instances'
            WHEN stopped_at < started_at THEN
                CASE WHEN ended_at IS NOT NULL THEN 'ended_at ' WHEN overridden_at IS NOT NULL THEN 'overridden_at '
                    ELSE 'the end of the instance ' END
                || iso(stopped_at) || ' is before started_at ' || iso(started_at)
        END AS problem
    FROM events
)
SELECT
    'v2' AS api, instance_id, step_key, template, coalesce(name, '(unnamed)') AS step, event_type AS step_type,
    CASE WHEN started_at IS NOT NULL THEN row_number() OVER (
        PARTITION BY
            instance_id, coalesce(step_uuid, name), problem IS NULL AND event_type IN ('ResponseStep', 'Action')
        ORDER BY started_at NULLS LAST, event_index, step_key
    ) END AS occurrence,
    started_at, CASE WHEN started_at IS NOT NULL THEN stopped_at END AS ended_at, due_at,
    CASE
        WHEN started_at IS NULL THEN 'not_started'
        WHEN stopped_at IS NULL AND instance_state = 'open' THEN 'open'
        WHEN instance_state = 'terminated' AND overridden_at IS NULL
            AND coalesce(decided_option, decided_type, decided_problem, overall_response, overall_response_type) IS NULL
            AND (ended_at IS NULL OR ended_at >= instance_ended_at - {round(CUT_OFF_SECONDS * 1e6)}) THEN 'cut_off'
        ELSE 'ended'
    END AS state,
    overridden_at IS NOT NULL AS is_overridden,
    CASE WHEN overridden_at IS NOT NULL
        THEN coalesce(overridden_by_id, overridden_by_login, overridden_by_name) END AS overridden_by,
    decided_option, decided_by, file, problem
FROM checked;

INSERT INTO all_responses
SELECT
    s.id, 'v2', r.instance_id, r.step_key, coalesce(r.user_id, r.login, r.name, '(unknown)'),
    coalesce(r.name, r.login, r.user_id, '(unknown)'), s.started_at, r.responded_at, s.due_at, s.occurrence,
    s.state = 'open', r.response_key, r.file,
    CASE
        WHEN s.id IS NULL THEN 'its step is missing in the table steps'
        WHEN r.unreadable != '' THEN r.unreadable
        WHEN r.responded_at IS NULL AND coalesce(r.response, r.response_type) IS NOT NULL
            THEN 'the response has no readable responded_at'
        WHEN r.responded_at < s.started_at
            THEN 'responded_at ' || iso(r.responded_at) || ' is before started_at ' || iso(s.started_at)
    END
FROM v2_responses r
LEFT JOIN all_steps s ON s.api = 'v2' AND s.instance_id = r.instance_id AND s.step_key = r.step_key
WHERE lower(trim(coalesce(r.role_type, ''))) != 'commenter'
    AND (s.id IS NULL OR s.problem IS NULL AND s.step_type IN ('ResponseStep', 'Action'));

INSERT INTO malformed
SELECT file, 'instance ' || instance_id, problem FROM instances WHERE api = 'v2' AND problem IS NOT NULL
UNION ALL SELECT file, 'instance ' || instance_id || ', step ' || step_key, problem
    FROM all_steps WHERE api = 'v2' AND problem IS NOT NULL
UNION ALL SELECT file, 'instance ' || instance_id || ', step ' || step_key || ', response ' || response_key, problem
    FROM all_responses WHERE api = 'v2' AND problem IS NOT NULL;
"""

# In Legacy Workflows an occurrence of a state is the step. The history has only rows of performed activities, so an
# occurrence consists of the consecutive rows of a state; the current one comes from the instance.
LEGACY = """
CREATE TABLE legacy_names AS
SELECT state_id, max(state) AS state
FROM (SELECT state_id, state FROM legacy_activities UNION ALL SELECT state_id, state FROM legacy_instances)
WHERE state_id IS NOT NULL AND state IS NOT NULL
GROUP BY state_id;

CREATE TABLE legacy_performed AS
SELECT
    a.* EXCLUDE (state), coalesce(a.ended_at, a.created_at) AS performed_at,
    coalesce(a.state_id, a.state, a.activity_id, a.activity, '') AS state_key,
    coalesce(
        a.state, n.state, 'state ' || a.state_id, a.activity, 'activity ' || a.activity_id, '(unnamed)'
    ) AS state,
    CASE
        WHEN a.unreadable != '' THEN a.unreadable
        WHEN i.instance_id IS NULL THEN 'its instance is missing in the table instances'
        WHEN coalesce(a.ended_at, a.created_at) IS NULL THEN 'the activity has no readable ended_at or created_at'
        WHEN coalesce(a.ended_at, a.created_at) < a.started_at THEN
            'ended_at ' || iso(coalesce(a.ended_at, a.created_at)) || ' is before started_at ' || iso(a.started_at)
    END AS problem
FROM legacy_activities a
LEFT JOIN legacy_names n USING (state_id)
LEFT JOIN legacy_instances i ON i.instance_id = a.instance_id;

CREATE TABLE legacy_numbered AS
SELECT *, CAST(sum(is_first) OVER (PARTITION BY instance_id ORDER BY place) AS BIGINT) AS number
FROM (
    SELECT
        *, row_number() OVER in_order AS place,
        CASE WHEN state_key IS DISTINCT FROM lag(state_key) OVER in_order THEN 1 ELSE 0 END AS is_first
    FROM legacy_performed
    WHERE problem IS NULL
    WINDOW in_order AS (
        PARTITION BY instance_id ORDER BY performed_at, started_at, length(history_id), history_id
    )
);

-- The last row of an occurrence is the activity that ended the state.
CREATE TABLE legacy_occurrences AS
SELECT
    instance_id, number, any_value(state_key) AS state_key, any_value(state) AS state, min(started_at) AS started_at,
    max(performed_at) AS ended_at, arg_max(activity, place) AS decided_option,
    arg_max(coalesce(performed_by, performed_by_id), place) AS decided_by
FROM legacy_numbered
GROUP BY instance_id, number;

-- current_occurrence: the occurrence that has rows already although the instance is still in it, or null.
CREATE TABLE legacy_current AS
SELECT
    i.*, f.first_at, l.last_at, l.number AS last_occurrence,
    CASE
        WHEN terminated_at IS NOT NULL THEN 'terminated' WHEN open_activities = 0 THEN 'ended' ELSE 'open'
    END AS instance_state,
    CASE
        WHEN l.state_key IS NOT DISTINCT FROM coalesce(i.state_id, i.state)
            AND (i.state_set_at IS NULL OR l.last_at > i.state_set_at) THEN l.number
    END AS current_occurrence,
    coalesce(
        CASE WHEN l.state_key IS NOT DISTINCT FROM coalesce(i.state_id, i.state)
            AND l.last_at > i.state_set_at THEN least(l.started_at, i.state_set_at) END,
        i.state_set_at, CASE WHEN l.state_key IS NOT DISTINCT FROM coalesce(i.state_id, i.state) THEN l.started_at
            ELSE l.last_at END
    ) AS entered_at
FROM legacy_instances i
LEFT JOIN (SELECT instance_id, min(started_at) AS first_at FROM legacy_occurrences GROUP BY instance_id) f
    ON f.instance_id = i.instance_id
LEFT JOIN (
    SELECT instance_id, number, state_key, started_at, ended_at AS last_at FROM legacy_occurrences
    QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY number DESC) = 1
) l ON l.instance_id = i.instance_id;

ALTER TABLE legacy_current ADD COLUMN problem VARCHAR;
UPDATE legacy_current SET problem = CASE
    WHEN unreadable != '' THEN unreadable
    ELSE 'terminated_at ' || iso(terminated_at) || ' is before the start of the state, ' || iso(entered_at)
END
WHERE unreadable != '' OR terminated_at < entered_at;

INSERT INTO instances
SELECT
    'legacy', instance_id, coalesce(workflow, 'workflow ' || workflow_id, '(unnamed)'), company_id, project_id,
    object_type, object_id, coalesce(first_at, entered_at),
    CASE instance_state WHEN 'terminated' THEN terminated_at WHEN 'ended' THEN coalesce(state_set_at, last_at) END,
    instance_state, file, problem
FROM legacy_current;

INSERT INTO malformed
SELECT file, 'instance ' || instance_id, 'the current state starts before the instance, or its end is unknown'
FROM instances WHERE api = 'legacy' AND problem IS NULL AND ended_at < started_at;
UPDATE instances SET problem = 'malformed' WHERE api = 'legacy' AND problem IS NULL AND ended_at < started_at;

-- A terminated instance may list no activities, as an ended one; a state in which activities are performed waits.
INSERT INTO all_steps BY NAME
SELECT
    'legacy' AS api, v.instance_id, 'occurrence ' || v.number AS step_key, template, v.state AS step,
    'State' AS step_type,
    row_number() OVER (PARTITION BY v.instance_id, v.state_key ORDER BY v.number) AS occurrence, v.started_at,
    CASE WHEN v.started_at IS NOT NULL THEN v.ended_at END AS ended_at, v.due_at, v.state_of_step AS state,
    false AS is_overridden, v.decided_option, v.decided_by, v.assignees, i.file
FROM (
    SELECT
        h.instance_id, h.number, h.state_key, h.state, h.started_at, h.ended_at, CAST(NULL AS BIGINT) AS due_at,
        'ended' AS state_of_step, h.decided_option, h.decided_by, CAST([] AS VARCHAR[]) AS assignees
    FROM legacy_occurrences h JOIN legacy_current c ON c.instance_id = h.instance_id
    WHERE c.instance_state = 'ended' OR h.number IS DISTINCT FROM c.current_occurrence OR c.problem IS NOT NULL
    UNION ALL
    SELECT
        c.instance_id, coalesce(c.current_occurrence, c.last_occurrence + 1, 1), coalesce(c.state_id, c.state),
        coalesce(c.state, n.state, 'state ' || c.state_id, '(unnamed)'), c.entered_at, c.terminated_at,
        c.becomes_overdue_at, CASE c.instance_state WHEN 'terminated' THEN 'cut_off' ELSE 'open' END, NULL, NULL,
        CASE WHEN c.instance_state = 'open' AND json_valid(c.ball_in_court)
            THEN json_extract_string(c.ball_in_court, '$[*].name') ELSE [] END
    FROM legacy_current c LEFT JOIN legacy_names n USING (state_id)
    WHERE c.problem IS NULL AND (
        c.instance_state = 'open'
        OR c.instance_state = 'terminated' AND (
            c.open_activities > 0
            OR coalesce(c.state_id, c.state) IN (SELECT state_key FROM legacy_occurrences)
        )
    )
) v
JOIN instances i ON i.api = 'legacy' AND i.instance_id = v.instance_id;

INSERT INTO all_responses
SELECT
    s.id, 'legacy', s.instance_id, s.step_key, coalesce(performed_by_id, performed_by, '(unknown)'),
    coalesce(performed_by, performed_by_id, '(unknown)'), n.started_at, n.performed_at, NULL, s.occurrence,
    s.state = 'open', n.history_id, n.file, NULL
FROM legacy_numbered n
JOIN all_steps s ON s.api = 'legacy' AND s.instance_id = n.instance_id AND s.step_key = 'occurrence ' || n.number;

-- A pending assignee has only a name; the id is known if one person of that name has performed an activity.
INSERT INTO all_responses
SELECT
    s.id, 'legacy', s.instance_id, s.step_key, coalesce(p.performed_by_id, s.name), s.name, s.started_at, NULL,
    s.due_at, s.occurrence, true, NULL, s.file, NULL
FROM (SELECT *, unnest(assignees) AS name FROM all_steps WHERE api = 'legacy') s
LEFT JOIN (
    SELECT performed_by, max(performed_by_id) AS performed_by_id FROM legacy_numbered
    WHERE performed_by IS NOT NULL GROUP BY performed_by HAVING count(DISTINCT performed_by_id) = 1
) p ON p.performed_by = s.name
WHERE s.name IS NOT NULL;

INSERT INTO malformed
SELECT file, 'instance ' || instance_id, problem FROM legacy_current WHERE problem IS NOT NULL
UNION ALL SELECT file, 'instance ' || instance_id || ', activity ' || history_id, problem
    FROM legacy_performed WHERE problem IS NOT NULL;

DROP TABLE legacy_names; DROP TABLE legacy_performed; DROP TABLE legacy_numbered; DROP TABLE legacy_occurrences;
DROP TABLE legacy_current;
"""
