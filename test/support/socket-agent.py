"""A client that does with its connection what an attacker, or an unusual program, would do.

Reads one command a line and answers each with one line of JSON. Commands:
  connect [SOURCE_PORT]     opens a connection to the port given as first argument
  get PATH                  sends a request on it, reads the answer's body
  send PATH                 sends a request and does not read
  pipeline PATH PATH        sends two requests in one write, reads both
  fork-get PATH             a child sends on the connection while this process keeps it
  fork-hold                 a child that keeps the connection and does nothing
  hand-over PATH            a child gets the connection, this process closes it, the child sends
  pass PATH                 another process gets the connection by SCM_RIGHTS; this one closes it; that one sends
  exec PROGRAM PATH         becomes another program that goes on with the connection
  thread-get PATH           a thread with a file table of its own connects and sends
  half-close PATH           sends, ends its side, reads
  send-reset PATH           sends, and resets the connection
  in-flight PATH            sends, puts the connection into a message that nobody receives, closes it
  share-table PATH          a process that shares this one's table of files (CLONE_FILES) sends
  take PATH                 a child copies the connection out of this process (pidfd_getfd) and sends
  spawn-get PATH            another program is started with the connection, sends, and closes it soon while it goes on
  body-hand-over PATH       sends the head of a request; a child that alone has the connection sends its body
  slow-hand-over PATH PATH  sends; a child gets the connection while the answer is under way and sends too
  ring PATH                 sends, gives the connection to an io_uring, closes it
  leaderless PATH           the first thread ends, another one sends; this is the last command
  helper                    starts a process that has no connection, for copy
  copy PATH SECONDS         the helper gets a copy of the connection by SCM_RIGHTS and sends after so long; this process keeps its own
  upgrade PATH              asks to switch to WebSocket, says with which status it was answered
  echo TEXT                 sends, and says what comes back, after the switch
  leave-to-child            a child gets the connection, this process closes it, the child waits for its end
  open NUMBER               opens that many files, or as many as it may
  become UID                goes on as that user
  flood NUMBER [PATH]       opens that many connections more, and sends a request on each
  count-open                how many of those the other side has not ended
  wait-for-close            whether the connection was ended by the other side
  chown UID                 gives the connection to another user (CAP_CHOWN)
  rename NAME               sets the process's own name
"""
import ctypes, errno, json, os, resource, signal, socket, struct, sys, threading, time

port = int(sys.argv[1])
sock = socket.socket(fileno=int(sys.argv[2])) if len(sys.argv) > 2 else None
libc = ctypes.CDLL(None, use_errno=True)
CLONE_FILES = 0x400
SYS_CLONE = 56 if os.uname().machine == 'x86_64' else 220
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER, IORING_REGISTER_FILES = 425, 427, 2
SYS_EXIT = 60 if os.uname().machine == 'x86_64' else 93
PR_SET_NAME = 15
kept = []
flooding = []
helper = None


def request(path):
    return f'GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n'.encode()


def read_answer(stream):
    length = 0
    while True:
        line = stream.readline().strip().lower()
        if not line:
            break
        if line.startswith(b'content-length:'):
            length = int(line.split(b':')[1])
        if line == b'transfer-encoding: chunked':
            length = -1
    if length >= 0:
        return stream.read(length).decode()
    body = b''
    while True:
        size = int(stream.readline(), 16)
        body += stream.read(size)
        stream.readline()
        if size == 0:
            return body.decode()


def get(connection, path):
    connection.sendall(request(path))
    with connection.makefile('rb', buffering=0) as stream:
        return read_answer(stream)


def bind_when_free(connection, source):
    """The kernel lets a port go a moment after the socket that had it was reset."""
    end = time.monotonic() + 2
    while True:
        try:
            return connection.bind(('127.0.0.1', source))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                raise
            time.sleep(0.002)


def connect(source=None):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if source is not None:
        bind_when_free(connection, int(source))
    connection.connect(('127.0.0.1', port))
    return connection


def in_child(work):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.write(writer, json.dumps({'pid': os.getpid(), 'body': work()}).encode())
        os._exit(0)
    os.close(writer)
    return pid, reader


def finish(pid, reader):
    with os.fdopen(reader, 'rb') as stream:
        text = stream.read().decode()
    os.waitpid(pid, 0)
    return text


def thread_get(path):
    result = {}

    def work():
        if libc.unshare(CLONE_FILES) != 0:
            result['body'] = ''
            return
        connection = connect()
        result['body'] = get(connection, path)
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return result['body']


