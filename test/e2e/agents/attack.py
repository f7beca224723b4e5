"""Tries to take the sidecar's secrets, its place or its identity, and prints what succeeded as JSON.

Runs in a container of the pod. What it prints are names of attempts, never what they found.
"""
import argparse, ctypes, errno, json, os, re, signal, socket, time

arguments = argparse.ArgumentParser()
arguments.add_argument('--program', default='main', help='which of the programs of the sidecar is attacked')
arguments.add_argument('--port', type=int, default=8001)
arguments.add_argument('--tls-port', type=int, default=8443)
options = arguments.parse_args()
# As the image has it, or as it runs from source.
PROGRAM = re.compile(rb'(?:^|\0)(/[^\0]*/sidecar/%b\.[jt]s)(?:\0|$)' % re.escape(options.program.encode()))
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_ATTACH, PTRACE_SEIZE = 16, 0x4206
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
succeeded, denied = [], []


def attempt(name, work):
    try:
        result = work()
    except (OSError, UnicodeDecodeError):
        result = False
    (succeeded if result else denied).append(name)


def sidecars():
    """Numbers of the processes, each with the path of its program."""
    found = {}
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                match = PROGRAM.search(file.read())
            if match:
                found[int(pid)] = os.fsdecode(match[1])
        except OSError:
            pass
    return found


def read(path):
    with open(path, 'rb') as file:
        return len(file.read(64)) > 0


def follow(folder):
    for name in os.listdir(folder):
        try:
            os.readlink(f'{folder}/{name}')
            return True
        except OSError:
            pass
        try:
            os.close(os.open(f'{folder}/{name}', os.O_RDONLY | os.O_NONBLOCK))
            return True
        except OSError:
            pass
    return False


def read_memory(pid):
    with open(f'/proc/{pid}/maps') as maps:
        start = int(maps.readline().split('-')[0], 16)
    with open(f'/proc/{pid}/mem', 'rb') as memory:
        memory.seek(start)
        return len(memory.read(16)) > 0


def vm_read(pid):
    class Vector(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(16)
    local = Vector(ctypes.cast(buffer, ctypes.c_void_p), 16)
    for address in (0x400000, 0x7FFFF7FF0000):
        remote = Vector(address, 16)
        if libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0:
            return True
        if ctypes.get_errno() == errno.EFAULT:
            return True
    return False


def ptrace(request, pid):
    if libc.ptrace(request, pid, 0, 0) != 0:
        return False
    libc.ptrace(17, pid, 0, 0)
    return True


def take_descriptor(pid):
    handle = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    return handle >= 0 and any(libc.syscall(SYS_PIDFD_GETFD, handle, fd, 0) >= 0 for fd in range(64))


def inspector(pid):
    try:
        os.kill(pid, signal.SIGUSR1)
    except PermissionError:
        pass
    time.sleep(1)
    with socket.socket() as connection:
        return connection.connect_ex(('127.0.0.1', 9229)) == 0


def bind(family, address, port):
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((address, port))
        listener.listen()
        return True


def write(path):
    with open(path, 'w') as file:
        file.write('mine')
    return True


def can_write(path):
    # Opened only: an attempt that succeeds must leave the program as it is.
    os.close(os.open(path, os.O_WRONLY))
    return True


def can_add(folder):
    path = f'{folder}/attack.tmp'
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)
    return True


pids = sidecars()
for pid, program in pids.items():
    for name in ('environ', 'maps', 'auxv', 'stack', 'syscall'):
        attempt(f'read {name}', lambda: read(f'/proc/{pid}/{name}'))
    # Root may list the numbers of descriptors; where they lead it must not see.
    for name in ('fd', 'task/%d/fd' % pid):
        attempt(f'follow {name}', lambda: follow(f'/proc/{pid}/{name}'))
    for name in ('root', 'cwd', 'map_files', 'root/var/run/secrets/nestgate.dev'):
        attempt(f'list {name}', lambda: len(os.listdir(f'/proc/{pid}/{name}')) > 0)
    attempt('read the token', lambda: read(f'/proc/{pid}/root/var/run/secrets/nestgate.dev/token'))
    attempt('write its certificate', lambda: write(f'/proc/{pid}/root/var/run/nestgate-serviceaccount/ca.crt'))
    attempt('read memory', lambda: read_memory(pid))
    for path in (program, f'/proc/{pid}/root{program}', f'/proc/{pid}/exe'):
        attempt(f'write {path.replace(str(pid), "PID")}', lambda: can_write(path))
    for folder in {os.path.dirname(program), os.path.dirname(os.path.dirname(program))}:
        for path in (folder, f'/proc/{pid}/root{folder}'):
            attempt(f'add to {path.replace(str(pid), "PID")}', lambda: can_add(path))
    attempt('write memory', lambda: write(f'/proc/{pid}/mem'))
    attempt('process_vm_readv', lambda: vm_read(pid))
    attempt('ptrace attach', lambda: ptrace(PTRACE_ATTACH, pid))
    attempt('ptrace seize', lambda: ptrace(PTRACE_SEIZE, pid))
    attempt('take a descriptor', lambda: take_descriptor(pid))
    attempt('open the inspector', lambda: inspector(pid))
for name in ('ca.crt', 'token', 'namespace', 'new'):
    attempt(f'write {name}', lambda: write(f'/var/run/secrets/kubernetes.io/serviceaccount/{name}'))
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::')):
    ports = (options.port,) if address == '::1' else (options.port, options.tls_port)
    for port in ports:
        attempt(f'listen on {address} port {port}', lambda: bind(family, address, port))
attempt('raw socket', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) is not None)
attempt('packet socket', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300) is not None)
print(json.dumps({'sidecars': len(pids), 'succeeded': succeeded, 'denied': len(denied)}))
