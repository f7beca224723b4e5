/**
 * Ways round the sidecar that can be tried on a real node and its API server, each tried and seen to fail. What searches
 * for credentials and attacks the sidecar's process is in credentials.test.ts and attacks.test.ts.
 *
 * Not here, because no part of this installation closes it and this cluster's network enforces nothing: metadata servers,
 * and the API server's own address without a credential. Those are for the NetworkPolicy of the namespace.
 */
import { spawn } from 'node:child_process'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { reasonInStatus } from '../../shared/status.ts'
import { tryKubectl } from '../../scripts/cluster.ts'
import type { Ran } from '../../scripts/run.ts'
import { eventually } from '../../scripts/run.ts'
import type { Search } from './agents/find-tokens.ts'
import {
  ALL_PODS,
  CONTAINED_NAMESPACE,
  NAMESPACE,
  PRIVILEGED,
  RESTRICTED,
  admin,
  agentRuns,
  apply,
  facts,
  intents,
  podFacts,
  podObject,
  prepare,
  runAgent,
} from './support.ts'

/** Who may create pods in the labelled namespaces, as most people in a cluster: not its administrator, whom nothing binds. */
const AUTHOR = 'e2e-author'
const SIDECAR = 'nestgate-sidecar'

/** kubectl as the author. */
function asAuthor(args: readonly string[], input?: object): Promise<Ran> {
  return tryKubectl(facts, ['--as', AUTHOR, ...args], {
    timeoutMs: 60_000,
    ...(input === undefined ? {} : { input: JSON.stringify(input) }),
  })
}

