/** What the tests of masking share: objects with planted secrets, the clients that look at them, and all that those saw. */
import { basename, join } from 'node:path'
import { rmSync } from 'node:fs'
import { allKubectls } from '../../scripts/cluster.ts'
import { attempt } from '../../scripts/run.ts'
import { mintRunnerToken } from '../support/runner-issuer.ts'
import type { Answer, Ask, Asking } from './agents/answers.ts'
import type { Batch, Came, Command } from './agents/commands.ts'
import { Needles, newSecret, plant, plantBinary, plantHelm, plantPem } from './masking-needles.ts'
import type { Planted } from './masking-needles.ts'
import {
  admin,
  agentContainer,
  apply,
  brokerUrl,
  facts,
  NAMESPACE,
  namespaceObject,
  pipelineKubeconfig,
  prepare,
  RESTRICTED,
  runAgent,
} from './support.ts'

/** The standard profile holds. */
export const MASKED = 'e2e-masking'
/** … and updates are restored. */
export const RESTORED = 'e2e-masking-restore'
/** Nothing is masked. */
export const SHOWN = 'e2e-masking-shown'
/** A direct client. */
const PIPELINE = { sub: 'repo:masking', cluster: 'local', namespace: MASKED }
const SUBJECT = 'ci:repo:masking'

/** Secrets by the form in which somebody keeps them. */
export const PLANTED = {
  plain: plant(),
  base64: plant((secret) => Buffer.from(secret).toString('base64')),
  binary: plantBinary(),
  pem: plantPem(),
  url: plant((secret) => `postgres://shop:${secret}@db.example:5432/shop`),
  json: plant((secret) => JSON.stringify({ user: 'shop "one"', password: secret })),
  kubeconfig: plant(
    (secret) =>
      `apiVersion: v1\nkind: Config\nusers:\n- name: ci\n  user:\n    token: ${secret}\ncontexts: []\n`,
  ),
  docker: plant((secret) => {
    const auth = Buffer.from(`shop:${secret}`).toString('base64')
    return JSON.stringify({
      auths: { 'registry.example': { username: 'shop', password: secret, auth } },
    })
  }),
  applied: plant(),
  environment: plant(),
  header: plant(),
  argument: plant((secret) => `--password=${secret}`),
  word: plant(),
  configMap: plant((secret) => `db.user=shop\ndb.password=${secret}\n`),
  configUrl: plant((secret) => `https://shop:${secret}@git.example/shop.git`),
  log: plant((secret) => `connecting with password=${secret}`),
  execArgument: plant((secret) => `--password=${secret}`),
  helm: plantHelm(),
  kept: plant(),
  restored: plant(),
} as const satisfies Readonly<Record<string, Planted>>

/** What may be shown, and must be, where a rule says so. */
export const SHOWABLE = newSecret()

/** Finds all of {@link PLANTED}. */
export const needles = new Needles()
for (const [name, planted] of Object.entries(PLANTED)) needles.add(name, planted)

const text = ({ value }: Planted): string => value.toString()
export const base64 = ({ value }: Planted): string => value.toString('base64')

/** Another value of the same length. */
export const newSecretLike = ({ value }: Planted): string => newSecret(value.length)

/** A Secret as its author writes it. */
export function secretObject(
  name: string,
  namespace: string,
  data: Readonly<Record<string, string>>,
  type = 'Opaque',
): object {
  const metadata = { name, namespace, labels: { app: 'shop' } }
  return { apiVersion: 'v1', kind: 'Secret', metadata, type, data }
}

/** Written with `kubectl apply`, so that the annotation has all of it. */
export const APPLIED = {
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'applied', namespace: MASKED },
  stringData: { password: text(PLANTED.applied) },
} as const

/** With a password that its owner may see, to change something else of. */
export const keptSecret = (namespace: string): object =>
  secretObject('kept', namespace, {
    password: base64(namespace === RESTORED ? PLANTED.restored : PLANTED.kept),
    colour: Buffer.from('green').toString('base64'),
  })

const planted = secretObject('planted', MASKED, {
  ...{ plain: base64(PLANTED.plain), base64: base64(PLANTED.base64) },
  ...{ binary: base64(PLANTED.binary), 'tls.key': base64(PLANTED.pem) },
  ...{ url: base64(PLANTED.url), json: base64(PLANTED.json), config: base64(PLANTED.kubeconfig) },
})

