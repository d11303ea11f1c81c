"""
Read lists page by page, with every known way in which a server names the next page.

Procore documents page numbers with the headers ``Link``, ``Total`` and ``Per-Page`` for most lists, and cursors for the
instances of v2, but not which parameter takes a cursor. A truncated list looks like a complete one, and a wait or an
export would report wrong results. So the paginator follows everything that names a next page, or raises an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests.utils
import simplejson

from airflow_provider_workflows import json_text
from airflow_provider_workflows.client.rate_limit_headers import whole_number
from airflow_provider_workflows.exceptions import IncompleteList, InvalidRequest, NotFound, UnexpectedResponse

if TYPE_CHECKING:
    from airflow_provider_workflows.client.response import ApiResponse

    Fetch = Callable[[dict[str, Any]], ApiResponse]
    Place = dict[str, Any]

MAX_EMPTY_PAGES = 20  # consecutive, each of which names a next page
MAX_CURSOR_CHARACTERS = 4096  # servers do not accept a longer URL
MAX_ENVELOPE_DEPTH = 4  # nested objects around the rows
SMALLER_PAGES = (1000, 500, 100, 50, 10)  # rows; 10 is the documented default of v2
# A first page of so many rows, fewer than requested, may be as large as the server's pages are.
USUAL_PAGES = frozenset({*SMALLER_PAGES, 20, 25, 30, 40, 200, 250})

# Names are compared in lower case and without punctuation: ``next_cursor``, ``nextCursor`` and ``X-Next-Cursor``.
NEXT = re.compile(
    r"next|(odata)?next(page)?(cursor|token|url|uri|link|href|key|id|number|marker|offset|index|start|results?|records?)?"
    r"|nextpage\w*|(cursor|page|link|token)s?next|(ms)?continuation\w*|pagetoken|startingafter|scrollid"
    r"|lastevaluatedkey"
)
# Those of NEXT that can be sent back neither as a cursor nor as a page number.
NOT_SENDABLE = re.compile(r"next(page)?(key|id|marker|offset|index|start)|startingafter|scrollid|lastevaluatedkey")
PAGE_NUMBER = re.compile(r"nextpage(number)?")
# These may occur on the last page, too.
CURSOR = re.compile(r"(end)?cursor|after")
ROW_KEYS = re.compile(
    r"(response)?meta(data)?|pag(ination|ing|er|einfo|es?)|cursors?|links?|navigation|result(set)?info"
)
MORE = re.compile(r"has(more|next)\w*|more(pages|results|available)?|ismore")
LAST = re.compile(r"(is)?last(page)?|isend|end")  # only if a boolean; as a number, "lastpage" is one of PAGES
PAGES = re.compile(r"(total|num(ber)?of|num)?pages|(total)?pagecount|lastpage")
TOTAL = re.compile(r"total(count|records|items|results|rows|elements|entries|size)?")
NOTHING = ("", "0", "false", "no", "none", "null", "undefined")


class Paginator:
    """
    Yield the rows of a list, and request each page when it is needed.

    After an error, ``next()`` requests the same page again. If a list has fewer rows than the total on its last page,
    it is read once more from the start, because rows can disappear between two pages; no row is yielded twice.

    :param fetch: Sends a GET with the given query parameters.
    :param url: URL of the list, the base of relative links.
    :param params: Query parameters of every page.
    :param per_page: Rows per page to request; fewer if the server rejects that number.
    :param style: ``v1``: bare arrays and page numbers. ``v2``: ``{"data": [...]}``, and cursors if the server
        returns them, else page numbers.
    :param limits: The largest known page sizes of the server, by path; the paginator adds to it.
    :param max_pages: Maximum number of pages of a list.
    :param keep_malformed_rows: Yield an empty object for a row of ``v2`` that is not an object, instead of raising.
    :raises UnexpectedResponse: the response is not a list, a page repeats the one before, the paging runs in a circle,
        or a next page is named in an unknown way.
    :raises IncompleteList: the list had fewer rows than its total, twice.
    """

    def __init__(
        self,
        fetch: Fetch,
        url: str,
        params: Mapping[str, Any],
        per_page: int,
        style: str,
        limits: dict[str, int],
        max_pages: int,
        keep_malformed_rows: bool = False,
    ):
        self._keep_malformed_rows = keep_malformed_rows
        self._fetch = fetch
        self._url = url
        self._path = urlsplit(url).path
        self._params = params
        self._style = style
        self._limits = limits
        self._max_pages = max_pages
        self._per_page = min(per_page, self._limits.get(self._path, per_page))
        self._returned: set[str] = set()  # keys of rows
        self._is_counted = True  # whether it contains the key of every returned row
        self._is_second = False
        self._start()

    def _start(self) -> None:
        self._place: Place | None = {"page": 1} if self._style == "v1" else {}
        self._seen = {_key({"page": 1})}
        self._received = 0
        self._turned = 0  # pages
        self._empty = 0  # consecutive pages without rows
        self._longest = 0  # rows of a page
        self._follows = False  # cursors or links
        self._is_guess = False  # whether the page may not exist
        self._first_keys: set[str] = set()  # of the first page
        # Of the current page:
        self._rows: Iterator[dict[str, Any]] | None = None
        self._number = 0
        self._response: ApiResponse | None = None
        self._signs = Signs()
        self._content: Any = None  # to detect a page that repeats the one before

    def __iter__(self) -> Paginator:
        return self

    def __next__(self) -> dict[str, Any]:
        while self._place is not None:
            if self._rows is None:
                self._open()
                continue
            row = next(self._rows, None)
            if row is None:
                self._turn_over()
                continue
            self._number += 1
            if not self._turned:
                self._first_keys.add(_row_key(row))
            if self._is_new(row):
                return row
        raise StopIteration

    def _is_new(self, row: dict[str, Any]) -> bool:
        if self._signs.total is None and not self._is_second:
            self._is_counted = False
            return True
        key = _row_key(row)
        if self._is_second and key in self._returned:
            return False
        self._returned.add(key)
        return True

    def _open(self) -> None:
        try:
            response = self._request()
        except (InvalidRequest, NotFound):
            if not self._is_guess:
                raise
            self._place = None
            return
        fault = partial(UnexpectedResponse, method="GET", path=self._path, status_code=response.status)
        body: Any = None
        content: Any = response.body
        if self._style == "v1":
            rows = response.rows()
        else:
            body = response.json()
            content = _data_of(body, fault, keep_malformed_rows=self._keep_malformed_rows)
            rows = iter(content)
        if self._is_guess:
            listed = list(rows)
            rows = iter(listed)
            if all(_row_key(row) in self._first_keys for row in listed):
                self._place = None  # the list takes no page numbers, and all of it is on its first page
                return
        if content == self._content and next(rows, None) is not None:
            raise fault("A page repeats the one before it: the list has no paging, or an unknown kind of paging")
        self._signs = Signs.of(response, body, self._url, {*self._params, "per_page"})
        self._response, self._content, self._rows, self._number = response, content, rows, 0

    def _request(self) -> ApiResponse:
        """Request the page; if the server rejects the size of the first page, request smaller ones."""
        try:
            return self._page_of(self._per_page)
        except InvalidRequest as rejection:
            if self._turned or rejection.status_code not in (400, 422):
                raise
            for size in SMALLER_PAGES:
                if size < self._per_page:
                    try:
                        response = self._page_of(size)
                    except InvalidRequest:
                        continue
                    self._per_page = self._limits[self._path] = size
                    return response
            raise

    def _page_of(self, size: int) -> ApiResponse:
        return self._fetch({**self._params, "per_page": size, **(self._place or {})})

    def _turn_over(self) -> None:
        self._received += self._number
        self._longest = max(self._longest, self._number)
        self._empty = 0 if self._number else self._empty + 1
        following = self._following()
        self._seen.add(_key(self._place or {}))
        self._turned += 1
        if following is not None and _key(following) in self._seen:
            if self._number or self._signs.more:
                raise self._fault("The paging runs in a circle")
            following = None  # an empty page that names itself
        if following is None and self._is_cut_short():
            self._is_second = True
            self._start()
            return
        if following is not None and (self._turned >= self._max_pages or self._empty > MAX_EMPTY_PAGES):
            raise self._fault(f"The list does not end after {self._turned} pages")
        self._place, self._rows = following, None

    def _following(self) -> Place | None:
        """Return the place of the next page, None after the last one."""
        signs, page, number = self._signs, self._page, self._number
        self._is_guess = False
        if signs.places and (number or signs.more is not False):
            self._follows = True
            return signs.places[0]
        if signs.cursors and (signs.more or (number and signs.more is None)):
            self._follows = True
            return signs.cursors[0]
        if signs.unknown and not signs.places:
            raise self._fault(
                f"The response names the next page in an unknown way ({', '.join(signs.unknown)}), and the list would "
                "be incomplete without that page"
            )
        if not number:
            return None
        by_number = {"page": page + 1}
        if signs.more or signs.pages > page:
            return by_number
        if signs.total is not None:
            is_last = (self._turned and number < self._longest) or (signs.is_last and not self._is_full)
            return by_number if self._received < signs.total and not is_last else None
        if signs.is_last or signs.pages or self._follows:
            return None
        # The response does not say whether there is more. A full page may be followed by another, so request it. A
        # cursor of unknown meaning must not be combined with a page number, so it is dropped.
        if not self._is_full and not self._turned and self._stated_size is None:
            self._is_guess = number in USUAL_PAGES
        return by_number if self._is_full or self._is_guess else None

    def _is_cut_short(self) -> bool:
        """Return whether to read the list once more because it has fewer rows than its total."""
        signs = self._signs
        if signs.more or signs.pages > self._turned:
            raise self._fault("The response says that there are more pages, but not where")
        if signs.total is None or self._received >= signs.total:
            return False
        if self._is_second or not self._is_counted:
            assert self._response is not None
            raise IncompleteList(
                f"Received {self._received} of the list's {signs.total} rows",
                method="GET",
                path=self._path,
                status_code=self._response.status,
            )
        return True

    @property
    def _page(self) -> int:
        """The number of the page that was read last."""
        return whole_number(str((self._place or {}).get("page", ""))) or self._turned + 1

    @property
    def _is_full(self) -> bool:
        """Whether the page has the maximum number of rows, which may be smaller than the requested number."""
        longest = self._longest if self._turned else self._per_page
        return self._number >= (longest if self._stated_size is None else self._stated_size)

    @property
    def _stated_size(self) -> int | None:
        """The maximum number of rows of a page, as the response states it."""
        return None if self._response is None else whole_number(self._response.headers.get("Per-Page", ""))

    def _fault(self, problem: str) -> UnexpectedResponse:
        status = None if self._response is None else self._response.status
        return UnexpectedResponse(problem, method="GET", path=self._path, status_code=status)


def _row_key(row: dict[str, Any]) -> str:
    row_id = row.get("id")
    return str(row_id) if type(row_id) in (str, int) else simplejson.dumps(row, sort_keys=True)


class Signs:
    """Collect what one page says about the rest of its list, in its headers and in the envelope around its rows."""

    def __init__(self, url: str = "", own: Set[str] = frozenset()):
        self.places: list[Place] = []  # of the next page, the best first
        self.cursors: list[Place] = []  # places of the next page unless the page says that it is the last one
        self.unknown: list[str] = []  # members that name a next page in an unknown way
        self.more: bool | None = None  # whether there is more, if the page says so
        self.pages = 0  # total number of pages
        self.total: int | None = None  # total number of rows
        self.is_last = False  # a member that could name a next page is empty
        self._url = url
        self._own = own

    @classmethod
    def of(cls, response: ApiResponse, body: Any, url: str, own: Set[str]) -> Signs:
        """
        Read a response.

        :param body: Its parsed body; None if that is a bare list.
        :param url: Base of relative links.
        :param own: Names of query parameters that a link cannot change.
        """
        signs = cls(url, own)
        for name, value in _members_of(response, body):
            signs._record(name, value)
        signs.places.sort(key=lambda place: "cursor" not in place)
        signs.places[:0] = list(signs._linked(response))
        return signs

    def _linked(self, response: ApiResponse) -> Iterator[Place]:
        for link in requests.utils.parse_header_links(response.headers.get("Link", "")):
            rels = set(link.get("rel", "").lower().split())
            if "next" in rels:
                yield self._place_in(link["url"])
            elif rels & {"first", "prev", "previous", "last"}:
                self.is_last = True  # unless another link names a next page

    def _record(self, name: str, value: Any) -> None:
        plain = _plain(name)
        if NEXT.fullmatch(plain):
            self._record_next(name, plain, value)
        elif CURSOR.fullmatch(plain):
            if _is_text(value):
                self.cursors.append(self._place_of(str(value)))
            elif not value:
                self.is_last = True
            elif not isinstance(value, dict):
                self.unknown.append(name)
        elif MORE.fullmatch(plain) or (LAST.fullmatch(plain) and isinstance(value, bool)):
            if value is not None:
                says_yes = str(value).strip().lower() not in NOTHING
                is_more = says_yes if MORE.fullmatch(plain) else not says_yes
                self.more = bool(self.more) or is_more
                self.is_last = self.is_last or not is_more
        elif PAGES.fullmatch(plain):
            self.pages = max(self.pages, whole_number(str(value)) or 0)
        elif TOTAL.fullmatch(plain) and (total := whole_number(str(value))) is not None:
            self.total = max(self.total or 0, total)

    def _record_next(self, name: str, plain: str, value: Any) -> None:
        if plain == "next" and isinstance(value, dict):  # {"href": ...}
            plain, value = next(
                ((key, value[key]) for key in ("href", "url", "cursor") if key in value), (plain, value)
            )
        if not value or str(value).strip().lower() in NOTHING:
            self.is_last = True
        elif not _is_text(value) or NOT_SENDABLE.fullmatch(plain):
            self.unknown.append(name)
        elif PAGE_NUMBER.fullmatch(plain) and (page := whole_number(str(value))) is not None:
            self.places.append({"page": page})
        else:
            self.places.append(self._place_of(str(value)))

    def _place_of(self, text: str) -> Place:
        # A slash alone does not make a URL: it is also a base64 digit.
        is_url = "://" in text or re.search(r"[?&]\w+=", text)
        return self._place_in(text) if is_url else self._sendable({"cursor": text})

    def _place_in(self, url: str) -> Place:
        """Take the place from a URL's query and ignore the rest: calls go to the connection's server only."""
        try:
            query = parse_qs(urlsplit(urljoin(self._url, url)).query)
        except ValueError:
            raise self._fault("The link to the next page is not a valid URL") from None
        place = {name: values[0] for name, values in query.items() if name not in self._own}
        if not place:
            raise self._fault("The link to the next page has neither a cursor nor a page number")
        return self._sendable(place)

    def _sendable(self, place: Place) -> Place:
        for text in place.values():
            if len(text) > MAX_CURSOR_CHARACTERS or json_text.REPLACEMENT in text:
                raise self._fault("The cursor of the next page is too long or has invalid characters")
        return place

    def _fault(self, problem: str) -> UnexpectedResponse:
        return UnexpectedResponse(problem, method="GET", path=urlsplit(self._url).path)


def check_whole(response: ApiResponse, body: Any, rows: list[Any]) -> None:
    """
    Require that a response contains a whole list: it names no next page and no larger total.

    :param body: Its parsed body.
    :param rows: The list in it.
    :raises UnexpectedResponse: the list has further pages.
    """
    signs = Signs.of(response, body, response.path, set())
    has_cursor = bool(signs.cursors) and signs.more is not False
    is_longer = signs.pages > 1 or (signs.total or 0) > len(rows)
    if signs.places or signs.unknown or signs.more or is_longer or has_cursor:
        raise UnexpectedResponse(
            "A list that is documented without paging has a next page",
            method=response.method,
            path=response.path,
            status_code=response.status,
        )


def _members_of(response: ApiResponse, body: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values that may describe paging: headers, and members of the envelope but not of the rows."""
    for name, value in response.headers.items():
        plain = _plain(name)
        if plain == "pagination":  # some servers send JSON in this header
            yield from _members(_json_or_none(value), 1, is_paging=True)
        elif plain != "after":
            yield name, value
    if isinstance(body, dict):
        yield from _members({name: value for name, value in body.items() if name != "data"}, 1, is_paging=True)


