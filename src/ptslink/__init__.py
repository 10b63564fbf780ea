"""ptslink: the server that PTS-2 forecourt controllers dial into, and its doctor."""

from importlib import metadata


def version() -> str:
    """The installed version, or ``0+source`` when run from a checkout that is not installed."""
    try:
        return metadata.version("ptslink")
    except metadata.PackageNotFoundError:
        return "0+source"
