"""The SQL that measures the common tables: waiting times, forecasts and summaries."""

from __future__ import annotations

MIN_OBSERVATIONS = 20
HOUR, DAY = 3600, 86_400
BIN_SECONDS = (0, HOUR, 8 * HOUR, DAY, 2 * DAY, 4 * DAY, 7 * DAY, 14 * DAY, 28 * DAY)
AGE_SECONDS = (0, DAY, 3 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 90 * DAY)
QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "max": 1.0}


def _timed(table: str, columns: str, source: str) -> str:
    """
    Return the SQL of a table with the time spent from ``started_at`` to ``until_at``, in calendar and working time.

    ``working`` contains the working intervals, each with the working time ``before`` it, so the working time between
    two times is a difference. Its first row starts before all times.
    """
    return f"""
CREATE TABLE {table} AS
SELECT
    {columns}, until_at - started_at AS spent,
    CASE WHEN until_at - started_at IS NOT NULL THEN -- least() ignores nulls
        b.before + least(until_at - b.starts, b.ends - b.starts)
        - a.before - least(started_at - a.starts, a.ends - a.starts)
    END AS business_spent
FROM ({source}) t
ASOF JOIN working a ON coalesce(started_at, 0) >= a.starts
ASOF JOIN working b ON coalesce(until_at, 0) >= b.starts;
"""


# ``as_of`` is the time up to which open rows are measured; a clock that is behind Procore's gives no negative age.
TIMED = "".join(
    (
        _timed(
            "timed_steps",
            "t.*, CASE WHEN due_at IS NOT NULL THEN until_at > due_at END AS is_overdue",
            "SELECT * EXCLUDE (assignees, file, problem, overridden_by), "
            "CASE WHEN state = 'open' THEN greatest(started_at, as_of()) ELSE ended_at END AS until_at FROM steps",
        ),
        _timed(
            "timed_responses",
            "t.*, CASE WHEN due_at IS NOT NULL THEN until_at > due_at END AS is_overdue",
            "SELECT step_id, api, person_key, person, started_at, responded_at, due_at, occurrence, "
            "coalesce(responded_at, greatest(started_at, as_of())) AS until_at "
            "FROM responses WHERE responded_at IS NOT NULL OR is_open",
        ),
        """
CREATE TABLE measured_instances AS
SELECT
    i.* EXCLUDE (problem), coalesce(s.steps, 0) AS steps, coalesce(s.returned_steps, 0) AS returned_steps,
    coalesce(s.rework_rounds, 0) AS rework_rounds, coalesce(s.overrides, 0) AS overrides,
    coalesce(s.overdue_steps, 0) AS overdue_steps, coalesce(s.due_steps, 0) AS due_steps,
    coalesce(p.people, 0) AS people
FROM instances i
LEFT JOIN (
    SELECT
        api, instance_id, count(*) AS steps, count(*) FILTER (WHERE occurrence > 1) AS returned_steps,
        coalesce(max(occurrence), 1) - 1 AS rework_rounds, count(*) FILTER (WHERE is_overridden) AS overrides,
        count(*) FILTER (WHERE is_overdue) AS overdue_steps, count(is_overdue) AS due_steps
    FROM timed_steps WHERE state != 'not_started' GROUP BY api, instance_id
) s USING (api, instance_id)
LEFT JOIN (
    SELECT api, instance_id, count(DISTINCT person_key) AS people
    FROM (
        SELECT api, instance_id, person_key FROM responses WHERE responded_at IS NOT NULL
        UNION ALL SELECT api, instance_id, overridden_by FROM steps WHERE overridden_by IS NOT NULL
    )
    GROUP BY api, instance_id
) p USING (api, instance_id)
WHERE i.problem IS NULL;
""",
        _timed(
            "timed_instances",
            "t.*",
            "SELECT *, CASE WHEN state = 'open' THEN greatest(started_at, as_of()) ELSE ended_at END AS until_at "
            "FROM measured_instances",
        ),
    )
)

