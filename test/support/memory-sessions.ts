/** Sessions in memory, of real events: for tests of what is made of them. */
import { createHash } from 'node:crypto'
import type {
  EventRange,
  RecordingReader,
  SessionFilter,
} from '../../broker/sessions/recordings/reader.ts'
import type { Killed } from '../../broker/sessions/recordings/types.ts'
import { encodeEvent, encodeOutput, encodeResize } from '../../shared/recording/events.ts'
import { encodeJsonEvent } from '../../shared/recording/payloads.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import type { Session, SessionPage } from '../../shared/recording/session-wire.ts'

/** Writes the events of one session. */
export class Tape {
  readonly pieces: Buffer[] = []

  constructor(session: Session) {
    const { id, kind, cluster, namespace, name, container, command, tty, startedAt } = session
    this.json('header', 0, {
      ...{ version: 1 as const, id, kind, cluster, namespace, name, tty, startedAt },
      ...(container === undefined ? {} : { container }),
      ...(command === undefined ? {} : { command }),
    })
  }

  get bytes(): Buffer {
    return Buffer.concat(this.pieces)
  }

  out(
    atUs: number,
    text: string | Uint8Array,
    stream: 'stdout' | 'stderr' | 'stdin' = 'stdout',
  ): this {
    this.pieces.push(...encodeOutput(stream, atUs, Buffer.from(text)))
    return this
  }

  resize(atUs: number, columns: number, rows: number): this {
    this.pieces.push(encodeResize(atUs, columns, rows))
    return this
  }

  json(...args: Parameters<typeof encodeJsonEvent>): this {
    this.pieces.push(encodeJsonEvent(...args))
    return this
  }

  raw(...args: Parameters<typeof encodeEvent>): this {
    this.pieces.push(encodeEvent(...args))
    return this
  }
}

export const TOTALS = {
  ...{ stdinBytes: 0, stdoutBytes: 0, stderrBytes: 0, connections: 0, bytesUp: 0, bytesDown: 0 },
  ...{ files: 0, masked: 0, truncated: false },
}

export function session(more: Partial<Session> = {}): Session {
  const startedAt = more.startedAt ?? '2026-11-26T12:00:00.000Z'
  return {
    ...{ id: newRequestId(Date.parse(startedAt)), kind: 'exec', cluster: 'main' },
    ...{ namespace: 'shop', name: 'web-1', container: 'app', command: ['sh', '-c', 'ls'] },
    ...{ tty: true, stdin: false, subject: 'alice', agent: 'deployer', chain: ['node', 'bash'] },
    ...{ rules: ['ops'], policyDigest: 'd'.repeat(64), protocol: 'v5.channel.k8s.io', startedAt },
    state: 'ended',
    recording: {
      ...{ mode: 'required', masked: true, stdin: false, chunks: 1, bytes: 0 },
      runningSha256: createHash('sha256').update(startedAt).digest('hex'),
    },
    ...more,
  }
}

interface Kept {
  session: Session
  bytes: Buffer
  /** Called when there is more, or the session is over. */
  readonly waiting: Set<() => void>
}

export class MemorySessions implements RecordingReader {
  readonly #kept = new Map<string, Kept>()
  /** How often a part of a recording was asked for. */
  pulls = 0
  /** Bytes of one piece; of a followed session it must hold whole events. */
  pieceBytes = 100_000
  /** Instead of any answer with bytes. */
  refusal: Refusal | undefined
  readonly kills: Killed[] = []
  /** Recordings that are being read. */
  open = 0

  add(one: Session, tape: Tape): Session {
    this.#kept.set(one.id, { session: one, bytes: tape.bytes, waiting: new Set() })
    return one
  }

  append(id: string, bytes: Uint8Array): void {
    const kept = this.#of(id)
    kept.bytes = Buffer.concat([kept.bytes, bytes])
    this.#wake(kept)
  }

