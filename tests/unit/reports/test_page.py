"""The page of the cycle-time report: complete in one file, readable without pictures, and safe for any name."""

from __future__ import annotations

import re
from dataclasses import replace

import matplotlib
import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.reports.page import MAX_TABLE_ROWS, render_page
from tests.support.html_page import Element, read_page, table
from tests.support.report_example import DAY, HOUR, open_step, quantiles, report_example, summary

LINKS = "https://app.example.com/{company_id}/{project_id}/{tool_type}/{item_id}?instance={instance_id}"
MAX_PAGE_BYTES = 5 * 2**20
HOSTILE = (
    "<script>hit()</script><img src=x onerror=hit()>\"'></title></style></svg><svg onload=hit()> $\\frac{$ {{ 7*7 }}"
)


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(report_example(), LINKS)


@pytest.fixture(scope="module")
def root(page) -> Element:
    return read_page(page)


def with_names(name: str):
    """Return the example with every name replaced by one."""
    names = ("template", "step", "person", "tool_type", "item_id", "assignees", "file", "row", "reason", "name")
    report = report_example()
    return replace(
        report,
        **{
            field: [
                {key: ([name] if key == "assignees" else name) if key in names else value for key, value in row.items()}
                for row in getattr(report, field)
            ]
            for field in (
                "holidays_used",
                "step_summary",
                "template_summary",
                "person_summary",
                "step_distribution",
                "open_steps",
                "malformed",
            )
        },
    )


# --- one file that works anywhere ---


def test_page_refers_to_nothing_outside_itself_except_items(root):
    links = {link.attributes["href"] for link in root.all("a")}
    elsewhere = [
        (element.tag, name, value)
        for element in root.all()
        for name, value in element.attributes.items()
        if (
            name in ("src", "srcset", "data", "poster", "action", "xlink:href")
            or (name == "href" and element.tag != "a")
        )
        and not (value or "").startswith("#")
    ]

    assert links == {
        "https://app.example.com/42/55/purchase_order_contract/7001?instance=9001",
        "https://app.example.com/42/55/purchase_order_contract/7002?instance=9002",
        "https://app.example.com/42/55/Contract/602?instance=41",
    }
    assert elsewhere == []
    assert root.all("script", "link", "iframe", "object", "embed", "base", "image") == []


def test_styles_load_nothing(page):
    assert re.findall(r"url\((?!#)|@import", page) == []


def test_ids_are_unique_and_references_lead_to_them(root, page):
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]

    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#(.*?)\)|href="#(.*?)"', page)) <= {
        pair for anchor in ids for pair in ((anchor, ""), ("", anchor))
    }


def test_same_report_gives_same_bytes(page):
    assert render_page(report_example(), LINKS) == page


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)

    render_page(report_example())

    assert dict(matplotlib.rcParams) == before


# --- what it says ---


def test_each_chart_has_a_text_alternative_and_a_table(root):
    charts = [section for section in root.all("section") if section.all("svg")]
    by_id = {element.attributes["id"]: element for element in root.all() if "id" in element.attributes}

    assert len(charts) == 4
    for section in charts:
        (svg,) = section.all("svg")
        title, description = (by_id[name].text for name in svg.attributes["aria-labelledby"].split())
        assert svg.attributes["role"] == "img"
        assert title == section.all("h2")[0].text
        assert re.search(r"\d", description)
        assert section.all("details")[0].all("tbody")[0].all("td")


def test_charts_contain_their_text_as_text(root):
    drawn = {text.text for svg in root.all("svg") for text in svg.all("text")}

    assert {"Legal review", "Contract approval", "36 h, 40 times", "9 h", "2026-W01", "over 28 d"} <= drawn


def test_summaries_show_calendar_beside_business_time(root):
    (legal, finance, legacy) = table(root, "Steps")

    assert legal == {
        "API": "Workflows",
        "Template": "Contract approval",
        "Step": "Legal review",
        "Count": "40",
        "Median": "36 h / 9 h",
        "90 % within": "6 d / 32 h",
        "Total": f"80 d / {TOTAL_BUSINESS['Legal review']}",
        "Share of total": "60 %",
        "Overdue": "25 %",
        "Rework": "10 %",
        "Open now": "2",
    }
    assert finance["Count"] == "38"
    assert (legacy["API"], legacy["Median"], legacy["Overdue"]) == ("Legacy", "–", "–")
    assert [row["Person"] for row in table(root, "People")] == ["Ana Alvarez", "Ben <b>Bold</b>"]
    assert [row["Template"] for row in table(root, "Templates")] == ["Contract approval", "Commitments"]


TOTAL_BUSINESS = {
    row["step"]: f"{row['total_business_seconds'] / HOUR:,.0f} h" for row in report_example().step_summary
}


def test_oldest_show_days_of_the_zone_and_a_forecast(root):
    first, second, legacy = table(root, "The ten oldest")

    assert first == {
        "Item": "purchase_order_contract 7001",
        "Template": "Contract approval",
        "Step": "Legal review (occurrence 2)",
        "Pending with": "Ana Alvarez, Ben <b>Bold</b>",
        "Since": "2026-01-20",
        "Due": "2026-01-25, overdue",
        "Age": "10 d / 56 h",
        "50 % decided by": "2026-02-01",
        "80 % decided by": "2026-02-06",
        "Observations": "23",
    }
    assert (second["Due"], second["Pending with"]) == ("–", "–")
    assert (legacy["50 % decided by"], legacy["Observations"]) == ("–", "0")


