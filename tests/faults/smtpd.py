"""The SMTP server of a stand-in host: it refuses the senders that the host's built map has, as smtpd(8) would."""

import socketserver
import threading
from pathlib import Path

from tests.faults.mta import value_in

NULL_SENDER = "<>"


class Smtpd(socketserver.ThreadingTCPServer):
    """On a free port of loopback. `built`: the map as stand-in postmap writes it."""

    daemon_threads = True

    def __init__(self, built: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.built = built
        threading.Thread(target=self.serve_forever, name="smtpd", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def judge(self, sender: str) -> str:
        """The answer to RCPT TO."""
        code, _, rest = value_in(self.built.read_text(), sender.lower()).partition(" ")
        enhanced, _, text = rest.partition(" ")
        if not code.isdigit():
            return "250 2.1.5 Ok"
        return f"{code} {enhanced} <{sender}>: Sender address rejected: {text}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Session(socketserver.StreamRequestHandler):
    server: Smtpd

    def handle(self) -> None:
        sender = ""
        self._say("220 mx.test ESMTP")
        for line in self.rfile:
            words = line.decode("utf-8", "replace").strip()
            verb = words[:4].upper()
            if verb == "MAIL":
                sender = words.partition(":")[2].split()[0]
                sender = sender if sender == NULL_SENDER else sender.strip("<>")
            self._say(self.server.judge(sender) if verb == "RCPT" else "221 bye" if verb == "QUIT" else "250 ok")
            if verb == "QUIT":
                return

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
