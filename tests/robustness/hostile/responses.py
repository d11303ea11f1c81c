"""Bad responses: each kind makes one of a good response."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import urllib3
from packaging import version

from tests.robustness.hostile.replay import Exchange

# Before, urllib3 unpacks a bomb in one piece, which takes memory and time that the client cannot limit.
UNPACKS_BY_THE_PIECE = version.parse(urllib3.__version__) >= version.parse("2.6")
OTHER_HOST = "https://elsewhere.example.com"
Kind = Callable[[Exchange], list[Exchange]]

# --- the body as a whole ---

PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>"
DEEP = 10_000
BODIES: dict[str, bytes] = {
    "an HTML page": PAGE,
    "an HTML page behind a byte order mark": b"\xef\xbb\xbf" + PAGE,
    "nothing": b"",
    "white space": b" \r\n\t ",
    "null": b"null",
    "true": b"true",
    "a number": b"7",
    "a text": b'"text"',
    "plain words": b"OK, done",
    "an empty list": b"[]",
    "an empty object": b"{}",
    "a list of null": b"[null]",
    "a list of numbers": b"[1, 2.5]",
    "a list of texts": b'["a", "b"]',
    "a list of lists": b"[[], [[]]]",
    "a list of empty objects": b"[{}, {}]",
    "data that is null": b'{"data": null}',
    "data that is true": b'{"data": true}',
    "data that is a number": b'{"data": 1}',
    "data that is a text": b'{"data": "text"}',
    "data that is an empty list": b'{"data": []}',
    "data that is an empty object": b'{"data": {}}',
    "data that is a list of null": b'{"data": [null]}',
    "data that is a list of texts": b'{"data": ["a"]}',
    "data that is a list of lists": b'{"data": [[], [1]]}',
    "data that is a list of empty objects": b'{"data": [{}]}',
    "data twice": b'{"data": {"id": "1"}, "data": []}',
    "an id twice": b'{"id": 1, "id": null, "Id": {}, "data": {"id": "1", "id": null}}',
    "NaN": b'{"id": NaN, "data": {"id": NaN}}',
    "Infinity": b'[{"id": Infinity, "Id": -Infinity}]',
    "a number beyond all floats": b'{"id": 1e999, "Id": 1e999, "data": {"id": -1e999}}',
    "a number of 400 digits": b'{"id": %b, "Id": %b, "data": {"id": %b}}' % ((b"9" * 400,) * 3),
    "a number of 5,000 digits": b'{"id": %b, "data": {"id": %b}}' % ((b"9" * 5000,) * 2),
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep lists in data": b'{"data": [%b]}' % (b"[" * DEEP + b"]" * DEEP),
    "deep objects": b'{"data": ' * DEEP + b"{}" + b"}" * DEEP,
    "deep lists without an end": b"[" * DEEP,
    "no UTF-8": b'{"data": {"id": "\xff\xfe"}}',
    "UTF-16": '{"data": []}'.encode("utf-16"),
    "a zero byte": b"\x00",
}
LARGE: dict[str, bytes] = {
    "10 MB of white space": b" " * 10 * 2**20,
    "a text of 10 MB": b'{"id": "%b", "data": {"id": 1}}' % (b"x" * 10 * 2**20),
    "a text of 10 MB in a list": b'[{"id": "%b", "name": [{}]}]' % (b"x" * 10 * 2**20),
    "10 MB of words": b"ab " * (10 * 2**20 // 3),
    "10 MB of a page": b"<html><title>" * (10 * 2**20 // 13),
    "more than may be read": b'["' + b"x" * 32 * 2**20 + b'"]',
}


def of_body(body: bytes) -> Kind:
    return lambda good: [good.but(status=200, body=body)]


def of_half(good: Exchange) -> list[Exchange]:
    return [good.but(body=good.body[: len(good.body) // 2])]


def of_bomb(good: Exchange) -> list[Exchange]:
    bomb = gzip.compress(b"0" * 2**26)
    return [good.but(status=200, headers={"Content-Encoding": "gzip"}, body=bomb)]


# --- status and headers ---

REDIRECTS = {
    "to another host": OTHER_HOST + "/rest",
    "to a login page": "/account/login?ReturnUrl=%2Fx",
    "to itself": "",
    "that is no URL": "http://[bad",
    "with a port that is none": "http://a:99999999/x",
}
NONSENSE = {
    "Retry-After": ["soon", "9" * 5000, "-1", "Mon, 01 Jan 0001 00:00:00 GMT", "Mon, 32 Foo 99999 99:99:99 +9999"],
    "X-Rate-Limit-Reset": ["9" * 5000, "\xb2", "-1", "1e9"],
    "X-Rate-Limit-Limit": ["9" * 5000, "0", "-1", "NaN"],
    "Content-Type": ["", "text/plain", "application/xml; charset=x-nobody-knows", "x" * 60_000],
    "Set-Cookie": ["a=" + "b" * 60_000, ";;;=", "a=b; Domain=elsewhere.example.com; Expires=never"],
    "X-Request-Id": ["r" * 60_000],
    "Content-Encoding": ["x-unknown"],
}
PAGING = {
    "Link": [
        f'<{OTHER_HOST}/x?page=2>; rel="next"',
        '<//elsewhere.example.com/x?cursor=2>; rel="next"',
        '<http://[bad?page=2>; rel="next"',
        '<http://a:99999999/?page=2>; rel="next"',
        '<?page=two>; rel="next"',
        f'<?page={"9" * 5000}>; rel="next"',
        '<?page=-1>; rel="next"',
        f'<?cursor={"c" * 60_000}>; rel="next"',
        '<>; rel="next"',
        'rel="next"',
        "<<<>>>;;;===,,,",
    ],
    "Total": ["9" * 5000, "-1", "\xb2"],
    "Per-Page": ["0", "9" * 5000, "-1"],
}
CURSORS: dict[str, Any] = {
    "to another host": f"{OTHER_HOST}/x?cursor=2",
    "to another host without a scheme": "//elsewhere.example.com/?cursor=2",
    "that is no URL": "http://[bad",
    "that is half a surrogate pair": "\ud800",
    "of 10,000 letters": "c" * 10_000,
    "that is a number": 7,
    "that is true": True,
    "that is a number with a fraction": 1.5,
    "that is a list": ["c"],
    "that is an object": {"href": "/x"},
    "that is always the same": "c",
}


def of_status(status: int, body: bytes = b'{"message": "no"}', **headers: str) -> Kind:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda good: [good.but(status=status, headers=sent, body=body)]


def of_header(name: str, value: str) -> Kind:
    return lambda good: [good.but(headers={**good.headers, name: value})]


def of_cursor(place: str, cursor: Any) -> Kind:
    def spoil(good: Exchange) -> list[Exchange]:
        body = parsed(good)
        whole = body if isinstance(body, dict) else {"data": body}
        nested = {"next_cursor": cursor} if place == "next_cursor" else {place: {"next": cursor}}
        return [good.but(body=json.dumps({**whole, **nested}).encode())]

    return spoil


# --- every value of one sort ---

INSTEAD: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": -7,
    "a fraction": 0.1,
    "a text": "text",
    "an empty text": "",
    "a list": [None],
    "an object": {"x": [None]},
}
IDS: dict[str, Any] = {
    "a fraction": 7.5,
    "true": True,
    "negative": -1,
    "zero": 0,
    "a path": "../../admin?x=1#y",
    "two dots": "..",
    "empty": "",
    "half a surrogate pair": "\ud800",
    "a list": [1],
    "an object": {"id": 1},
    "of 400 digits": 10**400,
    "of 10,000 letters": "x" * 10_000,
}
TIMES: dict[str, Any] = {
    "in the year 0": "0000-00-00T00:00:00Z",
    "in the year 10000": "10000-01-01T00:00:00Z",
    "at the end of time": "9999-12-31T23:59:59-23:59",
    "at its beginning": "0001-01-01T00:00:00+23:59",
    "without a zone": "2026-01-01T00:00:00",
    "in an unknown zone": "2026-01-01T00:00:00[Mars]",
    "an interval": "2026-01-01T00:00:00Z/P1D",
    "seconds": 1_700_000_000,
    "beyond all numbers": 10**400,
    "an object": {"year": 2026},
}


def parsed(good: Exchange) -> Any:
    try:
        return json.loads(good.body)
    except ValueError:
        return {"data": {}}


def every(value: Any, instead: Callable[[Any, str], Any], name: str = "") -> Any:
    """Return a value with all the leaves in it replaced, by what they are and what they are called."""
    if isinstance(value, dict):
        return {key: every(inner, instead, key) for key, inner in value.items()}
    return [every(inner, instead, name) for inner in value] if isinstance(value, list) else instead(value, name)


def _leaf(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def changed(change: Callable[[Any], Any]) -> Kind:
    return lambda good: [good.but(body=json.dumps(change(parsed(good))).encode())]


def is_id(name: str) -> bool:
    return name.lower().endswith("id")


def is_time(name: str) -> bool:
    return name.lower().endswith(("_at", "date", "_start", "_end"))


def more_of(value: Any) -> Any:
    """Return a value with an unknown field in every object."""
    if isinstance(value, dict):
        return {"x_new": {"y": [1]}, **{key: more_of(inner) for key, inner in value.items()}}
    return [more_of(inner) for inner in value] if isinstance(value, list) else value


def less_of(value: Any) -> Any:
    """Return a value whose innermost objects are empty."""
    if isinstance(value, dict):
        return {key: less_of(inner) for key, inner in value.items() if not _leaf(inner)}
    return [less_of(inner) for inner in value] if isinstance(value, list) else value


def deeper(value: Any) -> Any:
    """Return a value whose texts lie 300 lists deep."""

    def wrap(leaf: Any, _: str) -> Any:
        for _level in range(300):
            leaf = [leaf]
        return leaf

    return every(value, wrap)


# --- secrets ---


def echoes(secret: str) -> Iterator[tuple[str, Kind]]:
    """Yield responses that repeat a secret wherever an error might read its message."""
    title = f"<html><head><title>{secret}</title></head></html>".encode()
    yield "in an error", of_status(400, json.dumps({"message": f"not {secret}"}).encode())
    yield "in the fields of an error", of_status(422, json.dumps({"errors": {"name": [secret]}}).encode())
    yield "as the field of an error", of_status(422, json.dumps({"errors": {secret: ["is odd"]}}).encode())
    yield "in plain words", of_status(500, f"Bearer {secret}; secret={secret}".encode())
    yield "in the title of a page", of_status(200, title, Content_Type="text/html")
    yield "in the title of an error page", of_status(403, title, Content_Type="text/html")
    yield "in the content type", of_status(200, b"{", Content_Type=f"text/{secret}")
    yield "in the request id", of_status(404, b"{}", X_Request_Id=secret)
    yield "in the request id of what is no JSON", of_status(200, b"{", X_Request_Id=secret)
    yield "in a redirect", of_status(302, b"", Location=f"{OTHER_HOST}/?token={secret}")
    yield "in a link", of_header("Link", f'<{OTHER_HOST}/?cursor={secret}>; rel="next"')


# --- all of them ---


def kinds() -> Iterator[tuple[str, Kind]]:
    """Yield the bad responses that each call is tried with."""
    for name, body in BODIES.items():
        yield name, of_body(body)
    yield "half of it", of_half
    for name, target in REDIRECTS.items():
        yield f"a redirect {name}", of_status(307, Location=target)
    for status in (199, 300, 302, 304, 400, 401, 403, 404, 408, 409, 422, 429, 451, 500, 502, 503, 504, 520, 600, 999):
        yield f"status {status}", of_status(status)
    for name, value in INSTEAD.items():
        yield f"every value {name}", changed(lambda body, value=value: every(body, lambda *_: value))
    for name, value in IDS.items():
        yield (
            f"every id {name}",
            changed(lambda body, value=value: every(body, lambda old, key: value if is_id(key) else old)),
        )
    for name, value in TIMES.items():
        yield (
            f"every time {name}",
            changed(lambda body, value=value: every(body, lambda old, key: value if is_time(key) else old)),
        )
    yield (
        "half a surrogate pair in every text",
        changed(lambda body: every(body, lambda old, _: "\ud800" if isinstance(old, str) else old)),
    )
    yield "without its leaves", changed(less_of)
    yield "deeper", changed(deeper)
    yield "in a list", changed(lambda body: [body])
    yield "in an object", changed(lambda body: {"data": body})


def kinds_of_http() -> Iterator[tuple[str, Kind]]:
    """Yield the bad responses in which the body hardly counts."""
    for status in (301, 302, 303, 305, 308):
        for name, target in REDIRECTS.items():
            yield f"a redirect {status} {name}", of_status(status, Location=target)
    for status in (402, 405, 410, 413, 418, 501, 524, 599):
        yield f"status {status}", of_status(status)
    for depth in (400, 480, 900, DEEP):
        yield f"an error {depth} lists deep", of_status(400, b"[" * depth + b'"no"' + b"]" * depth)
    for header, values in NONSENSE.items():
        for number, value in enumerate(values):
            yield f"{header} {number}", of_header(header, value)
            yield f"status 429 with {header} {number}", of_status(429, **{header.replace("-", "_"): value})
    for header, values in PAGING.items():
        for number, value in enumerate(values):
            yield f"{header} {number}", of_header(header, value)
    for place in ("next_cursor", "meta", "links"):
        for name, cursor in CURSORS.items():
            yield f"a cursor in {place} {name}", of_cursor(place, cursor)


def large_kinds() -> Iterator[tuple[str, Kind]]:
    if UNPACKS_BY_THE_PIECE:
        yield "a gzip bomb", of_bomb
    for name, body in LARGE.items():
        yield name, of_body(body)
        yield f"an error with {name}", of_status(500, body)
        yield f"a rejection with {name}", of_status(422, body)
    yield "an error with fields of 10 MB", of_status(422, json.dumps({"errors": {"x" * 10 * 2**20: ["no"]}}).encode())
    yield "a cursor of 10 MB", of_cursor("next_cursor", "c" * 10 * 2**20)