def _members(container: Any, depth: int, *, is_paging: bool) -> Iterator[tuple[str, Any]]:
    """Yield the members of an object and of its nested objects; ``cursor`` etc. only if the object is about paging."""
    if not isinstance(container, dict) or depth > MAX_ENVELOPE_DEPTH:
        return
    for name, value in container.items():
        plain = _plain(name)
        is_next = NEXT.fullmatch(plain) is not None
        if is_paging or is_next or MORE.fullmatch(plain):
            yield name, value
        if isinstance(value, dict) and not is_next:
            yield from _members(value, depth + 1, is_paging=ROW_KEYS.fullmatch(plain) is not None)
        elif isinstance(value, list) and ROW_KEYS.fullmatch(plain):
            for link in value:
                if isinstance(link, dict) and str(link.get("rel", "")).lower() == "next":
                    yield "next", link


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name).lower().removeprefix("x-"))


def _key(place: Place) -> str:
    return repr(sorted((name, str(value)) for name, value in place.items()))


def _is_text(value: Any) -> bool:
    return type(value) in (str, int) and value != ""


def _json_or_none(text: str) -> Any:
    try:
        return json_text.parse(text)
    except (ValueError, RecursionError):
        return None


def _data_of(body: Any, fault: Callable[[str], UnexpectedResponse], *, keep_malformed_rows: bool) -> list[Any]:
    rows = body.get("data") if isinstance(body, dict) else None
    if keep_malformed_rows and isinstance(rows, list):
        return [row if isinstance(row, dict) else {} for row in rows]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise fault("The response is not a list of objects")
    return rows
