/** Recordings in a folder and a store of their own, and sessions to put into them. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openRecordings } from '../../broker/sessions/recordings/open.ts'
import type { OpenRecordings, RecordingsDeps } from '../../broker/sessions/recordings/open.ts'
import { sessionsSchema } from '../../broker/sessions/recordings/settings.ts'
import type { EventRange, RecordingReader } from '../../broker/sessions/recordings/reader.ts'
import type { Ended } from '../../broker/sessions/recordings/types.ts'
import type { Store } from '../../broker/store/store.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { encodeEvent, EVENT } from '../../shared/recording/events.ts'
import type { SessionFacts, SessionTotals } from '../../shared/recording/session-wire.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { newFile, open, SILENT } from './sqlite-store.ts'

/** Terms as policy gives them where a rule says nothing. */
export const TERMS: Recording = {
  ...{ mode: 'required', orDefault: false, stdin: false, mask: true, files: false },
  ...{ tunnelBytes: 0, maxBytes: 1024 * 1024 * 1024 },
}

export const TOTALS: SessionTotals = {
  ...{ stdinBytes: 0, stdoutBytes: 5, stderrBytes: 0, connections: 0, bytesUp: 0, bytesDown: 0 },
  ...{ files: 0, masked: 0, truncated: false },
}

/** A program that ended well. */
export const ENDED: Ended = { result: { status: 'Success', exitCode: 0 }, totals: TOTALS }

export function facts(change: Partial<SessionFacts> = {}): SessionFacts {
  return {
    ...{
      id: newRequestId(Date.now()),
      kind: 'exec',
      cluster: 'dev',
      namespace: 'web',
      name: 'shop',
    },
    ...{
      container: 'app',
      command: ['sh'],
      tty: false,
      stdin: false,
      subject: 'ada',
      rules: ['r'],
    },
    ...{ policyDigest: '0'.repeat(64), protocol: 'v5.channel.k8s.io' },
    ...{ startedAt: new Date().toISOString(), ...change },
  }
}

/** An event of output. */
export function output(content: string | Uint8Array, atUs = 0): Buffer {
  return encodeEvent(EVENT.stdout, atUs, Buffer.from(content))
}

/** See the head of the file. */
export interface RecordingWorld {
  readonly dataDir: string
  readonly store: Store
  readonly recordings: OpenRecordings
  /** As a broker that is started again in the same folder would open them. */
  again(settings?: object, change?: Partial<RecordingsDeps>): Promise<OpenRecordings>
  /** Files of a session in the spool, by name. */
  spooled(id: string): readonly string[]
  close(): Promise<void>
}

export async function recordingWorld(
  settings: object = {},
  change: Partial<RecordingsDeps> = {},
): Promise<RecordingWorld> {
  const dataDir = change.dataDir ?? mkdtempSync(join(tmpdir(), 'nestgate-recordings-'))
  const database = newFile()
  const store = await open(database.file)
  const opened: OpenRecordings[] = []
  const again: RecordingWorld['again'] = async (other = settings, more = change) => {
    const deps = { store, dataDir, log: SILENT, now: Date.now, freeBytes: plenty, ...more }
    const recordings = await openRecordings(sessionsSchema.parse(other), deps)
    opened.push(recordings)
    return recordings
  }
  return {
    ...{ dataDir, store, recordings: await again(), again },
    spooled(id) {
      try {
        return readdirSync(join(dataDir, 'recordings', id)).sort()
      } catch {
        return []
      }
    },
    async close() {
      for (const one of opened) await one.close()
      await store.close()
      database.remove()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

const plenty = (): Promise<number> => Promise.resolve(2 ** 50)

/** The bytes of a spooled segment. */
export function segmentBytes(dataDir: string, id: string, name: string): Buffer {
  return readFileSync(join(dataDir, 'recordings', id, name))
}

/** Entries about a session, the oldest first. */
export async function entriesOf(
  store: Store,
  id: string,
): Promise<readonly Record<string, unknown>[]> {
  return (await store.events({ requestId: id }, 100)).map(({ entry }) => entry).reverse()
}

/** Waits for it. @returns what it gives that is not false and not undefined */
export async function until<T>(what: () => T | Promise<T>): Promise<Exclude<T, false | undefined>> {
  const endMs = Date.now() + 10_000
  for (;;) {
    try {
      const value = await what()
      if (value !== false && value !== undefined) return value as Exclude<T, false | undefined>
    } catch (error) {
      if (Date.now() > endMs) throw error
    }
    if (Date.now() > endMs) throw new Error('it did not come')
    await sleep(5)
  }
}

/** The events of a recording; throws where it is refused. */
export async function readAll(
  recordings: RecordingReader,
  id: string,
  range?: EventRange,
): Promise<Buffer> {
  return joined(await recordings.events(id, range))
}

/** The stored chunks. */
export async function sealedOf(recordings: RecordingReader, id: string): Promise<Buffer> {
  return joined(await recordings.sealed(id))
}

async function joined(found: AsyncIterable<Buffer> | Refusal): Promise<Buffer> {
  if (isRefusal(found)) throw new Error(found.refused)
  const parts: Buffer[] = []
  for await (const part of found) parts.push(part)
  return Buffer.concat(parts)
}

/** In pieces that fit nothing. */
export async function* pieces(bytes: Buffer): AsyncIterable<Buffer> {
  for (let at = 0; at < bytes.length; at += 9_973)
    yield await Promise.resolve(bytes.subarray(at, at + 9_973))
}
