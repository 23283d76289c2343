"""What the page answers to each request. It holds no state but Page, and no rule of its own."""

from __future__ import annotations

import asyncio
import base64
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..errors import SharpzoError, UsageError
from ..report.render import script, style, templates_in
from ..run.files import remove
from ..run.progress import duration
from .choices import PRESETS, choices_of
from .corrections import to_look_at
from .events import events
from .labels import NotThereError, Picture, refused
from .names import shown
from .safety import MOST_FORM_BYTES, Door, Tries
from .state import Page
from .uploads import Sent, Upload, name_for, told

HERE = Path(__file__).parent
TILES = 60  # pictures that are shown at a time
MOST_FIELDS = 100
ASIDE_WORD = "put-aside"  # where a class's word is asked for; no class folder's word without its dot
# A picture of one pixel stands for one that cannot be read: the script then asks why.
NO_THUMBNAIL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
GONE = "here no longer"
FOR_A_YEAR = {"Cache-Control": "private, max-age=31536000, immutable"}


class Routes:
    """page: what is shown and changed; door, tries: for who has the token"""

    def __init__(self, page: Page, door: Door, tries: Tries):
        self._page, self._door, self._tries = page, door, tries
        self._lock = asyncio.Lock()
        self._templates = templates_in(HERE / "templates")
        self._templates.globals |= {"title": page.title}

    def _html(self, name: str, **values: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(f"{name}.html").render(values))

    # Coming in -------------------------------------------------------------------------------------

    async def enter(self, request: Request) -> Response:
        """Where the token is asked for, and exchanged for a cookie."""
        if self._door.token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return self._html("enter", wrong="")
        address = request.client.host if request.client else ""
        if self._tries.are_used_up(address):
            return JSONResponse({"error": "Too many wrong tokens. Wait a minute, and try again."}, 429)
        if not self._door.is_open_to((await _form(request)).get("token", "")):
            self._tries.add(address)
            return JSONResponse({"error": "That is not the token that was printed at the start."}, 403)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._door.cookie, self._door.token, httponly=True, samesite="strict", path="/")
        return answer

    # Pictures --------------------------------------------------------------------------------------

    async def pictures(self, request: Request) -> Response:
        contents = self._page.labels.contents()
        return self._html("pictures", tab="pictures", contents=contents, aside_word=ASIDE_WORD)

    async def contents(self, request: Request) -> Response:
        """What the folder holds, so that the script sees a change from outside."""
        found = self._page.labels.contents()
        return JSONResponse(
            {
                "classes": [[each.word, each.pictures, each.changed] for each in found.classes],
                "aside": found.aside,
            }
        )

    async def tiles(self, request: Request) -> Response:
        """Some pictures of a class, as a piece of HTML."""
        word, start, most = (request.query_params.get(name, "") for name in ("class", "start", "most"))
        first = int(start) if start.isascii() and start.isdigit() else 0
        n = min(int(most), 5000) if most.isascii() and most.isdigit() else TILES
        labels = self._page.labels
        if word == ASIDE_WORD:
            found, n_all = labels.pictures_aside(first, n)
        else:
            found, n_all = labels.pictures(word, first, n)
        answer = self._html("tiles", tiles=[self._tile(each) for each in found])
        answer.headers["x-pictures"] = str(n_all)
        return answer

    def _tile(self, picture: Picture) -> dict[str, Any]:
        return {"picture": picture, "reason": self._page.thumbnails.reason(picture.key)}

    async def thumbnail(self, request: Request) -> Response:
        found = await self._thumbnail_or_reason(request)
        if isinstance(found, str):
            return Response(NO_THUMBNAIL, media_type="image/gif")
        return Response(found, media_type="image/jpeg", headers=FOR_A_YEAR)

    async def reason(self, request: Request) -> Response:
        found = await self._thumbnail_or_reason(request)
        return JSONResponse({"reason": found if isinstance(found, str) else ""})

    async def _thumbnail_or_reason(self, request: Request) -> bytes | str:
        try:
            return await self._page.thumbnails.of(request.query_params.get("of", ""))
        except NotThereError:
            return GONE

    async def view(self, request: Request) -> Response:
        """A picture as large as a screen shows it: drawn anew, so that nothing else of its file gets out."""
        path = self._page.labels.find(request.query_params.get("of", ""))
        found = await self._page.worker.ask("view", picture=str(path))
        if "jpeg" not in found:
            return Response(NO_THUMBNAIL, media_type="image/gif")
        return Response(base64.b64decode(found["jpeg"]), media_type="image/jpeg")

    async def add(self, request: Request) -> Response:
        """Take pictures into a class."""
        folder, uploads = self._page.labels.upload_place(request.query_params.get("to", ""))
        taken: list[dict[str, str]] = []
        left_out: list[dict[str, str]] = []

        def take(sent: Sent) -> None:
            if sent.path is None:
                left_out.append(told(sent))
                return
            word = self._page.labels.receive(sent.path, folder, name_for(sent))
            taken.append({"name": shown(sent.name), "word": word})

        await Upload(request.headers.get("content-type", ""), uploads, take).read(request.stream())
        return JSONResponse({"taken": taken, "refused": left_out})

    async def move(self, request: Request) -> Response:
        form = await _form(request)
        async with self._lock:
            moved = self._page.labels.move(_words(form), form.get("to", ""))
        return JSONResponse({"moved": moved})

    async def put_aside(self, request: Request) -> Response:
        form = await _form(request)
        async with self._lock:
            moved = self._page.labels.put_aside(_words(form))
        return JSONResponse({"moved": moved})

    async def make_class(self, request: Request) -> Response:
        form = await _form(request)
        async with self._lock:
            return JSONResponse({"class": self._page.labels.make_class(form.get("name", ""))})

    async def change_class(self, request: Request) -> Response:
        """Another name, and better words."""
        form = await _form(request)
        labels, word = self._page.labels, form.get("class", "")
        async with self._lock:
            if "name" in form:
                word = labels.rename_class(word, form["name"])
            if "words" in form:
                labels.set_words(word, form["words"])
        return JSONResponse({"class": word})

    # Tune ------------------------------------------------------------------------------------------

    async def tune(self, request: Request) -> Response:
        run = self._page.run
        run.log.read()
        return self._html(
            "tune", tab="tune", state=run.state, choices=self._page.choices, presets=PRESETS, error=run.error
        )

    async def plan(self, request: Request) -> Response:
        """How a run would go, and how it would be typed; or why it would not go at all."""
        try:
            choices = choices_of(await _form(request), self._page.default)
            found = await self._page.run.plan(choices)
        except UsageError as problem:
            return JSONResponse({"problem": f"{problem}."})
        words = ("sharpzo-edge", *self._page.run.command(choices))
        command = shlex.join(map(shown, words))
        return JSONResponse({**found, "likely": duration(found["likely_seconds"]), "command": command})

    async def start(self, request: Request) -> Response:
        form = await _form(request)
        choices = choices_of(form, self._page.default) if "preset" in form else self._page.choices
        async with self._lock:
            self._page.choose(choices)
            await self._page.run.start(choices, again=form.get("again") == "yes")
        return JSONResponse({})

    async def stop(self, request: Request) -> Response:
        await self._page.run.stop()
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        return StreamingResponse(events(self._page.run), media_type="text/event-stream")

    # Result ----------------------------------------------------------------------------------------

    async def result(self, request: Request) -> Response:
        return self._html("result", tab="result", state=self._page.run.state)

    async def report(self, request: Request) -> Response:
        """The report of the run as it is now, as a piece of HTML."""
        run = self._page.run
        state = run.state
        if state == "none":
            return self._html("report", parts=None, to_look_at=[], targets=[])
        found = await self._page.worker.ask("report", output=str(run.output))
        targets = [each for each in self._page.labels.contents().classes if not each.is_link]
        looked = to_look_at(found["pictures"], found["doubtful"], targets, self._page.labels)
        return self._html("report", parts=found["parts"], to_look_at=looked, targets=targets)

    async def report_style(self, request: Request) -> Response:
        return Response(style(), media_type="text/css")

    async def report_script(self, request: Request) -> Response:
        return Response(script(), media_type="text/javascript")

    # Try -------------------------------------------------------------------------------------------

    async def try_page(self, request: Request) -> Response:
        return self._html("try", tab="try", has_prompt=self._page.run.output.exists())

    async def try_picture(self, request: Request) -> Response:
        """Label one picture, which is not kept."""
        if not self._page.run.output.exists():
            raise UsageError(
                "There is no tuned prompt yet. Labels come from one. Begin a run on the Tune tab"
            )
        uploads = self._page.labels.own_folder("uploads")
        found: list[Sent] = []
        try:
            await Upload(request.headers.get("content-type", ""), uploads, found.append).read(
                request.stream()
            )
            if not found or found[0].path is None:
                raise UsageError(
                    f"This cannot be tried: {found[0].reason if found else 'no picture was sent'}. "
                    f"It takes a picture. Try another one"
                )
            answer = await self._page.worker.ask(
                "predict",
                picture=str(found[0].path),
                bundle=str(self._page.bundle),
                prompt=str(self._page.run.output),
            )
        finally:
            for sent in found:
                if sent.path:
                    remove(sent.path)
        if "reason" in answer:
            raise UsageError(answer["reason"].replace(str(found[0].path), shown(found[0].name)))
        return JSONResponse(answer)

    # -----------------------------------------------------------------------------------------------

    def app(self) -> Starlette:
        both: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("GET", "/", self.pictures),
            ("GET", "/contents", self.contents),
            ("GET", "/tiles", self.tiles),
            ("GET", "/thumbnail", self.thumbnail),
            ("GET", "/reason", self.reason),
            ("GET", "/view", self.view),
            ("POST", "/pictures", self.add),
            ("POST", "/move", self.move),
            ("POST", "/put-aside", self.put_aside),
            ("POST", "/classes", self.make_class),
            ("POST", "/class", self.change_class),
            ("GET", "/tune", self.tune),
            ("POST", "/plan", self.plan),
            ("POST", "/start", self.start),
            ("POST", "/stop", self.stop),
            ("GET", "/events", self.events),
            ("GET", "/result", self.result),
            ("GET", "/report", self.report),
            ("GET", "/report.css", self.report_style),
            ("GET", "/report.js", self.report_script),
            ("GET", "/try", self.try_page),
            ("POST", "/try", self.try_picture),
            ("GET", "/enter", self.enter),
            ("POST", "/enter", self.enter),
        ]
        routes: list[Route | Mount] = [Route(path, do, methods=[method]) for method, path, do in both]
        routes.append(Mount("/static", StaticFiles(directory=HERE / "static")))
        handlers: dict[Any, Any] = {
            SharpzoError: _as_answer,
            OSError: _as_answer,
            ClientDisconnect: _gone,
            HTTPException: _as_http,
            Exception: _as_defect,
        }
        return Starlette(routes=routes, exception_handlers=handlers)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form. Raises UsageError for one with files or too many fields."""
    try:
        async with request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=MOST_FORM_BYTES) as found:
            return {name: value for name, value in found.items() if isinstance(value, str)}
    except HTTPException as error:
        raise UsageError(
            f"The form cannot be read: {error.detail}. It takes a few short fields. Load the page anew. Try "
            f"again then"
        ) from error


def _words(form: dict[str, str]) -> list[str]:
    return form.get("pictures", "").split()


async def _as_answer(request: Request, error: Exception) -> Response:
    """Every error is a sentence."""
    if isinstance(error, OSError):
        error = refused("use", Path("the folder"), error)
    status = 404 if isinstance(error, NotThereError) else 400 if isinstance(error, UsageError) else 500
    return JSONResponse({"error": f"{error}."}, status)


async def _as_http(request: Request, error: HTTPException) -> Response:
    return JSONResponse(
        {"error": f"{error.detail}. The page has no such place: open it anew."}, error.status_code
    )


async def _as_defect(request: Request, error: Exception) -> Response:
    text = (
        f"Something went wrong that should not: {type(error).__name__}: {error}. This is a defect of "
        f"sharpzo-edge, please report it. Load the page again; SHARPZO_DEBUG=1 before `page` shows where."
    )
    return JSONResponse({"error": text}, 500)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)
