"""Runs a genuine Subsonic server, supysonic, over a folder of music, until its standard input ends.

    python genuine_server.py MUSIC STATE

prints its port. The user is "listener" with the password "pa&ss=w0rd".
"""

import sys
import threading
from pathlib import Path

USER, PASSWORD = "listener", "pa&ss=w0rd"


def main(music: str, state: str) -> None:
    from supysonic.config import DefaultConfig
    from supysonic.db import close_connection, init_database
    from supysonic.managers.folder import FolderManager
    from supysonic.managers.user import UserManager
    from supysonic.scanner import Scanner
    from supysonic.web import create_application
    from werkzeug.serving import make_server

    config = DefaultConfig()
    config.BASE = {**config.BASE, "database_uri": "sqlite:///" + str(Path(state) / "supysonic.db")}
    config.WEBAPP = {**config.WEBAPP, "cache_dir": state}
    init_database(config.BASE["database_uri"])
    UserManager.add(USER, PASSWORD)
    FolderManager.add("Music", music)
    scanner = Scanner()
    scanner.queue_folder("Music")
    scanner.run()
    close_connection()
    server = make_server("127.0.0.1", 0, create_application(config), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