def test_only_the_ten_oldest_are_listed():
    report = replace(report_example(), open_steps=[open_step(item_id=str(number)) for number in range(12)])

    listed = [row["Item"].split()[-1] for row in table(read_page(render_page(report)), "The ten oldest")]

    assert listed == [str(number) for number in range(10)]


def test_page_states_zone_hours_country_and_holidays(root):
    text = root.text

    for stated in ("2026-01-30 10:30", "Europe/Berlin", "Mon-Fri 09:00-17:00", "holidays of DE", "New Year's Day"):
        assert stated in text


def test_malformed_rows_are_counted_and_named(root):
    assert root.all("strong")[0].text.startswith("1 malformed row")
    (row,) = table(root, "Malformed")
    assert row["Row"] == "instance 9003, step #2"
    assert row["File"].endswith("steps.jsonl")


def test_report_without_steps_is_a_page_that_says_so():
    report = report_example()
    no_rows = {field: [] for field, value in vars(report).items() if isinstance(value, list)}
    totals = dict.fromkeys(report.totals, 0)

    root = read_page(render_page(replace(report, country=None, totals=totals, **no_rows)))

    assert root.all("svg") == []
    assert "No step is open" in root.text
    assert len(root.all("dt")) >= 4


def test_item_without_an_id_of_the_pattern_has_no_link():
    report = replace(report_example(), open_steps=[open_step(project_id=None)])

    root = read_page(render_page(report, LINKS))

    assert root.all("a") == []


# --- any name, any number ---


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "name",
    [
        HOSTILE,
        "]]><!--",
        "javascript:hit()",
        "\x00\x1b[31m\x85\u202eevil",
        "half \ud800",
        "承認" * 40,
        "&lt;b&gt;",
        "  ",
    ],
    ids=["tags", "comment", "url", "control", "surrogate", "cjk", "entity", "blank"],
)
def test_any_name_is_text(name):
    root = read_page(render_page(with_names(name), "https://app.example.com/{item_id}"))

    assert root.all("script", "img", "b") == []
    assert len(root.all("svg")) == 4
    assert [key for element in root.all() for key in element.attributes if key.startswith("on")] == []
    assert {link.attributes["href"].partition("/")[0] for link in root.all("a")} == {"https:"}
    root.text.encode()
    assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e]", root.text)


def test_hostile_name_is_shown_whole(root):
    shown = table(read_page(render_page(with_names(HOSTILE))), "People")[0]["Person"]

    assert shown == HOSTILE


def test_ids_in_a_link_cannot_change_its_path():
    report = replace(report_example(), open_steps=[open_step(item_id='../x"?a=b#c')])

    (link,) = read_page(render_page(report, "https://app.example.com/{item_id}")).all("a")

    assert link.attributes["href"] == "https://app.example.com/..%2Fx%22%3Fa%3Db%23c"


@pytest.mark.parametrize(
    "pattern",
    ["javascript:alert({item_id})", "data:text/html,{item_id}", "{item_id}", "https://", "https://x/{user}", ""],
)
def test_other_patterns_of_links_are_errors(pattern):
    with pytest.raises(ConfigurationError, match="item_url"):
        render_page(report_example(), pattern)


@pytest.fixture(scope="module")
def large_page() -> str:
    """The page of 500 templates with three steps each, of 3,000 people, and of ten years, with long names."""
    long = "Ünïcödé & <name> " * 40
    report = report_example()
    steps = [{"template": f"{number} {long}", "step": f"{step} {long}"} for number in range(500) for step in range(3)]
    return render_page(
        replace(
            report,
            step_summary=[summary(**step, count=1, open=1, share_of_total=1 / 1500) for step in steps],
            template_summary=[summary(**step, count=1, open=1) for step in steps[::3]],
            person_summary=[summary(person=f"{number} {long}", count=1, open=1) for number in range(3000)],
            step_distribution=[
                {
                    "api": "v2",
                    **step,
                    "count": 1,
                    "seconds": quantiles(0, HOUR, DAY, 2 * DAY, 3 * DAY, 9 * DAY, 99 * DAY),
                    "business_seconds": quantiles(*[0.0] * 7),
                }
                for step in steps
            ],
            throughput=[
                {"week": f"{2016 + week // 52}-W{week % 52 + 1:02}", "started": 1, "ended": 0} for week in range(520)
            ],
            open_steps=[open_step(**step, assignees=[long] * 50) for step in steps[:1000]],
            malformed=[{"file": long * 5, "row": long, "reason": long} for _ in range(100)],
        ),
        LINKS,
    )


def test_page_of_500_templates_is_small(large_page):
    assert len(large_page.encode()) < MAX_PAGE_BYTES


@pytest.mark.parametrize(("caption", "rows"), [("Templates", 500), ("Steps", 1500), ("People", 3000)])
def test_rows_that_are_left_out_are_counted_as_others(large_page, caption, rows):
    root = read_page(large_page)
    shown = table(root, caption)
    others = list(shown[-1].values())

    assert len(shown) == MAX_TABLE_ROWS + 1
    assert f"{rows - MAX_TABLE_ROWS:,} others" in others
    assert (shown[-1]["Count"], shown[-1]["Open now"]) == (f"{rows - MAX_TABLE_ROWS:,}",) * 2
    assert shown[-1]["Median"] == "–"


def test_total_of_templates_that_are_not_drawn_is_in_the_chart(large_page):
    drawn = [text.text for text in read_page(large_page).all("text")]

    assert "492 other templates" in drawn
    assert "118,080 d" in next(text for text in drawn if text.startswith("118,080 d"))
