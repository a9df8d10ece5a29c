"""The page at `/`: static files that ship in the package and ask this service alone."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles


def install(app: FastAPI) -> None:
    """Serve the page and its script and style."""
    directory = str(files("recommender") / "page")
    app.mount("/page", StaticFiles(directory=directory), name="page")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(f"{directory}/index.html", media_type="text/html", headers={"cache-control": "no-cache"})