def hand_over(path):
    go_reader, go_writer = os.pipe()

    def work():
        os.read(go_reader, 1)
        return get(sock, path)

    pid, reader = in_child(work)
    sock.close()
    os.write(go_writer, b'x')
    return finish(pid, reader)


def pass_on(path):
    ours, theirs = socket.socketpair(socket.AF_UNIX)

    def work():
        sock.close()
        theirs.sendall(b'r')
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        theirs.sendall(b'g')
        theirs.recv(1)
        return get(socket.socket(fileno=fds[0]), path)

    pid, reader = in_child(work)
    ours.recv(1)
    socket.send_fds(ours, [b'f'], [sock.fileno()])
    ours.recv(1)
    sock.close()
    ours.sendall(b'x')
    return finish(pid, reader)


def start_helper():
    """A process that waits for commands: a path and seconds, with a connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    pid = os.fork()
    if pid == 0:
        ours.close()
        if sock is not None:
            sock.close()
        os.close(0)
        while True:
            text, fds, _, _ = socket.recv_fds(theirs, 1024, 1)
            if not text:
                os._exit(0)
            path, seconds = text.decode().split()
            time.sleep(float(seconds))
            body = get(socket.socket(fileno=fds[0]), path)
            theirs.sendall(json.dumps({'pid': os.getpid(), 'body': body}).encode() + b'\n')
    theirs.close()
    return pid, ours


def copy(path, seconds):
    _, channel = helper
    socket.send_fds(channel, [f'{path} {seconds}'.encode()], [sock.fileno()])
    with channel.makefile('rb') as stream:
        return stream.readline().decode().strip()


def upgrade(path):
    head = request(path)[:-2] + b'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
    sock.sendall(head)
    answer = b''
    while b'\r\n\r\n' not in answer:
        answer += sock.recv(1)
    return answer.split()[1].decode()


def wait_for_close():
    sock.settimeout(10)
    try:
        return 'closed' if sock.recv(1) == b'' else 'open'
    except ConnectionResetError:
        return 'closed'


def leave_to_child():
    pid, reader = in_child(wait_for_close)
    sock.close()
    return finish(pid, reader)


def in_flight(path):
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    kept.extend([ours, theirs])
    socket.send_fds(ours, [b'f'], [sock.fileno()])
    sock.sendall(request(path))
    sock.close()
    return 'sent'


def ring(path):
    sock.sendall(request(path))
    parameters = (ctypes.c_ubyte * 120)()
    handle = libc.syscall(SYS_IO_URING_SETUP, 2, parameters)
    files = (ctypes.c_int * 1)(sock.fileno())
    if handle < 0 or libc.syscall(SYS_IO_URING_REGISTER, handle, IORING_REGISTER_FILES, files, 1) != 0:
        return 'the kernel gives no ring'
    sock.close()
    kept.append(handle)
    return 'sent'


def leaderless(path):
    def work():
        time.sleep(0.2)
        sys.stdout.write(get(sock, path).replace('\n', ' ') + '\n')
        sys.stdout.flush()
        os._exit(0)

    threading.Thread(target=work).start()
    libc.syscall(SYS_EXIT, 0)


def share_table(path):
    reader, writer = os.pipe()
    pid = libc.syscall(SYS_CLONE, CLONE_FILES | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os.write(writer, json.dumps({'pid': os.getpid(), 'body': get(sock, path)}).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader, 'rb') as stream:
        return stream.read().decode()


def take(path):
    parent, number = os.getpid(), sock.fileno()

    def work():
        sock.close()
        handle = libc.syscall(SYS_PIDFD_OPEN, parent, 0)
        copy = libc.syscall(SYS_PIDFD_GETFD, handle, number, 0)
        return get(socket.socket(fileno=copy), path)

    return finish(*in_child(work))


def spawn_get(path):
    number = sock.fileno()
    sock.set_inheritable(True)
    bytes_sent = request(path).decode().replace('\r\n', '\\r\\n')
    wait = 'select(undef, undef, undef, %s);'
    send = f'open(S, "+<&={number}"); syswrite(S, "{bytes_sent}"); {wait % 0.004} close(S); {wait % 0.3}'
    pid = os.posix_spawn('/usr/bin/perl', ['perl', '-e', send], os.environ)
    with sock.makefile('rb', buffering=0) as stream:
        body = read_answer(stream)
    os.waitpid(pid, 0)
    return json.dumps({'pid': pid, 'body': body})


def body_hand_over(path):
    sock.sendall(f'POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n'.encode())
    time.sleep(0.2)

    def work():
        time.sleep(0.5)
        sock.sendall(b'body')
        with sock.makefile('rb', buffering=0) as stream:
            return read_answer(stream)

    pid, reader = in_child(work)
    sock.close()
    return finish(pid, reader)


def slow_hand_over(first, second):
    sock.sendall(request(first))
    time.sleep(0.1)
    pid, reader = in_child(lambda: (time.sleep(0.1), get(sock, second))[1])
    sock.close()
    return finish(pid, reader)


def raise_file_limit():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def flood(count, path=None):
    for _ in range(int(count)):
        connection = connect()
        if path is not None:
            connection.sendall(request(path))
        flooding.append(connection)
    return len(flooding)


def is_open(connection):
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b''
    except BlockingIOError:
        return True
    except OSError:
        return False


def command(words):
    global sock, helper
    name, rest = words[0], words[1:]
    if name == 'connect':
        try:
            sock = connect(*rest)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return 'taken'
        return str(sock.getsockname()[1])
    if name == 'get':
        return get(sock, rest[0])
    if name == 'send':
        sock.sendall(request(rest[0]))
        return 'sent'
    if name == 'pipeline':
        sock.sendall(request(rest[0]) + request(rest[1]))
        with sock.makefile('rb', buffering=0) as stream:
            return '[' + read_answer(stream) + ',' + read_answer(stream) + ']'
    if name == 'fork-get':
        return finish(*in_child(lambda: get(sock, rest[0])))
    if name == 'fork-hold':
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(0)
            os.close(1)
            while os.getppid() == parent:
                time.sleep(0.05)
            os._exit(0)
        return str(pid)
    if name == 'hand-over':
        return hand_over(rest[0])
    if name == 'pass':
        return pass_on(rest[0])
    if name == 'exec':
        os.set_inheritable(sock.fileno(), True)
        os.execv(rest[0], [rest[0], *rest[1:], str(port), str(sock.fileno())])
    if name == 'thread-get':
        return thread_get(rest[0])
    if name == 'half-close':
        sock.sendall(request(rest[0]))
        sock.shutdown(socket.SHUT_WR)
        with sock.makefile('rb', buffering=0) as stream:
            return read_answer(stream)
    if name == 'send-reset':
        sock.sendall(request(rest[0]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        sock.close()
        return 'reset'
    if name == 'in-flight':
        return in_flight(rest[0])
    if name == 'ring':
        return ring(rest[0])
    if name == 'leaderless':
        leaderless(rest[0])
    if name == 'share-table':
        return share_table(rest[0])
    if name == 'take':
        return take(rest[0])
    if name == 'spawn-get':
        return spawn_get(rest[0])
    if name == 'body-hand-over':
        return body_hand_over(rest[0])
    if name == 'slow-hand-over':
        return slow_hand_over(*rest)
    if name == 'become':
        raise_file_limit()
        os.setgroups([])
        os.setgid(int(rest[0]))
        os.setuid(int(rest[0]))
        return str(os.getuid())
    if name == 'flood':
        raise_file_limit()
        return str(flood(*rest))
    if name == 'count-open':
        return str(sum(is_open(connection) for connection in flooding))
    if name == 'helper':
        helper = start_helper()
        return str(helper[0])
    if name == 'copy':
        return copy(*rest)
    if name == 'upgrade':
        return upgrade(rest[0])
    if name == 'echo':
        sock.sendall(rest[0].encode())
        return sock.recv(1024).decode()
    if name == 'leave-to-child':
        return leave_to_child()
    if name == 'open':
        most = raise_file_limit()
        count = min(int(rest[0]), most - 64)
        kept.extend(os.open('/dev/null', os.O_RDONLY) for _ in range(count))
        return str(len(kept))
    if name == 'wait-for-close':
        return wait_for_close()
    if name == 'chown':
        os.fchown(sock.fileno(), int(rest[0]), -1)
        return 'ok'
    if name == 'rename':
        libc.prctl(PR_SET_NAME, ' '.join(rest).encode(), 0, 0, 0)
        return 'ok'
    raise ValueError(name)


# Byte by byte: what follows an exec command is for the program that comes.
for line in open(0, 'rb', buffering=0, closefd=False):
    answer = command(line.decode().split())
    sys.stdout.write(answer.replace('\n', ' ') + '\n')
    sys.stdout.flush()
