"""The site: pages and pictures by address. It listens on this machine only, loads nothing from elsewhere, and changes
nothing but the file of marked pairs.
"""

import csv
import io
import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from kg_targets.errors import ConfigError, KGTargetsError, StoreError
from kg_targets.inspect.captions import COLOURS, marked_caption
from kg_targets.inspect.graph import graph_figure
from pipelines.browse.marks import Mark, add_mark, mark, read_marks
from pipelines.browse.pages import Pages

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing is loaded from elsewhere, no inline script runs."""
SCRIPT = """document.querySelectorAll("form[data-live]").forEach(form => form.addEventListener("input", event => {
  const shown = form.querySelector(`output[for="${event.target.id}"]`);
  if (shown) shown.value = event.target.value;
  clearTimeout(form.waiting);
  form.waiting = setTimeout(() => form.submit(), 600);
}));
"""
"""Sends a form some time after one of its sliders was moved."""


def site(pages: Pages, marks: Path, hosts: list[str] | None) -> Starlette:
    """The application.

    Args:
        pages: what it shows.
        marks: file of the pairs that are marked as wrong.
        hosts: names under which it answers, so that no other site reaches it by a name of its own; None for all.
    """
    views = _Views(pages, marks)
    named = {
        "/": views.search, "/image": views.image, "/pair": views.pair, "/batch": views.batch, "/ask": views.ask,
        "/marks": views.marks, "/picture": views.picture, "/graph.png": views.graph, "/batch.png": views.batch_picture,
        "/marks.csv": views.exported, "/live.js": views.script,
    }  # fmt: skip
    routes = [Route(path, partial(_answer, views, work)) for path, work in named.items()]
    routes.append(Route("/marks", partial(_answer, views, views.add), methods=["POST"]))
    trusted = [Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, "[::1]"])] if hosts else []
    return Starlette(routes=routes, middleware=trusted)


Given = dict[str, str]


async def _answer(views: "_Views", work: Callable[[Given], Response], request: Request) -> Response:
    """What a page answers; a user's error is a page of one line."""
    from starlette.concurrency import run_in_threadpool

    given = dict(request.query_params)
    if request.method == "POST":
        body = await request.body()
        given = dict(_form(body))
    try:
        response = await run_in_threadpool(work, given)
    except KGTargetsError as error:
        response = views.page("error.html", status=400, message=str(error))
    response.headers.update(HEADERS)
    return response


def _form(body: bytes) -> list[tuple[str, str]]:
    if len(body) > 1 << 16:
        raise ConfigError("the form is too long")
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


