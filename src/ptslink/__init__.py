"""ptslink: the server that PTS-2 forecourt controllers dial into, and its doctor."""


def version() -> str:
    """The installed version, or ``0+source`` when run from a checkout that is not installed."""
    # Here and not above: it takes longer to import than the rest of a probe, which need not know.
    from importlib import metadata

    try:
        return metadata.version("ptslink")
    except metadata.PackageNotFoundError:
        return "0+source"