/** What an author may do, and that this one may also change namespaces and add ephemeral containers. */
function authorObjects(): readonly object[] {
  const apiGroup = 'rbac.authorization.k8s.io'
  const subjects = [{ apiGroup, kind: 'User', name: AUTHOR }]
  const bindings = [NAMESPACE, CONTAINED_NAMESPACE].map((namespace) => ({
    apiVersion: `${apiGroup}/v1`,
    kind: 'RoleBinding',
    metadata: { name: AUTHOR, namespace },
    roleRef: { apiGroup, kind: 'ClusterRole', name: 'admin' },
    subjects,
  }))
  return [
    ...bindings,
    {
      apiVersion: `${apiGroup}/v1`,
      kind: 'ClusterRole',
      metadata: { name: AUTHOR },
      rules: [
        { apiGroups: [''], resources: ['namespaces'], verbs: ['get', 'patch'] },
        // in the default roles from 1.25 on only
        { apiGroups: [''], resources: ['pods/ephemeralcontainers'], verbs: ['patch', 'update'] },
      ],
    },
    {
      apiVersion: `${apiGroup}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: AUTHOR },
      roleRef: { apiGroup, kind: 'ClusterRole', name: AUTHOR },
      subjects,
    },
  ]
}

const USER = { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true }

function container(name: string, command: readonly string[], more: object = {}): object {
  return { name, image: facts.agentsImage, imagePullPolicy: 'IfNotPresent', command, ...more }
}

const LISTEN = `
import os, signal, socket, time
def sidecars():
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                # in two parts, or the thief would find itself
                if b'/sidecar/' b'main.js' in file.read():
                    yield int(pid)
        except OSError:
            pass
`
/** Holds the sidecar's port until its container ends. */
const TAKE_PORT = `${LISTEN}
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(('127.0.0.1', 8001))
listener.listen()
print('taken', flush=True)
time.sleep(300)
`
/** Ends the sidecar, which another process of its user may, and takes its port before it is back. */
const TAKE_PLACE = `${LISTEN}
time.sleep(3)
for pid in sidecars():
    os.kill(pid, signal.SIGKILL)
while True:
    try:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', 8001))
        listener.listen()
        break
    except OSError:
        listener.close()
        time.sleep(0.001)
print('taken', flush=True)
time.sleep(300)
`

interface Status {
  readonly phase: string
  readonly conditions: readonly { readonly type: string; readonly status: string }[]
  readonly containerStatuses: readonly {
    readonly name: string
    readonly restartCount: number
    readonly lastState: { readonly terminated?: { readonly exitCode: number } }
  }[]
}

async function statusOf(name: string, namespace = NAMESPACE): Promise<Status> {
  const said = await admin(['-n', namespace, 'get', 'pod', name, '-o', 'json'])
  return (JSON.parse(said) as { status: Status }).status
}

/** A way to a port of a pod through the API server, as kubectl makes it. */
async function forwardTo(
  pod: { readonly name: string; readonly namespace: string },
  port: number,
): Promise<{ url: string; close: () => void }> {
  const { kubectl, kubeconfig } = facts
  const args = ['--kubeconfig', kubeconfig, '-n', pod.namespace, 'port-forward', `pod/${pod.name}`]
  const child = spawn(kubectl, [...args, `:${port}`], { stdio: ['ignore', 'pipe', 'inherit'] })
  const local = await new Promise<string>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const found = /127\.0\.0\.1:(\d+)/.exec(text)?.[1]
      if (found !== undefined) resolve(found)
    })
    child.once('close', () => {
      reject(new Error('kubectl port-forward ended'))
    })
  })
  return { url: `http://127.0.0.1:${local}`, close: () => child.kill() }
}

/** What a pod's author may not write, by the code of its refusal: a change of the spec, or of its only container. */
interface Refused {
  readonly what: string
  readonly code: string
  readonly spec?: object
  readonly container?: object
  readonly metadata?: object
  readonly namespace?: string
}

const projected = (serviceAccountToken: object): object => ({
  volumes: [{ name: 'own', projected: { sources: [{ serviceAccountToken }] } }],
})
const MOUNTED = { volumeMounts: [{ name: 'own', mountPath: '/own' }] }
/** As the token controller names them, where none is known. */
const TOKEN_SECRET = 'agent-token-x8f2k'

const REFUSED: readonly Refused[] = [
  {
    what: 'a token for the API server at a place of its own',
    code: 'token_api_audience',
    spec: projected({ path: 'token' }),
    container: MOUNTED,
  },
  {
    what: 'a token for the broker',
    code: 'token_audience',
    spec: projected({ path: 'token', audience: 'nestgate-broker' }),
  },
  {
    what: 'a token for anybody else',
    code: 'token_audience_not_allowed',
    spec: projected({ path: 'token', audience: 'sts.amazonaws.com' }),
  },
  {
    what: 'a token’s Secret as a volume',
    code: 'token_secret',
    spec: { volumes: [{ name: 'own', secret: { secretName: TOKEN_SECRET } }] },
    container: MOUNTED,
  },
  {
    what: 'a token’s Secret as a variable',
    code: 'token_secret',
    container: {
      env: [{ name: 'T', valueFrom: { secretKeyRef: { name: TOKEN_SECRET, key: 'token' } } }],
    },
  },
  {
    what: 'a token’s Secret as all variables of an init container',
    code: 'token_secret',
    spec: {
      initContainers: [
        container('first', ['true'], { envFrom: [{ secretRef: { name: TOKEN_SECRET } }] }),
      ],
    },
  },
  {
    what: 'a volume of a driver that could bring a token',
    code: 'csi_driver',
    spec: { volumes: [{ name: 'own', csi: { driver: 'secrets-store.csi.k8s.io' } }] },
  },
  {
    what: 'the node’s files',
    code: 'host_path',
    spec: { volumes: [{ name: 'own', hostPath: { path: '/var/lib/kubelet' } }] },
    container: MOUNTED,
  },
  {
    what: 'the sidecar’s token volume',
    code: 'reserved_name',
    container: { volumeMounts: [{ name: 'nestgate-token', mountPath: '/own' }] },
  },
  { what: 'a sidecar of its own', code: 'reserved_name', container: { name: SIDECAR } },
  { what: 'the node’s network', code: 'host_network', spec: { hostNetwork: true } },
  { what: 'the node’s processes', code: 'host_pid', spec: { hostPID: true } },
  {
    what: 'the sidecar’s user',
    code: 'sidecar_user',
    container: { securityContext: { runAsUser: 64210 } },
    namespace: CONTAINED_NAMESPACE,
  },
  {
    what: 'privileges',
    code: 'container_privileges',
    container: { securityContext: { privileged: true } },
  },
  {
    what: 'the sidecar’s port',
    code: 'port_reserved',
    container: { ports: [{ containerPort: 8001 }] },
  },
  {
    what: 'a mirror’s annotation',
    code: 'mirror_pod',
    metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } },
  },
]

function podOf({
  spec = {},
  container: more = {},
  metadata = {},
  namespace = NAMESPACE,
}: Refused): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'way-round', namespace, ...metadata },
    spec: { containers: [container('agent', ['true'], more)], ...spec },
  }
}