class _Views:
    """One function for each address: the fields of a form to an answer."""

    def __init__(self, pages: Pages, marks: Path) -> None:
        self._pages, self._marks, self._token = pages, marks, secrets.token_urlsafe(16)
        self._environment = Environment(
            loader=PackageLoader("pipelines.browse"), autoescape=True, undefined=StrictUndefined
        )
        self._environment.filters |= {
            "at": lambda text: quote(str(text), safe=""),
            "base64": lambda data: b64encode(data).decode(),
        }

    def page(self, template: str, status: int = 200, **content: object) -> Response:
        """A page of the site."""
        page = self._environment.get_template(template).render(
            pages=self._pages, store=self._pages.store, colours=COLOURS, token=self._token, **content
        )
        return HTMLResponse(page, status)

    def search(self, given: Given) -> Response:
        """Captions and concepts."""
        query = given.get("q", "")[:200]
        return self.page(
            "search.html", query=query, found=self._pages.search(query, _number(given, "page", 1))
        )

    def image(self, given: Given) -> Response:
        """One image: its caption, its concepts, what is near."""
        name = _required(given, "id")
        return self.page(
            "image.html",
            row=self._pages.row(name),
            image_id=name,
            caption=Markup(marked_caption(self._pages.store, name)),  # escaped there
            mentions=self._pages.concepts(name),
            columns=self._pages.columns(name),
        )

    def pair(self, given: Given) -> Response:
        """Two images and why they are similar."""
        first, second = _required(given, "a"), _required(given, "b")
        marked = [one for one in read_marks(self._marks) if {one.first, one.second} == {first, second}]
        return self.page(
            "pair.html",
            names=(first, second),
            rows=[self._pages.row(name) for name in (first, second)],
            captions=[Markup(marked_caption(self._pages.store, name)) for name in (first, second)],
            explanations=self._pages.explanations(first, second),
            marked=marked,
        )

    def batch(self, given: Given) -> Response:
        """A batch and its targets, which need torch."""
        from kg_targets.losses.registry import POLICIES
        from pipelines.browse.batch import BatchChoice, batch_targets

        choice = BatchChoice.read(given)
        found = batch_targets(self._pages.store, choice)
        address = urlencode(asdict(choice))
        return self.page("batch.html", choice=choice, policies=POLICIES, found=found, address=address)

    def batch_picture(self, given: Given) -> Response:
        """The same as a picture."""
        from pipelines.browse.batch import BatchChoice, batch_targets, figure_of

        return Response(
            figure_of(batch_targets(self._pages.store, BatchChoice.read(given))), media_type="image/png"
        )

    def ask(self, given: Given) -> Response:
        """A Med-VQA model's answers."""
        if self._pages.vqa is None:
            raise ConfigError("no Med-VQA model was given: start with --vqa MODEL --data-root DIR")
        name = given.get("id", "") or self._pages.store.image_ids[0]
        row, question = self._pages.row(name), given.get("question", "")[:500]
        answered = self._pages.vqa.ask(row, question) if question else None
        return self.page("ask.html", image_id=name, row=row, question=question, answered=answered)

    def marks(self, given: Given) -> Response:
        """The pairs that were marked."""
        return self.page("marks.html", marked=read_marks(self._marks), file=self._marks)

    def add(self, given: Given) -> Response:
        """Mark a pair."""
        if not secrets.compare_digest(given.get("token", ""), self._token):
            raise ConfigError("the page is from before the site was started again: open it anew")
        first, second = _required(given, "a"), _required(given, "b")
        store = self._pages.store
        similarity = float(store.block([store.row(first)], [store.row(second)])[0, 0])
        add_mark(self._marks, mark(store.fingerprint, first, second, similarity, given.get("remark", "")))
        return RedirectResponse(f"/pair?a={quote(first, safe='')}&b={quote(second, safe='')}", 303)

    def exported(self, given: Given) -> Response:
        """The marks as a file."""
        text = self._marks.read_text(encoding="utf-8") if self._marks.exists() else _header()
        headers = {"Content-Disposition": 'attachment; filename="marked_pairs.csv"'}
        return PlainTextResponse(text, media_type="text/csv", headers=headers)

    def picture(self, given: Given) -> Response:
        """An image of the store."""
        row = _number(given, "row", -1)
        if not 0 <= row < len(self._pages.store):
            raise StoreError(f"there is no row {row}")
        found = self._pages.picture(row, max(16, _number(given, "side", 160)))
        return Response(found, media_type="image/png") if found else Response(status_code=404)

    def graph(self, given: Given) -> Response:
        """The concepts around one image or two."""
        names = [given[key] for key in ("a", "b") if given.get(key)]
        store = self._pages.store
        if not any(store.cuis[store.row(name)] for name in names):
            return Response(status_code=404)
        buffer = io.BytesIO()
        graph_figure(store, names).savefig(buffer, format="png", dpi=90)
        return Response(buffer.getvalue(), media_type="image/png")

    def script(self, given: Given) -> Response:
        """The only script."""
        return Response(SCRIPT, media_type="text/javascript")


def _header() -> str:
    stream = io.StringIO()
    csv.writer(stream).writerow([field.name for field in fields(Mark)])
    return stream.getvalue()


def _required(given: Given, name: str) -> str:
    if not given.get(name):
        raise ConfigError(f"the address has no {name}=…")
    return given[name]


def _number(given: Given, name: str, default: int) -> int:
    try:
        return int(given.get(name, default))
    except ValueError:
        raise ConfigError(f"{name} {given[name]!r} is no number") from None
