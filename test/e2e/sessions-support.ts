/** What the tests of sessions share: where sessions go to, who opens them, and what was recorded of them. */
import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { allKubectls } from '../../scripts/cluster.ts'
import { attempt, eventually } from '../../scripts/run.ts'
import { EVENT, EVENT_HEADER_BYTES } from '../../shared/recording/events.ts'
import type { EventName } from '../../shared/recording/events.ts'
import { sessionPageSchema } from '../../shared/recording/session-wire.ts'
import type { Session } from '../../shared/recording/session-wire.ts'
import type { Did, Errand, Seen } from './agents/sessions.ts'
import { BROKER_IP, BROKER_PORT } from './issued.ts'
import {
  admin,
  agentContainer,
  apply,
  brokerUrl,
  facts,
  fromBroker,
  NAMESPACE,
  namespaceObject,
  pipelineKubeconfig,
  prepare,
  RESTRICTED,
  runAgent,
} from './support.ts'

/** Where sessions go to; not labelled. */
export const SESSIONS_NAMESPACE = 'e2e-sessions'
/** Pods there: recorded by default, whole, not at all, and only once approved. */
export const TARGETS = ['target', 'whole', 'unrecorded', 'held'] as const
/** Whom a direct client's token is of. */
export const DIRECT_SUBJECT = 'ci:repo:shop'

/** A kubectl, and how it is told which protocol to speak. */
export interface SessionClient {
  readonly label: string
  /** In the agents' image. */
  readonly program: string
  /** On this machine. */
  readonly file: string
  readonly env: Readonly<Record<string, string>>
}

/** Before this minor version kubectl has no WebSocket to choose. */
const WEBSOCKET_MINOR = 29

function protocolEnv(value: 'true' | 'false'): Readonly<Record<string, string>> {
  return { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: value, KUBECTL_PORT_FORWARD_WEBSOCKETS: value }
}

/** Each kubectl there is, with each protocol that it has, the oldest first. */
export function sessionClients(): readonly SessionClient[] {
  const all = allKubectls()
  return all.flatMap(({ file, minor }, at) => {
    const between = at === all.length - 1 ? 'kubectl-new' : `kubectl-1.${minor}`
    const own = { program: at === 0 ? 'kubectl-old' : between, file }
    const name = minor === 0 ? 'kubectl' : `kubectl 1.${minor}`
    const spdy = { label: `${name} over SPDY`, ...own, env: protocolEnv('false') }
    if (minor !== 0 && minor < WEBSOCKET_MINOR) return [spdy]
    return [spdy, { label: `${name} over WebSocket`, ...own, env: protocolEnv('true') }]
  })
}

function editBinding(name: string, subject: object): object {
  const rbac = 'rbac.authorization.k8s.io'
  return {
    apiVersion: `${rbac}/v1`,
    kind: 'RoleBinding',
    metadata: { name, namespace: SESSIONS_NAMESPACE },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'edit' },
    subjects: [subject],
  }
}

function target(name: string): object {
  const script = '/agents/session-target.ts'
  const command = (more: readonly string[]): object => ({ command: ['node', script, ...more] })
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: SESSIONS_NAMESPACE },
    spec: {
      terminationGracePeriodSeconds: 0,
      containers: [
        { ...agentContainer('web'), ...command([]) },
        { ...agentContainer('echo'), ...command(['echo']), stdin: true },
      ],
    },
  }
}

let prepared: Promise<void> | undefined

/** Brings up the agents, and the pods that sessions go to; once for the whole suite. */
export function prepareSessions(): Promise<void> {
  prepared ??= bringUp()
  return prepared
}

async function bringUp(): Promise<void> {
  await prepare()
  const agent = { kind: 'ServiceAccount', name: 'agent', namespace: NAMESPACE }
  const deployers = { apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: 'deployers' }
  await apply(
    namespaceObject(SESSIONS_NAMESPACE, {}),
    editBinding('agent-edits', agent),
    editBinding('deployers-edit', deployers),
  )
  await apply(...TARGETS.map(target))
  const wait = ['wait', '--for=condition=Ready', 'pod', '--all', '--timeout=120s']
  await admin(['-n', SESSIONS_NAMESPACE, ...wait])
}

/** What was asked of an errand; the rest of it is the client's. */
export interface Wish {
  readonly marker: string
  readonly pod?: (typeof TARGETS)[number]
  readonly only?: readonly string[]
}

/** What came of an errand, by name. */
export type Done = Readonly<Record<string, Did>>

const inNamespace = ['-n', SESSIONS_NAMESPACE] as const
const SCRIPT = 'sessions.ts'

function errand(kubectl: readonly string[], client: SessionClient, wish: Wish): Errand {
  return { pod: 'target', ...wish, kubectl: [...kubectl, ...inNamespace], env: client.env }
}