# The observed durations of a step, the longest first. ``longer`` is the number of those that are longer than a given
# age: the rank of the shortest of them. The forecast interpolates between two of them as quantile_cont does.
FORECASTS = f"""
CREATE TABLE observed AS
SELECT
    api, template, step, spent, row_number() OVER (PARTITION BY api, template, step ORDER BY spent DESC) AS rank
FROM timed_steps WHERE state = 'ended' AND spent IS NOT NULL;

CREATE TABLE forecasts AS
WITH longest_rank AS (
    SELECT api, template, step, spent, max(rank) AS longer FROM observed GROUP BY api, template, step, spent
),
open_steps AS (
    SELECT o.id, o.api, o.template, o.step, o.started_at, coalesce(r.longer, 0) AS longer
    FROM (SELECT * FROM timed_steps WHERE state = 'open') o
    ASOF LEFT JOIN longest_rank r
        ON o.api = r.api AND o.template = r.template AND o.step = r.step AND o.spent < r.spent
),
places AS (
    SELECT *, (longer - 1) * share AS place
    FROM open_steps, (SELECT unnest([0.5, 0.8]) AS share) WHERE longer >= {MIN_OBSERVATIONS}
),
quantiles AS (
    SELECT
        p.id, p.share,
        lower.spent + (p.place - floor(p.place)) * (upper.spent - lower.spent) AS spent
    FROM places p
    JOIN observed lower ON lower.api = p.api AND lower.template = p.template AND lower.step = p.step
        AND lower.rank = p.longer - CAST(floor(p.place) AS BIGINT)
    JOIN observed upper ON upper.api = p.api AND upper.template = p.template AND upper.step = p.step
        AND upper.rank = p.longer - CAST(ceil(p.place) AS BIGINT)
)
SELECT
    o.id, any_value(o.longer) AS observations,
    any_value(o.started_at) + CAST(round(max(q.spent) FILTER (WHERE share < 0.6)) AS BIGINT) AS decided_by_50,
    any_value(o.started_at) + CAST(round(max(q.spent) FILTER (WHERE share > 0.6)) AS BIGINT) AS decided_by_80
FROM open_steps o LEFT JOIN quantiles q USING (id)
GROUP BY o.id;
DROP TABLE observed;
"""

MEASURES = """
    quantile_cont(spent, 0.5) FILTER (WHERE {is_counted}) / 1e6 AS median_seconds,
    quantile_cont(spent, 0.9) FILTER (WHERE {is_counted}) / 1e6 AS p90_seconds,
    quantile_cont(business_spent, 0.5) FILTER (WHERE {is_counted}) / 1e6 AS median_business_seconds,
    quantile_cont(business_spent, 0.9) FILTER (WHERE {is_counted}) / 1e6 AS p90_business_seconds,
    coalesce(sum(spent), 0) / 1e6 AS total_seconds, coalesce(sum(business_spent), 0) / 1e6 AS total_business_seconds,
    CAST(coalesce(sum(spent), 0) / nullif(sum(sum(spent)) OVER (), 0) AS DOUBLE) AS share_of_total,
"""
ENDED = "state = 'ended' AND spent IS NOT NULL"

SUMMARIES = {
    "step_summary": f"""
SELECT
    api, template, step, count(*) FILTER (WHERE {ENDED}) AS count, count(*) FILTER (WHERE state = 'open') AS open,
    {MEASURES.format(is_counted=ENDED)}
    avg(CAST(is_overdue AS INTEGER)) AS share_overdue,
    count(*) FILTER (WHERE occurrence > 1) / count(*) AS rework_rate,
    count(*) FILTER (WHERE state = 'cut_off') AS cut_off
FROM timed_steps WHERE state != 'not_started'
GROUP BY api, template, step
""",
    "template_summary": f"""
SELECT
    api, template, count(*) FILTER (WHERE {ENDED}) AS count, count(*) FILTER (WHERE state = 'open') AS open,
    {MEASURES.format(is_counted=ENDED)}
    avg(CAST(overdue_steps > 0 AS INTEGER)) FILTER (WHERE due_steps > 0) AS share_overdue,
    avg(CAST(returned_steps > 0 AS INTEGER)) AS rework_rate,
    count(*) FILTER (WHERE state = 'terminated') AS cut_off
FROM timed_instances
GROUP BY api, template
""",
    "person_summary": f"""
SELECT
    api, max(person) AS person, count(responded_at) AS count, count(*) FILTER (WHERE responded_at IS NULL) AS open,
    {MEASURES.format(is_counted="responded_at IS NOT NULL AND spent IS NOT NULL")}
    avg(CAST(is_overdue AS INTEGER)) AS share_overdue,
    count(*) FILTER (WHERE occurrence > 1) / count(*) AS rework_rate
FROM timed_responses
GROUP BY api, person_key
""",
}

# DuckDB returns rows in no order of its own.
NAMES = {"step_summary": "template, step", "template_summary": "template", "person_summary": "person"}
IN_ORDER = {
    name: f"SELECT * FROM {name} ORDER BY total_seconds DESC, api, {names}, count" for name, names in NAMES.items()
}

TOTALS = """
SELECT
    (SELECT count(*) FROM timed_instances) AS instances,
    (SELECT count(*) FROM timed_instances WHERE state != 'open') AS ended,
    (SELECT count(*) FROM timed_instances WHERE state = 'open') AS open,
    (SELECT count(*) FROM timed_instances WHERE state = 'terminated') AS terminated,
    count(*) AS step_rows, count(*) FILTER (WHERE state = 'open') AS open_steps,
    count(*) FILTER (WHERE is_overridden) AS overridden,
    coalesce(sum(spent), 0) / 1e6 AS total_seconds, coalesce(sum(business_spent), 0) / 1e6 AS total_business_seconds
FROM timed_steps WHERE state != 'not_started'
"""


