"""What goes over a connection, below the protocol."""

import socket
import threading

from tierserver import transport


def test_more_pieces_than_the_kernel_takes_at_once_are_sent() -> None:
    pieces = [bytes([number % 256]) for number in range(3000)]
    sending, receiving = socket.socketpair()
    with sending, receiving:
        sender = threading.Thread(target=transport._send, args=(sending, pieces))
        sender.start()
        received = b""
        while len(received) < len(pieces):
            received += receiving.recv(65536)
        sender.join(timeout=10)
    assert received == b"".join(pieces)