/** From inside an injected pod, through its sidecar. */
export function throughSidecar(client: SessionClient, wish: Wish): Promise<Done> {
  const args = [JSON.stringify(errand([client.program], client, wish))]
  return runAgent<Done>(RESTRICTED.name, 'planner', SCRIPT, args)
}

async function here(kubeconfig: string, client: SessionClient, wish: Wish): Promise<Done> {
  const task = errand([client.file, '--kubeconfig', kubeconfig], client, wish)
  const file = join(import.meta.dirname, 'agents', SCRIPT)
  const ran = await attempt('node', [file, JSON.stringify(task)], { timeoutMs: 150_000 })
  if (ran.code !== 0) throw new Error(ran.stderr)
  return JSON.parse(ran.stdout) as Done
}

/** From this machine, by a kubeconfig that names the broker. */
export async function throughBroker(client: SessionClient, wish: Wish): Promise<Done> {
  const pipeline = { sub: 'repo:shop', cluster: 'local', namespace: SESSIONS_NAMESPACE }
  // the scripts' cluster has its node here: no port-forward of ours need carry the sessions
  const broker = facts.isIssuer ? `https://${BROKER_IP}:${BROKER_PORT}` : await brokerUrl()
  const file = await pipelineKubeconfig(pipeline, broker)
  try {
    return await here(file, client, wish)
  } finally {
    rmSync(file)
  }
}

/** From this machine, straight to the API server, as its administrator. */
export function straight(client: SessionClient, wish: Wish): Promise<Done> {
  return here(facts.kubeconfig, client, wish)
}

/** The sessions that match, newest first. @param filter - as of `GET /v1/sessions` */
export async function sessions(
  filter: Readonly<Record<string, string>>,
): Promise<readonly Session[]> {
  const found: Session[] = []
  let next: string | undefined
  do {
    const query = new URLSearchParams({ limit: '500', ...filter, ...(next && { cursor: next }) })
    const said = await fromBroker('auditor', `/v1/sessions?${query.toString()}`)
    const page = sessionPageSchema.parse(JSON.parse(said.toString()))
    found.push(...page.sessions)
    next = page.next
  } while (next !== undefined)
  return found
}

/** The sessions that match, once none of them runs any more. */
export function endedSessions(
  filter: Readonly<Record<string, string>>,
): Promise<readonly Session[]> {
  return eventually('the sessions’ end', 20_000, async () => {
    const found = await sessions(filter)
    return found.some(({ state }) => state === 'running') ? undefined : found
  })
}

/** One event of a recording. */
export interface Recorded {
  readonly name: EventName
  readonly atUs: number
  readonly payload: Buffer
}

const NAMES = new Map(Object.entries(EVENT).map(([name, type]) => [type, name as EventName]))

/** What was recorded of a session. */
export class Recording {
  readonly events: readonly Recorded[]

  constructor(events: readonly Recorded[]) {
    this.events = events
  }

  /** All payloads of a type, one behind the other. */
  bytes(name: EventName): Buffer {
    return Buffer.concat(this.events.filter((one) => one.name === name).map((one) => one.payload))
  }

  /** All payloads of a type, as JSON. */
  json(name: EventName): readonly Readonly<Record<string, unknown>>[] {
    return this.events
      .filter((one) => one.name === name)
      .map(({ payload }) => JSON.parse(payload.toString()) as Record<string, unknown>)
  }

  /** Whether a stream has exactly the bytes that somebody saw. */
  has(name: EventName, seen: Seen): boolean {
    return sameBytes(this.bytes(name), seen)
  }

  /** Whether a stream begins with the bytes that somebody saw, who left before its end. */
  beginsWith(name: EventName, seen: Seen): boolean {
    return sameBytes(this.bytes(name).subarray(0, seen.bytes), seen)
  }
}

function sameBytes(bytes: Buffer, seen: Seen): boolean {
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  return bytes.length === seen.bytes && sha256 === seen.sha256
}

/** Reads a recording's events from the broker. @throws an error where they are not whole events */
export async function recordingOf({ id }: Pick<Session, 'id'>): Promise<Recording> {
  const bytes = await fromBroker('auditor', `/v1/sessions/${id}/events`)
  const events: Recorded[] = []
  let at = 0
  while (at < bytes.length) {
    const type = bytes.readUInt8(at)
    const name = [...NAMES].find(([number]) => number === type)?.[1]
    if (name === undefined) throw new Error(`an event of type ${type}`)
    const from = at + EVENT_HEADER_BYTES
    const end = from + bytes.readUInt32BE(at + 7)
    if (end > bytes.length) throw new Error('an event that does not end')
    events.push({ name, atUs: bytes.readUIntBE(at + 1, 6), payload: bytes.subarray(from, end) })
    at = end
  }
  return new Recording(events)
}