const docker = { '.dockerconfigjson': base64(PLANTED.docker) }
const probe = {
  httpGet: {
    ...{ path: '/', port: 80 },
    httpHeaders: [{ name: 'Authorization', value: `Bearer ${text(PLANTED.header)}` }],
  },
  initialDelaySeconds: 3000,
}
const container = {
  ...(agentContainer('web') as { image: string }),
  command: ['sh', '-c', 'echo "$GREETING"; exec sleep 86400', 'web'],
  args: [text(PLANTED.argument), '--token', text(PLANTED.word)],
  env: [
    { name: 'DB_PASSWORD', value: text(PLANTED.environment) },
    { name: 'GREETING', value: text(PLANTED.log) },
    { name: 'COLOUR', value: 'green' },
  ],
  livenessProbe: probe,
}
const deployment = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'shop', namespace: MASKED },
  spec: {
    replicas: 0,
    selector: { matchLabels: { app: 'shop' } },
    template: { metadata: { labels: { app: 'shop' } }, spec: { containers: [container] } },
  },
}
const configMap = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'shop', namespace: MASKED },
  data: {
    'shop.properties': text(PLANTED.configMap),
    remote: text(PLANTED.configUrl),
    'key.pem': text(PLANTED.pem),
    colour: 'green',
  },
  binaryData: { release: Buffer.from(text(PLANTED.helm), 'base64').toString('base64') },
}
/** Nothing secret is in it. */
const colours = {
  ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'colours', namespace: MASKED } },
  data: { colour: 'green' },
}
const pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'shop', namespace: MASKED },
  spec: { terminationGracePeriodSeconds: 0, containers: [container] },
}

const rbac = 'rbac.authorization.k8s.io'
const agent = { kind: 'ServiceAccount', name: 'agent', namespace: NAMESPACE }
const subject = { apiGroup: rbac, kind: 'User', name: SUBJECT }

function editors(namespace: string): object {
  return {
    apiVersion: `${rbac}/v1`,
    kind: 'RoleBinding',
    metadata: { name: 'editors', namespace },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'edit' },
    subjects: [agent, subject],
  }
}

/** The direct client reads all that there is, Secrets too. */
const reader = [
  {
    apiVersion: `${rbac}/v1`,
    kind: 'ClusterRole',
    metadata: { name: 'e2e-masking' },
    rules: [
      { apiGroups: ['*'], resources: ['*'], verbs: ['get', 'list', 'watch'] },
      {
        apiGroups: [''],
        resources: ['serviceaccounts/token'],
        verbs: ['create'],
      },
    ],
  },
  {
    apiVersion: `${rbac}/v1`,
    kind: 'ClusterRoleBinding',
    metadata: { name: 'e2e-masking' },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'e2e-masking' },
    subjects: [subject],
  },
]

/** When what is looked for later began. */
export const BEGAN = new Date().toISOString()

let prepared: Promise<void> | undefined

/** Brings up the agents, and the objects with planted secrets; once for the whole suite. */
export function prepareMasking(): Promise<void> {
  prepared ??= bringUp()
  return prepared
}

async function bringUp(): Promise<void> {
  await prepare()
  const namespaces = [MASKED, RESTORED, SHOWN]
  await apply(
    ...namespaces.map((name) => namespaceObject(name, {})),
    ...namespaces.map(editors),
    ...reader,
  )
  await apply(APPLIED, deployment, configMap, colours)
  // by other means than apply, which would write all of it a second time, into an annotation
  const others = [
    ...[planted, pod, keptSecret(MASKED), keptSecret(RESTORED)],
    secretObject('registry', MASKED, docker, 'kubernetes.io/dockerconfigjson'),
    secretObject('release', MASKED, { release: base64(PLANTED.helm) }, 'helm.sh/release.v1'),
    secretObject('shown', SHOWN, { password: Buffer.from(SHOWABLE).toString('base64') }),
  ]
  const list = { apiVersion: 'v1', kind: 'List', items: others }
  await admin(['replace', '--force', '-f', '-'], JSON.stringify(list))
  const wait = ['wait', '--for=condition=Ready', 'pod/shop', '--timeout=120s']
  await admin(['-n', MASKED, ...wait])
}

/** Something that a client saw, or that Nestgate wrote. */
export interface Kept {
  readonly where: string
  readonly bytes: Buffer
}

const all: Kept[] = []

/** Remembers what a client saw, for the search of all that there is. */
export function keep(where: string, what: Buffer | string): void {
  all.push({ where, bytes: Buffer.from(what) })
}

/** All that clients saw so far. */
export function kept(): readonly Kept[] {
  return all
}

