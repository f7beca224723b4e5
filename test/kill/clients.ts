/** Clients that ask without end, and remember what they were answered; and an auditor who remembers what the broker showed. */
import { request } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { reasonInStatus } from '../../shared/status.ts'
import { MODES, WORK } from '../modes/running.ts'
import type { Answer, Line, ModeName, RunningModes } from '../modes/running.ts'

/** A client whose connection was refused comes back after this time, in milliseconds. */
const AGAIN_MS = 120
/** How often the auditor reads, in milliseconds, and how much. */
const AUDIT_MS = 120
const AUDIT_PAGE = 200
/** Longest wait for the answer to an upgrade, in milliseconds. */
const UPGRADE_LIMIT_MS = 10_000

const MAPS = `/api/v1/namespaces/${WORK}/configmaps`
const POD = `/api/v1/namespaces/${WORK}/pods/nobody`

/** What is asked for. */
export type Deed = 'create' | 'patch' | 'delete' | 'get' | 'list' | 'proxy' | 'portforward' | 'hold'

/** An answer that a client had whole. */
export interface Answered {
  readonly deed: Deed
  readonly mode: ModeName
  readonly status: number
  /** As the answer's head says; empty where it does not. */
  readonly requestId: string
  /** Our reason, where it is a refusal of ours. */
  readonly reason: string | undefined
}

/** What came of all. */
export interface Seen {
  asked: number
  readonly answered: Answered[]
  /** By sequence number: entries as the broker showed them, as JSON. */
  readonly shown: Map<number, string>
}

/** @param isOver - tells clients to stop asking; settles when the last has */
export async function clients(
  modes: RunningModes,
  random: () => number,
  count: number,
  isOver: () => boolean,
): Promise<Seen> {
  const seen: Seen = { asked: 0, answered: [], shown: new Map() }
  const names: Names = { next: 0, made: [] }
  const one = async (): Promise<void> => {
    while (!isOver()) {
      const deed = pick(random, DEEDS)
      const mode = pick(random, MODES)
      seen.asked += 1
      try {
        const { status, requestId, text } = await ask(modes, mode, deed, random, names)
        seen.answered.push({ deed, mode, status, requestId, reason: reasonInStatus(text) })
      } catch {
        await sleep(AGAIN_MS)
      }
    }
  }
  const loops = Array.from({ length: count }, one)
  await Promise.all([...loops, auditor(modes, seen, isOver)])
  return seen
}

/** Of config maps: the next one's number, and those that are there. */
interface Names {
  next: number
  readonly made: string[]
}

/** More of what has effects. */
const DEEDS: readonly Deed[] = [
  ...(['create', 'create', 'create', 'patch', 'patch', 'delete', 'delete'] as const),
  ...(['get', 'get', 'list', 'proxy', 'proxy', 'portforward', 'hold'] as const),
]

function pick<T>(random: () => number, from: readonly T[]): T {
  const found = from[Math.floor(random() * from.length)]
  if (found === undefined) throw new Error('nothing to pick from')
  return found
}

async function ask(
  modes: RunningModes,
  mode: ModeName,
  deed: Deed,
  random: () => number,
  names: Names,
): Promise<Answer> {
  const call = (path: string, line?: Line): Promise<Answer> => modes.call(mode, path, line)
  const some = `${MAPS}/${names.made.length === 0 ? 'none' : pick(random, names.made)}`
  switch (deed) {
    case 'create': {
      const name = `k-${names.next}`
      names.next += 1
      const answer = await call(MAPS, { method: 'POST', body: { metadata: { name } } })
      if (answer.status === 201) names.made.push(name)
      return answer
    }
    case 'patch': {
      const contentType = 'application/merge-patch+json'
      return call(some, { method: 'PATCH', contentType, body: { data: { a: String(random()) } } })
    }
    case 'delete':
      // of one that may be there; it is asked for once
      return call(`${MAPS}/${names.made.shift() ?? 'none'}`, { method: 'DELETE' })
    case 'get':
      return call(some)
    case 'list':
      return call(`${MAPS}?limit=5`)
    case 'proxy':
      return call(`${POD}/proxy/x`)
    case 'portforward':
      return upgrade(modes, mode, `${POD}/portforward`)
    case 'hold': {
      const name = `held-${names.next}`
      names.next += 1
      return call(`${MAPS}/${name}`, {
        method: 'DELETE',
        headers: { 'nestgate-approval': 'return' },
      })
    }
  }
}

async function upgrade(modes: RunningModes, mode: ModeName, path: string): Promise<Answer> {
  const token = await modes.pipelineToken()
  return new Promise((resolve, reject) => {
    const sent = request(
      `${modes.brokerUrl}/clusters/${mode}${path}`,
      {
        method: 'POST',
        ca: modes.brokerCa,
        agent: false,
        timeout: UPGRADE_LIMIT_MS,
        headers: {
          authorization: `Bearer ${token}`,
          connection: 'Upgrade',
          upgrade: 'SPDY/3.1',
          'x-stream-protocol-version': 'portforward.k8s.io',
        },
      },
      (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
        answer.once('error', reject)
        answer.once('aborted', () => {
          reject(new Error('cut'))
        })
        answer.once('end', () => {
          const id = answer.headers['nestgate-request-id']
          const requestId = typeof id === 'string' ? id : ''
          resolve({ status: answer.statusCode ?? 0, text, requestId })
        })
      },
    )
    sent.once('upgrade', (_answer, socket) => {
      socket.destroy()
      reject(new Error('a session with nobody'))
    })
    sent.once('timeout', () => sent.destroy(new Error('no answer')))
    sent.once('error', reject)
    sent.end()
  })
}

/** Whatever was shown once must be there for good, in the same place. */
async function auditor(modes: RunningModes, seen: Seen, isOver: () => boolean): Promise<void> {
  while (!isOver()) {
    await sleep(AUDIT_MS)
    try {
      const { status, text } = await modes.api('otto', `/v1/audit/events?limit=${AUDIT_PAGE}`)
      if (status !== 200) continue
      const { items } = JSON.parse(text) as { items: { seq: number; entry: object }[] }
      for (const { seq, entry } of items) {
        const now = JSON.stringify(entry)
        const before = seen.shown.get(seq)
        // two answers that differ are told by the one that is not in the ledger at the end
        if (before === undefined || before === now) seen.shown.set(seq, now)
        else seen.shown.set(seq + 0.5, now)
      }
    } catch {
      // killed
    }
  }
}
