"""`GET /`: the playground, a page to look with, and `GET /docs`; their files lie in `serve/playground/`."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

router = APIRouter(tags=["playground"])

_FOLDER = Path(__file__).parents[1] / "playground"
# Not guessed: what `mimetypes` says depends on the machine, and a browser runs no script of another type.
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE = "index.html"
_API_PAGE = "docs.html"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Assigning HTML is an error, wherever a script should ever do it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Kept, but asked for each time: after an upgrade no old script meets a new service.
    "Cache-Control": "no-cache",
}


class _Asset:
    """A file of the page, read once."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.etag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        self.media_type = _TYPES[path.suffix]

    def response(self, request: Request) -> Response:
        headers = {**_HEADERS, "ETag": self.etag}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


_ASSETS = {path.name: _Asset(path) for path in sorted(_FOLDER.iterdir()) if path.suffix in _TYPES}


@router.get("/", response_class=HTMLResponse)
async def playground(request: Request) -> Response:
    """Give the playground: a page to ask questions with and to look at what the modes do."""
    return _ASSETS[_PAGE].response(request)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def api_page(request: Request) -> Response:
    """Give the page about the API, which loads nothing from elsewhere as FastAPI's own does."""
    return _ASSETS[_API_PAGE].response(request)


@router.get("/playground/{name}", response_class=Response)
async def playground_file(request: Request, name: str) -> Response:
    """Give a script, the style or the icon of the playground."""
    if name not in _ASSETS or name in (_PAGE, _API_PAGE):
        raise HTTPException(404)
    return _ASSETS[name].response(request)