describe('ways round the sidecar', () => {
  const own = ['early-port', 'taken-r', 'taken-p']

  before(async () => {
    await prepare()
    await apply(...authorObjects())
    const taker = (name: string, spec: object): object => podObject(NAMESPACE, name, spec)
    await apply(
      taker('early-port', {
        securityContext: USER,
        restartPolicy: 'Never',
        initContainers: [
          container('early', ['sh', '-c', `python3 -c "$TAKE_PORT" & sleep 2`], {
            env: [{ name: 'TAKE_PORT', value: TAKE_PORT }],
          }),
        ],
        containers: [container('planner', ['sh', '-c', 'kubectl-new get pods -o name'])],
      }),
      taker('taken-r', {
        securityContext: USER,
        containers: [container('thief', ['python3', '-c', TAKE_PLACE])],
      }),
      taker('taken-p', {
        containers: [
          container('thief', ['python3', '-c', TAKE_PLACE]),
          container('other', ['sleep', '86400'], { securityContext: { runAsUser: 1001 } }),
        ],
      }),
    )
  })

  after(async () => {
    await admin(['-n', NAMESPACE, 'delete', 'pod', ...own, '--wait=false', '--ignore-not-found'])
  })

  describe('the place of the sidecar', () => {
    it('cannot be kept by an init container that took the port first', async () => {
      const status = await eventually('the end of the pod', 90_000, async () => {
        const now = await statusOf('early-port')
        return ['Succeeded', 'Failed'].includes(now.phase) ? now : undefined
      })
      const said = await admin(['-n', NAMESPACE, 'logs', 'early-port', '-c', 'early'])
      expect(said, 'the port was free for it').to.contain('taken')
      expect(status.phase).to.equal('Succeeded')
      const { uid } = await podFacts('early-port')
      const [list] = await intents(uid)
      expect([list?.request.resource, list?.tag.verdict]).to.deep.equal(['pods', 'exclusive'])
    })

    for (const profile of ['R', 'P'] as const)
      it(`gives no credential to who ends the sidecar and takes it, and all see that it is gone: profile ${profile}`, async () => {
        const name = `taken-${profile.toLowerCase()}`
        const status = await eventually('a sidecar that cannot come back', 90_000, async () => {
          const now = await statusOf(name)
          const { restartCount = 0, lastState } =
            now.containerStatuses.find((one) => one.name === SIDECAR) ?? {}
          return restartCount > 0 && lastState?.terminated?.exitCode === 1 ? now : undefined
        })
        expect(status.conditions.find(({ type }) => type === 'Ready')?.status).to.equal('False')
        const said = await admin(['-n', NAMESPACE, 'logs', name, '-c', 'thief'])
        expect(said).to.contain('taken')
        const logs = await admin(['-n', NAMESPACE, 'logs', name, '-c', SIDECAR, '--previous'])
        expect(logs).to.contain('EADDRINUSE')
        const { found } = await runAgent<Search>(name, 'thief', 'find-tokens.ts', [])
        expect(found).to.deep.equal([])
      })
  })

  describe('a forwarded port', () => {
    for (const pod of ALL_PODS)
      it(`is no process of the pod: profile ${pod.profile}`, async () => {
        const way = await forwardTo(pod, 8001)
        try {
          const whoami = await fetch(`${way.url}/.nestgate/whoami`)
          const tag = (await whoami.json()) as AgentTag
          const list = await fetch(`${way.url}/api/v1/namespaces/${pod.namespace}/pods?limit=1`)
          const said = await list.text()
          if (pod.profile === 'C') {
            // Of a socket only its user is told here, and the runtime's is root: where `container_only` is accepted, the
            // request is the pod's, of no container. So nobody may forward ports there but who may bypass (port_forward).
            expect([tag.verdict, tag.socket?.uid]).to.deep.equal(['container_only', 0])
            expect(list.status, said).to.equal(200)
            const { uid } = await podFacts(pod.name, pod.namespace)
            const made = (await intents(uid)).find(({ request }) => request.query === 'limit=1')
            expect([made?.tag.verdict, made?.container]).to.deep.equal([
              'container_only',
              undefined,
            ])
          } else {
            expect(tag.verdict).to.equal('unidentified')
            expect([list.status, reasonInStatus(said)]).to.deep.equal([403, 'caller_unidentified'])
          }
        } finally {
          way.close()
        }
      })
  })

  describe('a pod whose author wants', () => {
    for (const refused of REFUSED)
      it(`${refused.what}, is refused: ${refused.code}`, async () => {
        const said = await asAuthor(['create', '--dry-run=server', '-f', '-'], podOf(refused))
        expect(said.code).to.not.equal(0)
        expect(said.stderr).to.contain(`nestgate: ${refused.code}: `)
      })

    it('nothing of that kind is created', async () => {
      const plain = podOf({ what: '', code: '' })
      const said = await asAuthor(['create', '--dry-run=server', '-f', '-'], plain)
      expect(said.code, said.stderr).to.equal(0)
    })
  })

  describe('what is done to a running pod, or beside it', () => {
    const place = ['-n', NAMESPACE]
    /** A command of the author's in {@link NAMESPACE}, and the code of what refuses it. */
    const DENIED: readonly (readonly [string, string, readonly string[]])[] = [
      [
        'entering the sidecar',
        'sidecar_entered',
        ['exec', RESTRICTED.name, '-c', SIDECAR, '--', 'node', '-e', '1'],
      ],
      ['attaching to the sidecar', 'sidecar_entered', ['attach', RESTRICTED.name, '-c', SIDECAR]],
      ['forwarding its port', 'port_forward', ['port-forward', `pod/${RESTRICTED.name}`, ':8001']],
      [
        'another image for the sidecar',
        'sidecar_changed',
        ['set', 'image', `pod/${RESTRICTED.name}`, `${SIDECAR}=${facts.agentsImage}`],
      ],
      [
        'another annotation of ours',
        'sidecar_changed',
        ['annotate', '--overwrite', 'pod', RESTRICTED.name, 'nestgate.dev/kubeconfig=mine'],
      ],
    ]
    for (const [what, code, args] of DENIED)
      it(`${what} is refused: ${code}`, async () => {
        const said = await asAuthor([...place, ...args])
        expect(said.code).to.not.equal(0)
        expect(said.stderr).to.contain(`nestgate: ${code}: `)
      })

    for (const newest of [false, true])
      it(`an agent enters no sidecar through the broker: ${newest ? 'newest' : 'oldest'} kubectl`, async () => {
        const kubectl = newest ? 'kubectl-new' : 'kubectl-old'
        const command = [kubectl, 'exec', PRIVILEGED.name, '-c', SIDECAR, '--', 'node', '-e', '1']
        const said = await agentRuns(RESTRICTED.name, 'planner', { command })
        expect(said.code).to.not.equal(0)
        expect(said.stderr).to.contain('nestgate: sidecar_entered: ')
      })

    it('the author’s own containers may be entered', async () => {
      const { name } = RESTRICTED
      const said = await asAuthor([...place, 'exec', name, '-c', 'planner', '--', 'true'])
      expect(said.code, said.stderr).to.equal(0)
    })

    it('a Secret for a token of the service account is refused: token_secret_made', async () => {
      const secret = {
        apiVersion: 'v1',
        kind: 'Secret',
        type: 'kubernetes.io/service-account-token',
        metadata: {
          name: 'own-token',
          namespace: NAMESPACE,
          annotations: { 'kubernetes.io/service-account.name': 'agent' },
        },
      }
      const said = await asAuthor(['create', '-f', '-'], secret)
      expect(said.code).to.not.equal(0)
      expect(said.stderr).to.contain('nestgate: token_secret_made: ')
    })

    it('taking the label from the namespace is refused: namespace_unlabelled', async () => {
      for (const change of ['nestgate.dev/inject-', 'nestgate.dev/inject=observe']) {
        const said = await asAuthor(['label', '--overwrite', 'namespace', NAMESPACE, change])
        expect(said.code, change).to.not.equal(0)
        expect(said.stderr).to.contain('nestgate: namespace_unlabelled: ')
      }
    })

    it('an ephemeral container beside the sidecar is refused: sidecar_entered', async () => {
      const args = ['debug', RESTRICTED.name, `--target=${SIDECAR}`, '--image', facts.agentsImage]
      const said = await asAuthor([...place, ...args, '--attach=false', '--', 'true'])
      expect(said.code).to.not.equal(0)
      // 1.20 has them behind a feature gate, which is closed by default
      expect(said.stderr).to.match(/ephemeral containers are disabled|nestgate: sidecar_entered: /)
    })
  })
})
