"""Small programs for both ends of the cable, for `python -c`; servers end with their standard input or connection."""

ASK_RAKEFARM = """
import sys, time
from rakefarm.client.credentials import Credentials
from rakefarm.client.link import connect
from rakefarm.hosts import parse_host
from rakefarm.wire.messages import Task
link = connect(parse_host(sys.argv[1]), {}, 10.0, Credentials(insecure=True))
link.transport.set_timeout(60.0)
task = Task(kind="other", needs=(), input_bytes=0, work_s=0.0, memory_bytes=0)
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    link.ask(task)
    while link.take_answer(link.transport.wait_readable(60.0)) is None:
        pass
    print(time.perf_counter() - began)
"""
"""ADDRESS COUNT: asks a server for quotes over one connection; prints how long each took, in seconds."""
ASK_HTTP = """
import http.client, socket, sys, time
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
connection.connect()
connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for _ in range(int(sys.argv[3])):
    began = time.perf_counter()
    connection.request("POST", "/quote", b"x" * 80, {"Content-Type": "application/octet-stream"})
    connection.getresponse().read()
    print(time.perf_counter() - began)
"""
"""ADDRESS PORT COUNT: the same over HTTP/1.1."""
ASK_UDP = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.settimeout(float(sys.argv[4]))
for number in range(int(sys.argv[3])):
    question = number.to_bytes(8, "big") + b"x" * 72
    began = time.perf_counter()
    while True:
        sock.send(question)
        try:
            while sock.recv(1000)[:8] != question[:8]:
                pass
            break
        except TimeoutError:
            pass
    print(time.perf_counter() - began)
"""
"""ADDRESS PORT COUNT RETRY_S: the same with datagrams, sent again after so long."""
SERVE_HTTP = """
import http.server, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "400")
        self.end_headers()
        self.wfile.write(b"x" * 400)
        self.wfile.flush()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Answer)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""
"""ADDRESS: answers every POST with 400 bytes; prints its port."""
SERVE_UDP = """
import socket, sys, threading
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 0))
print(sock.getsockname()[1], flush=True)
def serve():
    while True:
        question, asker = sock.recvfrom(1000)
        sock.sendto(question[:8] + bytes(400), asker)
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
"""
"""ADDRESS: answers every datagram; prints its port."""
RECEIVE = """
import socket, sys
listener = socket.socket()
if int(sys.argv[2]):
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(sys.argv[2]))
listener.bind((sys.argv[1], 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
connection = listener.accept()[0]
total = 0
while data := connection.recv(1 << 18):
    total += len(data)
connection.sendall(total.to_bytes(8, "big"))
"""
"""ADDRESS BUFFER: takes one connection to its end and says how much came; prints its port."""
SEND = """
import socket, sys, time
connection = socket.socket()
if int(sys.argv[3]):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(sys.argv[3]))
connection.connect((sys.argv[1], int(sys.argv[2])))
piece, began = bytes(1 << 16), time.perf_counter()
while time.perf_counter() - began < float(sys.argv[4]):
    connection.sendall(piece)
connection.shutdown(socket.SHUT_WR)
total = int.from_bytes(connection.recv(8), "big")
print(total * 8 / (time.perf_counter() - began))
"""
"""ADDRESS PORT BUFFER SECONDS: sends for so long; prints bits a second."""
