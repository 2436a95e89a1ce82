"""``kg-targets browse``: the command; the site itself is `pipelines.browse.site`."""

import argparse
import socket
import sys
from pathlib import Path

from kg_targets.errors import ConfigError
from training.command import Work

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets browse`."""
    parser.description = (
        "A local site: search captions and concepts, an image's neighbours and why, a batch's targets.\n"
        "For instance: kg-targets browse build/demo/train --data-root build/demo/data"
    )
    option = parser.add_argument
    option("store", type=Path, help="folder of a target store")
    option("--beside", type=Path, metavar="STORE", help="another store of the same images, to compare with")
    option("--data-root", type=Path, help="images, to show them: as for training")
    option("--run", type=Path, help="a finished NB-CLIP run: what it finds, beside the targets")
    option("--vqa", type=Path, metavar="MODEL", help="a Med-VQA run or model folder, to ask about images")
    option("--marks", type=Path, default=Path("marked_pairs.csv"), help="file of the pairs marked as wrong")
    option(
        "--host", default="127.0.0.1", help="address to listen on; others than this machine's can read all"
    )
    option("--port", type=int, default=7860, help="0 for any that is free")
    return _browse


def _browse(options: argparse.Namespace) -> None:
    import uvicorn

    from pipelines.browse.pages import open_pages
    from pipelines.browse.site import site

    if (options.run or options.vqa) and options.data_root is None:
        raise ConfigError("--run and --vqa look at images: give --data-root")
    pages = open_pages(options.store, options.beside, options.data_root, options.run, options.vqa)
    listener = _listening(options.host, options.port)
    with listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        if options.host not in LOOPBACK:
            sys.stderr.write(f"warning: everybody who reaches {options.host} can read captions and images\n")
        sys.stdout.write(f"http://{shown}:{port}  (Ctrl-C ends it)\n")
        sys.stdout.flush()
        application = site(pages, options.marks, None if options.host not in LOOPBACK else list(LOOPBACK))
        server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
        server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ConfigError: the address is not this machine's, or the port is taken.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(
            f"--port {port} is no port: choose another --port, 0 to 65535 (0: any that is free)"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({reason}): choose another --port (0: any that is free) or --host"
        ) from error
    found.listen()
    return found