/** Who looks, and from where. */
export interface Looker {
  readonly label: string
  /** Of paths, where kubectl leaves it out. */
  readonly prefix: string
  /** Runs commands; the word `kubectl` at the beginning of one is this client's own. */
  readonly run: (batch: Batch) => Promise<Readonly<Record<string, Came>>>
  readonly ask: (asks: readonly Ask[]) => Promise<Readonly<Record<string, Answer>>>
}

function withOwn(batch: Batch, own: readonly string[]): string {
  const commands = batch.commands.map(({ command, ...rest }): Command => {
    const [first, ...args] = command
    return { ...rest, command: first === 'kubectl' ? [...own, ...args] : command }
  })
  return JSON.stringify({ ...batch, commands })
}

const script = (name: string): string => join(import.meta.dirname, 'agents', name)

async function here<T>(name: string, task: string): Promise<T> {
  const ran = await attempt('node', [script(name), task], { timeoutMs: 170_000 })
  if (ran.code !== 0) throw new Error(`${name} ended with ${ran.code}: ${ran.stderr}`)
  return JSON.parse(ran.stdout) as T
}

function noting<T extends Came | Answer>(
  label: string,
  results: Readonly<Record<string, T>>,
): Readonly<Record<string, T>> {
  for (const [name, result] of Object.entries(results)) {
    const where = `${label}: ${name}`
    if ('stdout' in result) keep(where, result.stdout + result.stderr)
    else {
      keep(where, Buffer.from(result.body, 'base64'))
      keep(`${where}: headers`, JSON.stringify(result.headers))
    }
  }
  return results
}

/** From inside an injected pod, through its sidecar. @param program - name of a kubectl in the agents' image */
export function fromPod(program: string): Looker {
  const label = `pod, ${program}`
  const { name } = RESTRICTED
  const agentOf = <T>(file: string, task: string): Promise<T> =>
    runAgent<T>(name, 'planner', file, [task])
  return {
    ...{ label, prefix: '' },
    run: async (batch) =>
      noting(label, await agentOf<Record<string, Came>>('commands.ts', withOwn(batch, [program]))),
    ask: async (asks) => {
      const task: Asking = { origin: 'http://127.0.0.1:8001', asks }
      return noting(
        label,
        await agentOf<Record<string, Answer>>('answers.ts', JSON.stringify(task)),
      )
    },
  }
}

/** From this machine, by a kubeconfig that names the broker. */
export function direct(program: string): Looker {
  const label = `direct, ${basename(program)}`
  return {
    ...{ label, prefix: `/clusters/${PIPELINE.cluster}` },
    run: async (batch) => {
      const file = await pipelineKubeconfig(PIPELINE, await brokerUrl())
      try {
        const task = withOwn(batch, [program, '--kubeconfig', file])
        return noting(label, await here<Record<string, Came>>('commands.ts', task))
      } finally {
        rmSync(file)
      }
    },
    ask: async (asks) => {
      const token = await mintRunnerToken(facts.oidc, { sub: PIPELINE.sub })
      const origin = `${await brokerUrl()}/clusters/${PIPELINE.cluster}`
      const task: Asking = { origin, caFile: facts.caFile, token, asks }
      return noting(label, await here<Record<string, Answer>>('answers.ts', JSON.stringify(task)))
    },
  }
}

/** Straight to the API server, as its administrator; nothing of it is kept. */
export async function straight(batch: Batch): Promise<Readonly<Record<string, Came>>> {
  const own = [facts.kubectl, '--kubeconfig', facts.kubeconfig]
  return here<Record<string, Came>>('commands.ts', withOwn(batch, own))
}

/** Names of each kubectl in the agents' image, the oldest first, with its file on this machine. */
export function kubectlPrograms(): readonly { readonly program: string; readonly file: string }[] {
  const files = allKubectls()
  return files.map(({ file, minor }, at) => {
    const between = at === files.length - 1 ? 'kubectl-new' : `kubectl-1.${minor}`
    return { program: at === 0 ? 'kubectl-old' : between, file }
  })
}

/** The body of an answer, as text. */
export function bodyOf(answer: Answer | undefined): string {
  return Buffer.from(answer?.body ?? '', 'base64').toString()
}

/** A Secret as it is in etcd. */
export interface Stored {
  readonly metadata: { readonly resourceVersion: string; readonly labels?: Record<string, string> }
  readonly data: Readonly<Record<string, string>>
}

/** Reads a Secret as the administrator. */
export async function stored(name: string, namespace: string): Promise<Stored> {
  return JSON.parse(await admin(['-n', namespace, 'get', 'secret', name, '-o', 'json'])) as Stored
}
