/**
 * A witness of the broker's ledger in each pod: it remembers the last checkpoint, and each minute has the broker prove that
 * the ledger goes on from it (C2SP tlog-witness's form of such a proof). A broker whose ledger was put back, or that shows
 * another history than before, cannot; that is said aloud, and goes on being said, for what once happened to evidence does
 * not become good again. Requests are served all the same: the broker decides what happens to them, and is not trusted less
 * by refusing everything.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { isRecord } from '../shared/config-source.ts'
import { messageOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { decodeHash } from '../shared/transparency/base64.ts'
import { verifyCheckpoint } from '../shared/transparency/checkpoint.ts'
import { parseNote, parseVkey } from '../shared/transparency/note.ts'
import type { NoteKey } from '../shared/transparency/note.ts'
import { verifyConsistency } from '../shared/transparency/tree.ts'
import type { BrokerConnections } from './broker-connections.ts'

/** Time between two looks, in milliseconds; each is up to a quarter longer, so that pods do not all ask at once. */
const EVERY_MS = 60_000
const MAX_JITTER = 0.25
/** How long a broker may be behind another one of the same ledger, in milliseconds: then it is asked again. */
const BEHIND_MS = 5_000
/** Tries before a smaller ledger is believed to be one. */
const MAX_TRIES = 4
/** Time for an answer, in milliseconds, and its largest size, in bytes: 63 hashes and a checkpoint of a few keys. */
const ANSWER_LIMIT_MS = 10_000
const MAX_ANSWER_BYTES = 65_536
/** Most keys that are taken from a broker. */
const MAX_KEYS = 100
const CONFLICT = 409

/** What is known of the ledger. */
export interface Witnessed {
  /** Size of the last checkpoint that fitted; 0 before the first. */
  readonly size: number
  /** What did not fit, in words; undefined while all did. */
  readonly problem: string | undefined
}

/** See the head of the file. */
export interface Witness {
  /** Looks again and again until `signal` ends it; never throws. */
  watch(signal: AbortSignal): Promise<void>
  /** One look. @returns false where there was no answer that says anything */
  look(signal: AbortSignal): Promise<boolean>
  state(): Witnessed
}

/** What a witness needs. */
export interface WitnessDeps {
  readonly connections: Pick<BrokerConnections, 'ask'>
  /** Verifier keys of the ledger; when empty, those that the broker names first are believed. */
  readonly vkeys: readonly string[]
  readonly log: Log
  /** Time between looks and tries; tests make it short. */
  readonly everyMs?: number
  readonly behindMs?: number
}

interface Seen {
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
}

type Answer =
  | {
      readonly kind: 'checkpoint'
      readonly old: number
      readonly hashes: readonly Uint8Array[]
      readonly note: string
    }
  | { readonly kind: 'smaller' }
  | { readonly kind: 'silent' }
  | { readonly kind: 'odd'; readonly problem: string }

/** @throws nothing: keys that cannot be read are told with the first look */
export function createWitness(deps: WitnessDeps): Witness {
  return new LedgerWitness(deps)
}

class LedgerWitness implements Witness {
  readonly #deps: WitnessDeps
  #keys: readonly NoteKey[]
  #seen: Seen | undefined
  #problem: string | undefined

  constructor(deps: WitnessDeps) {
    this.#deps = deps
    this.#keys = keysOf(deps.vkeys)
  }