def _counts(value: str, edges: tuple[int, ...], condition: str = "true") -> str:
    """Return the SQL of a list with the count of each bin."""
    bins = [
        f"count(*) FILTER (WHERE {condition} AND {value} >= {low * 10**6}"
        + (f" AND {value} < {high * 10**6})" if high is not None else ")")
        for low, high in zip(edges, [*edges[1:], None], strict=True)
    ]
    return f"[{', '.join(bins)}]"


DISTRIBUTIONS = f"""
SELECT
    api, template, step, count(*) AS count, quantile_cont(spent, {list(QUANTILES.values())}) AS seconds,
    quantile_cont(business_spent, {list(QUANTILES.values())}) AS business_seconds,
    {_counts("spent", BIN_SECONDS)} AS bins, {_counts("business_spent", BIN_SECONDS)} AS business_bins
FROM timed_steps WHERE {ENDED}
GROUP BY api, template, step
"""
OPEN_AGES = f"""
SELECT {_counts("spent", AGE_SECONDS)} AS counts, {_counts("spent", AGE_SECONDS, "is_overdue")} AS overdue
FROM timed_steps WHERE state = 'open'
"""
# ``weeks`` has the start and the name of each ISO week in the report's time zone.
THROUGHPUT = """
SELECT week, coalesce(s.number, 0) AS started, coalesce(e.number, 0) AS ended
FROM weeks
LEFT JOIN (
    SELECT week, count(*) AS number FROM timed_instances ASOF JOIN weeks ON started_at >= starts GROUP BY week
) s USING (week)
LEFT JOIN (
    SELECT week, count(*) AS number FROM timed_instances ASOF JOIN weeks ON ended_at >= starts GROUP BY week
) e USING (week)
ORDER BY week
"""
OPEN_STEPS = """
SELECT
    s.api, s.template, s.step, s.instance_id, item_id, tool_type, company_id, project_id, iso(s.started_at) AS since,
    spent / 1e6 AS age_seconds, business_spent / 1e6 AS age_business_seconds, iso(due_at) AS due,
    coalesce(is_overdue, false) AS is_overdue, coalesce(p.pending, []) AS assignees, occurrence,
    iso(decided_by_50) AS decided_by_50, iso(decided_by_80) AS decided_by_80, observations
FROM timed_steps s
JOIN instances i USING (api, instance_id)
LEFT JOIN forecasts USING (id)
LEFT JOIN pending p USING (id)
WHERE s.state = 'open'
ORDER BY spent DESC NULLS LAST, s.api, s.instance_id, s.step_key
"""
PENDING = """
CREATE TABLE pending AS
SELECT step_id AS id, list(person ORDER BY person) AS pending
FROM timed_responses WHERE responded_at IS NULL
GROUP BY step_id
"""

# The tables that a report writes; {time} converts microseconds to the format's type of a time.
TABLES = {
    "steps": """
SELECT
    s.api, s.instance_id, s.step_key, s.template, s.step, s.step_type, s.occurrence, i.project_id, i.tool_type,
    i.item_id, s.state, {time}(s.started_at) AS started_at, {time}(s.ended_at) AS ended_at,
    {time}(s.due_at) AS due_at, s.is_overdue,
    CASE WHEN s.state != 'open' THEN s.spent / 1e6 END AS waiting_seconds,
    CASE WHEN s.state != 'open' THEN s.business_spent / 1e6 END AS waiting_business_seconds,
    CASE WHEN s.state = 'open' THEN s.spent / 1e6 END AS age_seconds,
    CASE WHEN s.state = 'open' THEN s.business_spent / 1e6 END AS age_business_seconds,
    s.is_overridden, s.decided_option, s.decided_by, array_to_string(p.pending, ', ') AS pending_with,
    f.observations, {time}(f.decided_by_50) AS decided_by_50, {time}(f.decided_by_80) AS decided_by_80
FROM timed_steps s
JOIN instances i USING (api, instance_id)
LEFT JOIN forecasts f USING (id)
LEFT JOIN pending p USING (id)
ORDER BY s.api, s.instance_id, s.started_at, s.step_key
""",
    "instances": """
SELECT
    api, instance_id, template, project_id, tool_type, item_id, state, {time}(started_at) AS started_at,
    {time}(ended_at) AS ended_at, CASE WHEN state != 'open' THEN spent / 1e6 END AS total_seconds,
    CASE WHEN state != 'open' THEN business_spent / 1e6 END AS total_business_seconds,
    CASE WHEN state = 'open' THEN spent / 1e6 END AS age_seconds,
    CASE WHEN state = 'open' THEN business_spent / 1e6 END AS age_business_seconds, steps, rework_rounds,
    returned_steps, overrides, people, overdue_steps
FROM timed_instances
ORDER BY api, instance_id
""",
    **IN_ORDER,
}