  over(id: string, more: Partial<Session> = {}): void {
    const kept = this.#of(id)
    kept.session = { ...kept.session, state: 'ended', ...more }
    this.#wake(kept)
  }

  session(id: string): Promise<Session | undefined> {
    return Promise.resolve(this.#kept.get(id)?.session)
  }

  list(filter: SessionFilter, limit: number, before = '~'): Promise<SessionPage> {
    const { sinceMs = 0, untilMs = Infinity, ...texts } = filter
    const sessions = [...this.#kept.values()]
      .map((one) => one.session)
      .filter((one) =>
        Object.entries(texts).every(([key, value]) => Reflect.get(one, key) === value),
      )
      .filter((one) => Date.parse(one.startedAt) >= sinceMs && Date.parse(one.startedAt) < untilMs)
      .sort((a, b) => (a.id < b.id ? 1 : -1))
      .filter(({ id }) => id < before)
      .slice(0, limit)
    const last = sessions.at(-1)
    return Promise.resolve(
      sessions.length === limit && last !== undefined ? { sessions, next: last.id } : { sessions },
    )
  }

  size(id: string): Promise<number | Refusal> {
    return Promise.resolve(this.#refusalOf(id) ?? this.#of(id).bytes.length)
  }

  events(id: string, range?: EventRange): Promise<AsyncIterable<Buffer> | Refusal> {
    const refusal = this.#refusalOf(id)
    if (refusal !== undefined) return Promise.resolve(refusal)
    const { bytes } = this.#of(id)
    return Promise.resolve(
      this.#pieces(bytes.subarray(range?.from ?? 0, range?.to ?? bytes.length)),
    )
  }

  sealed(id: string): Promise<AsyncIterable<Buffer> | Refusal> {
    return Promise.resolve(this.#refusalOf(id) ?? this.#pieces(Buffer.from('sealed chunks')))
  }

  follow(
    id: string,
    from: number,
    listener: (events: Buffer) => void,
    onEnd?: (fault?: unknown) => void,
  ): Promise<(() => void) | Refusal> {
    const refusal = this.#refusalOf(id)
    if (refusal !== undefined) return Promise.resolve(refusal)
    const kept = this.#of(id)
    if (kept.session.state !== 'running') return Promise.resolve(refuse('session_over'))
    let at = from
    const tell = (): void => {
      const piece = kept.bytes.subarray(at)
      at += piece.length
      if (piece.length > 0) listener(piece)
      if (kept.session.state === 'running') return
      kept.waiting.delete(tell)
      onEnd?.()
    }
    kept.waiting.add(tell)
    tell()
    return Promise.resolve(() => {
      kept.waiting.delete(tell)
    })
  }

  async kill(id: string, by: Killed): Promise<Refusal | undefined> {
    const found = await this.session(id)
    if (found === undefined) return refuse('session_unknown')
    if (found.state !== 'running') return refuse('session_over')
    this.kills.push(by)
    this.over(id, { ending: 'killed' })
    return undefined
  }

  /** Followers of a session. */
  followers(id: string): number {
    return this.#of(id).waiting.size
  }

  #of(id: string): Kept {
    const kept = this.#kept.get(id)
    if (kept === undefined) throw new Error('no such session')
    return kept
  }

  #wake({ waiting }: Kept): void {
    for (const wake of waiting) wake()
  }

  #refusalOf(id: string): Refusal | undefined {
    const found = this.#kept.get(id)
    if (found === undefined) return refuse('session_unknown')
    if (this.refusal !== undefined) return this.refusal
    return found.session.recording === undefined ? refuse('session_unrecorded') : undefined
  }

  async *#pieces(bytes: Buffer): AsyncGenerator<Buffer> {
    this.open += 1
    try {
      for (let at = 0; at < bytes.length; at += this.pieceBytes) {
        this.pulls += 1
        // as from a disk
        await new Promise(setImmediate)
        yield bytes.subarray(at, at + this.pieceBytes)
      }
    } finally {
      this.open -= 1
    }
  }
}
