"""Sessions of the Python client of Kubernetes, unchanged: exec with input and exit code, attach, and HTTP through a forwarded port. Prints JSON."""
import json
import sys
import time

from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_incluster_config()
namespace, pod, marker = sys.argv[1:4]
core = client.CoreV1Api()
said = {}

command = ['sh', '-c', 'read word; echo got $word; echo careful >&2; exit 7', f'{marker}:python']
session = stream(core.connect_get_namespaced_pod_exec, pod, namespace, container='web', command=command,
                 stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
session.write_stdin('python\n')
session.run_forever(timeout=20)
said['exec'] = {'stdout': session.read_stdout(), 'stderr': session.read_stderr(), 'code': session.returncode}
session.close()

session = stream(core.connect_get_namespaced_pod_attach, pod, namespace, container='echo',
                 stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
session.write_stdin(f'hello {marker}\n')
text = ''
end = time.time() + 20
while f'echo: hello {marker}\n' not in text and time.time() < end:
    session.update(timeout=1)
    text += session.read_stdout() if session.peek_stdout() else ''
said['attach'] = text
session.close()

forward = portforward(core.connect_get_namespaced_pod_portforward, pod, namespace, ports='8080')
connection = forward.socket(8080)
connection.settimeout(20)
connection.sendall(b'GET /python HTTP/1.0\r\nHost: target\r\n\r\n')
answer = b''
while True:
    piece = connection.recv(65536)
    if not piece:
        break
    answer += piece
connection.close()
said['forward'] = {'answer': answer.decode().split('\r\n\r\n', 1)[-1], 'error': forward.error(8080)}
print(json.dumps(said))