  state(): Witnessed {
    return { size: this.#seen?.size ?? 0, problem: this.#problem }
  }

  async watch(signal: AbortSignal): Promise<void> {
    const { everyMs = EVERY_MS } = this.#deps
    while (!signal.aborted) {
      await this.look(signal)
      await pause(everyMs * (1 + Math.random() * MAX_JITTER), signal)
    }
  }

  async look(signal: AbortSignal): Promise<boolean> {
    const { behindMs = BEHIND_MS } = this.#deps
    if (this.#keys.length === 0) await this.#learnKeys(signal)
    if (this.#keys.length === 0) return false
    let answer = await this.#ask(signal)
    for (let tries = 1; answer.kind === 'smaller' && tries < MAX_TRIES; tries += 1) {
      await pause(behindMs, signal)
      if (signal.aborted) return false
      answer = await this.#ask(signal)
    }
    if (answer.kind === 'silent') return false
    const problem = this.#check(answer)
    if (problem !== undefined) this.#say(problem)
    else if (answer.kind === 'checkpoint') await this.#learnFurther(answer.note, signal)
    return true
  }

  /** @returns what does not fit, in words */
  #check(answer: Exclude<Answer, { kind: 'silent' }>): string | undefined {
    const seen = this.#seen
    if (answer.kind === 'smaller')
      return `the ledger has become smaller than the ${seen?.size ?? 0} entries that were signed`
    if (answer.kind === 'odd') return answer.problem
    const verified = verifyCheckpoint(answer.note, this.#keys, seen?.origin)
    if (verified.problem !== undefined) return verified.problem
    const { origin, size, root } = verified.value
    if (seen !== undefined && seen.size > 0) {
      if (answer.old !== seen.size) return 'the broker proves something else than was asked'
      if (!verifyConsistency(seen.size, size, answer.hashes, seen.root, root))
        return `the ledger of ${size} entries does not begin with the ${seen.size} that were signed before`
    }
    this.#seen = { origin, size, root }
    return undefined
  }

  #say(problem: string): void {
    this.#problem ??= problem
    this.#deps.log.error(
      { problem, known: this.#seen?.size ?? 0 },
      'THE LEDGER OF THE BROKER IS NOT WHAT IT WAS: its evidence was changed, put back or forked',
    )
  }

  async #ask(signal: AbortSignal): Promise<Answer> {
    const size = this.#seen?.size ?? 0
    const reply = await this.#get(`/v1/ledger/consistency?from=${size}`, signal)
    if (reply === undefined) return { kind: 'silent' }
    if (reply.status === CONFLICT && size > 0) return { kind: 'smaller' }
    if (reply.status !== 200) return { kind: 'silent' }
    return readAnswer(reply.text)
  }

  /** Believes the keys that the broker names, as nothing else is known of it. */
  async #learnKeys(signal: AbortSignal): Promise<void> {
    const reply = await this.#get('/v1/ledger/keys', signal)
    if (reply?.status !== 200) return
    this.#keys = keysOf(namedKeys(reply.text))
    if (this.#keys.length > 0)
      this.#deps.log.info(
        { keys: this.#keys.map(({ vkey }) => vkey) },
        'the ledger’s keys are believed',
      )
  }

  /** A key that signs beside a known one is known from then on: so keys change without alarm. Not where keys were given. */
  async #learnFurther(note: string, signal: AbortSignal): Promise<void> {
    const parsed = parseNote(note)
    if (this.#deps.vkeys.length > 0 || parsed.problem !== undefined) return
    const ids = new Set(this.#keys.map(({ id }) => id))
    if (parsed.value.signatures.every(({ id }) => ids.has(id))) return
    const reply = await this.#get('/v1/ledger/keys', signal)
    if (reply?.status !== 200) return
    const fresh = keysOf(namedKeys(reply.text)).filter(
      (key) => !ids.has(key.id) && verifyCheckpoint(note, [key]).problem === undefined,
    )
    this.#keys = [...this.#keys, ...fresh].slice(-MAX_KEYS)
  }

  async #get(
    path: string,
    signal: AbortSignal,
  ): Promise<{ readonly status: number; readonly text: string } | undefined> {
    try {
      const reply = await this.#deps.connections.ask({
        ...{ method: 'GET', path, headers: {}, signal },
        ...{ limitMs: ANSWER_LIMIT_MS, maxBytes: MAX_ANSWER_BYTES },
      })
      // a broker that has something to hide need only refuse: nobody must take that for a ledger that fits
      const { status } = reply
      if (status !== 200 && status !== CONFLICT)
        this.#deps.log.warn({ status }, 'the ledger could not be looked at')
      return reply
    } catch (error) {
      this.#deps.log.warn({ error: messageOf(error) }, 'the ledger could not be looked at')
      return undefined
    }
  }
}

/** `old SIZE`, hashes, an empty line, the checkpoint. */
function readAnswer(text: string): Answer {
  const end = text.indexOf('\n\n')
  const odd = { kind: 'odd', problem: 'the proof of the broker cannot be read' } as const
  if (end === -1) return odd
  const [first = '', ...lines] = text.slice(0, end).split('\n')
  const old = /^old (\d{1,16})$/.exec(first)?.[1]
  const hashes = lines.map(decodeHash)
  const known = hashes.filter((hash) => hash !== undefined)
  if (old === undefined || known.length !== hashes.length) return odd
  return { kind: 'checkpoint', old: Number(old), hashes: known, note: text.slice(end + 2) }
}

function namedKeys(text: string): readonly string[] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return []
  }
  const list: readonly unknown[] =
    isRecord(value) && Array.isArray(value['keys']) ? value['keys'] : []
  return list.slice(-MAX_KEYS).flatMap((key) => {
    // one that signs no more is not believed: whoever has it still could sign another history
    const vkey = isRecord(key) && key['until'] === undefined ? key['vkey'] : undefined
    return typeof vkey === 'string' ? [vkey] : []
  })
}

function keysOf(vkeys: readonly string[]): readonly NoteKey[] {
  return vkeys.flatMap((vkey) => {
    const parsed = parseVkey(vkey)
    return parsed.problem === undefined ? [parsed.value] : []
  })
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(ms, undefined, { signal, ref: false })
  } catch {
    // the end was asked for
  }
}
