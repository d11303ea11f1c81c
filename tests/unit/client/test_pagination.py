"""A list is read to its end however the server names the next page, or it is an error: never cut silently."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.pagination import MAX_EMPTY_PAGES, SMALLER_PAGES, check_whole
from airflow_provider_workflows.exceptions import IncompleteList, InvalidRequest, UnexpectedResponse

BASE = "https://api.example.com"
Page = dict[str, Any]


class Server:
    """
    Serves one list of numbered rows.

    :param size: Rows in all.
    :param around: Returns what surrounds a page: members of the envelope and headers. It is called with the number of
        the page, and whether another follows.
    :param takes: Which query parameters name a page; others are ignored.
    """

    def __init__(
        self,
        requests_mock,
        size: int,
        around: Callable[[int, bool], tuple[Page, Page]],
        *,
        takes: tuple[str, ...] = ("cursor", "page"),
        largest_page: int = 2000,
        style: str = "v2",
    ):
        self.style, self.size, self.around, self.takes, self.largest_page = style, size, around, takes, largest_page
        self.requested: list[dict[str, list[str]]] = []
        self.gone = 0  # rows that vanish before the second request
        requests_mock.get(BASE + "/x", text=self.respond)

    def respond(self, request, context) -> str:
        self.requested.append(request.qs)
        per_page = int(request.qs["per_page"][0])
        if per_page > self.largest_page:
            context.status_code = 400
            return json.dumps({"message": "no"})
        place = next((request.qs[name][0] for name in self.takes if name in request.qs), "1")
        number = int(place.removeprefix("c"))
        rows = [{"id": row} for row in range(1, self.size + 1)]
        shown = rows[(number - 1) * per_page : number * per_page]
        envelope, headers = self.around(number, number * per_page < self.size)
        context.headers.update(headers)
        return json.dumps(shown if self.style == "v1" else {"data": shown, **envelope})

    def read(self, per_page: int = 2) -> list[int]:
        pages = RestClient(BASE).pages("/x", params={"f": "1"}, per_page=per_page, style=self.style)
        return [row["id"] for row in pages]


def cursor(number: int, more: bool) -> str | None:
    return f"c{number + 1}" if more else None


# --- what names the next page ---

WAYS: dict[str, Callable[[int, bool], tuple[Page, Page]]] = {
    "X-Next-Cursor": lambda n, more: ({}, {"X-Next-Cursor": cursor(n, more) or ""}),
    "header that is left out": lambda n, more: ({}, {"X-Next-Cursor": f"c{n + 1}"} if more else {}),
    "X-Next-Page": lambda n, more: ({}, {"X-Next-Page": str(n + 1) if more else ""}),
    "X-Pagination": lambda n, more: ({}, {"X-Pagination": json.dumps({"HasNext": more, "TotalPages": 3})}),
    "X-Total-Pages": lambda n, more: ({}, {"X-Total-Pages": "3"}),
    "page_info.end_cursor": lambda n, more: ({"page_info": {"end_cursor": f"c{n + 1}", "has_next_page": more}}, {}),
    "pageInfo.endCursor": lambda n, more: ({"pageInfo": {"endCursor": f"c{n + 1}", "hasNextPage": more}}, {}),
    "meta.cursors.after": lambda n, more: ({"meta": {"cursors": {"before": "c1", "after": cursor(n, more)}}}, {}),
    "a cursor up to the end": lambda n, more: ({"meta": {"cursors": {"after": f"c{n + 1}"}}}, {}),
    "has_more alone": lambda n, more: ({"has_more": more}, {}),
    "has_more and null": lambda n, more: ({"has_more": more, "next_cursor": None}, {}),
    "meta.hasMore as text": lambda n, more: ({"meta": {"hasMore": str(more)}}, {}),
    "is_last_page": lambda n, more: ({"meta": {"is_last_page": not more}}, {}),
    "next_page_token": lambda n, more: ({"next_page_token": cursor(n, more)}, {}),
    "nextPageToken, left out": lambda n, more: ({"nextPageToken": f"c{n + 1}"} if more else {}, {}),
    "pagination.cursor": lambda n, more: ({"pagination": {"cursor": cursor(n, more)}}, {}),
    "meta.total_pages": lambda n, more: ({"meta": {"total_pages": 3, "page": n}}, {}),
    "meta.last_page": lambda n, more: ({"meta": {"current_page": n, "last_page": 3}}, {}),
    "meta.total": lambda n, more: ({"meta": {"total": 5}}, {}),
    "total and null": lambda n, more: ({"next_cursor": None}, {"Total": "5"}),
    "next_page as number": lambda n, more: ({"next_page": n + 1 if more else None}, {}),
    "_links.next.href": lambda n, more: ({"_links": {"next": {"href": f"/x?cursor=c{n + 1}"}} if more else {}}, {}),
    "a list of links": lambda n, more: (
        {"links": [{"rel": "self", "href": "/x"}, *([{"rel": "next", "href": f"?page={n + 1}"}] if more else [])]},
        {},
    ),
    "@odata.nextLink": lambda n, more: ({"@odata.nextLink": f"{BASE}/x?cursor=c{n + 1}"} if more else {}, {}),
    "Link over http": lambda n, more: (
        {},
        {"Link": f'<http://inner:8080/x?cursor=c{n + 1}&f=2>; rel="next"'} if more else {},
    ),
    "Link with two relations": lambda n, more: (
        {},
        {"Link": f'<{BASE}/x?page={n + 1}>; rel="Next last"'} if more else {},
    ),
    "a Link about something else": lambda n, more: ({}, {"Link": f'<{BASE}/docs>; rel="deprecation"'}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_name_the_next_page_is_followed(requests_mock, way):
    server = Server(requests_mock, 5, WAYS[way])

    assert server.read() == [1, 2, 3, 4, 5]
    assert all(query["f"] == ["1"] and not {"cursor", "page"} <= set(query) for query in server.requested)


HEADERS = ("X-Next-Cursor", "X-Next-Page", "X-Total-Pages", "Link over http", "X-Pagination")


@pytest.mark.parametrize("way", HEADERS)
def test_v1_lists_follow_the_headers_too(requests_mock, way):
    server = Server(requests_mock, 5, WAYS[way], style="v1")

    assert server.read() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "last",
    [
        {"next_cursor": None, "has_more": False},
        {"page_info": {"end_cursor": "c9", "has_next_page": False}},
        {"meta": {"total_pages": 1}},
        {"meta": {"next_cursor": ""}},
        {"links": {"next": None, "prev": None, "self": "/x?page=1"}},
        {"pagination": {"cursor": None}},
        {"meta": {"page": 1, "per_page": 2, "total": 2}},
    ],
)
def test_a_full_page_that_says_it_is_the_last_one_is_believed(requests_mock, last):
    server = Server(requests_mock, 2, lambda n, more: (last, {}))

    assert server.read() == [1, 2]
    assert len(server.requested) == 1


def test_a_cursor_of_an_empty_page_that_names_itself_is_the_end(requests_mock):
    server = Server(requests_mock, 4, lambda n, more: ({"next_cursor": f"c{min(n + 1, 3)}"}, {}))

    assert server.read() == [1, 2, 3, 4]


def test_an_empty_page_with_a_next_one_is_not_the_end(requests_mock):
    first = {"json": {"data": [], "next_cursor": "c2"}}
    requests_mock.get(BASE + "/x", [first, {"json": {"data": [{"id": 1}], "next_cursor": None}}])

    assert [row["id"] for row in RestClient(BASE).pages("/x", per_page=2, style="v2")] == [1]


def test_endless_empty_pages_end(requests_mock):
    responses = [{"json": {"data": [], "next_cursor": f"c{number}"}} for number in range(100)]
    requests_mock.get(BASE + "/x", responses)

    with pytest.raises(UnexpectedResponse, match="does not end"):
        list(RestClient(BASE).pages("/x", per_page=2, style="v2"))
    assert requests_mock.call_count == MAX_EMPTY_PAGES + 1


def test_after_cursors_a_full_page_without_one_is_the_end(requests_mock):
    server = Server(requests_mock, 4, lambda n, more: ({"next_cursor": "c2"} if more else {}, {}))

    assert server.read() == [1, 2, 3, 4]
    assert len(server.requested) == 2


# --- what cannot be followed ---


@pytest.mark.parametrize(
    "around",
    [
        {"has_more": True},
        {"has_more": True, "next_cursor": None},
        {"page_info": {"has_next_page": True}},
        {"meta": {"total_pages": 3}},
        {"meta": {"total": 5}},
        {"next_offset": 2},
        {"meta": {"next_id": 3}},
        {"pagination": {"continuation": {"key": "k"}}},
        {"paging": {"next": {"offset": 2}}},
        {"next_cursor": {"href": "/x?cursor=c2"}},
        {"last_evaluated_key": {"id": 2}},
        {"data_info": {"has_more": True}},
        {"data_info": {"next_page": "p2"}},
        {"end_cursor": ["c2"]},
    ],
)
def test_a_next_page_that_cannot_be_had_is_an_error(requests_mock, around):
    """Neither cursors nor page numbers are known to this server."""
    server = Server(requests_mock, 5, lambda n, more: (around, {}), takes=())

    with pytest.raises(UnexpectedResponse):
        server.read()


@pytest.mark.parametrize(
    "name", ["X-Next-Offset", "X-Has-More", "X-Next-Page", "X-Continuation-Token", "X-Total-Pages"]
)
@pytest.mark.parametrize("style", ["v1", "v2"])
def test_a_header_that_names_a_next_page_is_never_the_end(requests_mock, name, style):
    server = Server(requests_mock, 5, lambda n, more: ({}, {name: "2"}), takes=(), style=style)

    with pytest.raises(UnexpectedResponse):
        server.read(per_page=100 if name == "X-Next-Offset" else 2)


def test_members_of_rows_name_no_page(requests_mock):
    row = {"id": 1, "next_cursor": "c2", "has_more": True, "meta": {"next_page": 2}, "total_pages": 9}
    requests_mock.get(BASE + "/x", json={"data": [row]})

    assert list(RestClient(BASE).pages("/x", per_page=2, style="v2")) == [row]
    assert requests_mock.call_count == 1


def test_members_that_name_no_page_are_left_alone(requests_mock):
    envelope = {
        "meta": {"page": 1, "per_page": 2, "request_id": "r", "previous_cursor": "c0", "filters": {"after": "2026"}},
        "links": {"self": "/x?page=1", "prev": None, "first": "/x?page=1"},
    }
    headers = {"X-Request-Id": "r", "X-Page": "1", "Retry-After": "3", "X-Rate-Limit-Reset": "9", "ETag": "next"}
    requests_mock.get(BASE + "/x", json={"data": [{"id": 1}], **envelope}, headers=headers)

    assert list(RestClient(BASE).pages("/x", per_page=2, style="v2")) == [{"id": 1}]
    assert requests_mock.call_count == 1


# --- totals ---


def numbered(*pages: tuple[list[int], int]) -> list[dict[str, Any]]:
    return [{"json": [{"id": row} for row in ids], "headers": {"Total": str(total)}} for ids, total in pages]


def read_v1() -> list[int]:
    return [row["id"] for row in RestClient(BASE).pages("/x", per_page=2, style="v1")]


@pytest.mark.parametrize(("total", "is_whole"), [(3, False), (2, True)])
def test_list_without_paging_has_as_many_rows_as_its_total(requests_mock, total, is_whole):
    rows = [{"id": 1}, {"id": 2}]
    requests_mock.get(BASE + "/x", json={"data": rows}, headers={"Total": str(total)})
    response = RestClient(BASE).get("/x")

    with contextlib.nullcontext() if is_whole else pytest.raises(UnexpectedResponse, match="next page"):
        check_whole(response, response.json(), rows)


def test_a_list_that_shrinks_is_whole_by_its_last_total(requests_mock):
    requests_mock.get(BASE + "/x", numbered(([1, 2], 5), ([4, 5], 4)))

    assert read_v1() == [1, 2, 4, 5]
    assert requests_mock.call_count == 2


def test_a_list_that_came_too_short_is_read_once_more(requests_mock):
    requests_mock.get(BASE + "/x", numbered(([1, 2], 4), ([4], 4), ([1, 2], 4), ([3, 4], 4)))

    assert read_v1() == [1, 2, 4, 3]
    assert [int(request.qs["page"][0]) for request in requests_mock.request_history] == [1, 2, 1, 2]


def test_rows_without_an_id_are_not_returned_twice_either(requests_mock):
    pages = [([{"n": 1}, {"n": 2}], "4"), ([{"n": 4}], "4"), ([{"n": 1}, {"n": 2}], "4"), ([{"n": 3}, {"n": 4}], "4")]
    requests_mock.get(BASE + "/x", [{"json": shown, "headers": {"Total": total}} for shown, total in pages])

    rows = list(RestClient(BASE).pages("/x", per_page=2, style="v1"))

    assert [row["n"] for row in rows] == [1, 2, 4, 3]


@pytest.mark.parametrize("total", [3, 5])
def test_a_list_that_stays_too_short_is_an_error(requests_mock, total):
    requests_mock.get(BASE + "/x", numbered(*([([1, 2], total), ([], total)] * 2)))

    with pytest.raises(IncompleteList):
        read_v1()
    assert requests_mock.call_count == 4


def test_a_list_not_read_to_its_end_is_not_read_again(requests_mock):
    requests_mock.get(BASE + "/x", numbered(([1, 2], 9)))

    assert next(RestClient(BASE).pages("/x", per_page=2, style="v1")) == {"id": 1}
    assert requests_mock.call_count == 1


# --- pages that are too large ---


@pytest.mark.parametrize("largest_page", SMALLER_PAGES)
@pytest.mark.parametrize("style", ["v1", "v2"])
def test_pages_that_are_rejected_as_too_large_become_smaller(requests_mock, largest_page, style):
    around = WAYS["X-Next-Cursor"] if style == "v2" else WAYS["a Link about something else"]
    server = Server(requests_mock, 120, around, largest_page=largest_page, style=style)
    client = RestClient(BASE)

    for _ in range(2):
        pages = client.pages("/x", params={"f": "1"}, per_page=2000, style=style)
        assert [row["id"] for row in pages] == list(range(1, 121))
    sizes = [int(query["per_page"][0]) for query in server.requested]
    assert sizes.count(2000) == 1  # the size that works is remembered
    assert sizes[-1] == largest_page


def test_a_rejection_for_another_reason_is_raised_unchanged(requests_mock):
    requests_mock.get(BASE + "/x", status_code=400, json={"message": "filters[tool_type] is missing"})

    with pytest.raises(InvalidRequest, match="tool_type"):
        list(RestClient(BASE).pages("/x", per_page=100, style="v2"))
    assert requests_mock.call_count == 3


MALFORMED = [None, 7, "text", [], [{}]]


def served(requests_mock, rows):
    requests_mock.get(BASE + "/x", json={"data": rows})


@pytest.mark.parametrize("malformed", MALFORMED, ids=repr)
def test_row_that_is_not_an_object_is_yielded_empty_on_request(requests_mock, malformed):
    served(requests_mock, [{"id": 1}, malformed, {"id": 2}])

    pages = RestClient(BASE).pages("/x", per_page=5, style="v2", keep_malformed_rows=True)

    assert list(pages) == [{"id": 1}, {}, {"id": 2}]


@pytest.mark.parametrize("malformed", MALFORMED, ids=repr)
def test_row_that_is_not_an_object_is_an_error_by_default(requests_mock, malformed):
    served(requests_mock, [{"id": 1}, malformed])

    with pytest.raises(UnexpectedResponse):
        list(RestClient(BASE).pages("/x", per_page=5, style="v2"))


@pytest.mark.parametrize("body", [{"data": None}, {"data": {}}, [], {"rows": []}], ids=repr)
def test_list_that_is_none_is_an_error_in_any_case(requests_mock, body):
    requests_mock.get(BASE + "/x", json=body)

    with pytest.raises(UnexpectedResponse):
        list(RestClient(BASE).pages("/x", per_page=5, style="v2", keep_malformed_rows=True))


# --- a server that lowers the size of a page, and says nothing ---


class LoweringServer(Server):
    """Returns at most so many rows as a page; a page after the last one is empty, the first one again, or rejected."""

    beyond = "empty"

    def respond(self, request, context) -> str:
        self.requested.append(request.qs)
        number = int(request.qs.get("page", ["1"])[0])
        rows = [{"id": row} for row in range(1, self.size + 1)]
        shown = rows[(number - 1) * self.largest_page : number * self.largest_page]
        if number > 1 and isinstance(self.beyond, int):
            context.status_code = self.beyond
        if number > 1 and self.beyond == "first":
            shown = rows[: self.largest_page]
        return json.dumps({"data": [{**row, "url": f"/{len(self.requested)}"} for row in shown]})


@pytest.mark.parametrize(("size", "requests"), [(9, 1), (10, 2), (11, 2), (25, 3), (30, 4)])
def test_page_of_a_lowered_size_is_not_taken_for_the_last(requests_mock, size, requests):
    server = LoweringServer(requests_mock, size, lambda *_: ({}, {}), largest_page=10)

    assert server.read(per_page=100) == list(range(1, size + 1))
    assert len(server.requested) == requests


@pytest.mark.parametrize("beyond", ["first", 400, 404, 422])
def test_list_without_page_numbers_may_have_a_usual_size(requests_mock, beyond):
    server = LoweringServer(requests_mock, 10, lambda *_: ({}, {}), largest_page=10)
    server.beyond = beyond

    assert server.read(per_page=100) == list(range(1, 11))
