/**
 * Copies of checkpoints where the broker's keeper cannot take them back: a directory, a bucket with an S3 API (Object
 * Lock), an outside witness (C2SP tlog-witness), which signs only what goes on from what it signed before. A mirror that
 * fails is told in the log and gets the next checkpoint; nothing waits for it.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AwsV4Signer } from 'aws4fetch'
import { Agent, request } from 'undici'
import { z } from 'zod'
import { codeOf, Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { readPrivateFile } from '../../shared/private-file.ts'
import { encodeBase64 } from '../../shared/transparency/base64.ts'
import { parseDecimal } from '../../shared/transparency/checkpoint.ts'
import { parseVkey, TYPE_COSIGNATURE, verifyNote } from '../../shared/transparency/note.ts'
import type { StoredCheckpoint } from '../store/store.ts'
import type { Checkpoints } from './checkpoints.ts'

/** Longest time between two copies, in seconds. */
const MAX_EVERY_S = 86_400
/** Longest wait for an answer, in milliseconds, and the longest that is read, in bytes. */
const ANSWER_MS = 10_000
const MAX_ANSWER_BYTES = 65_536
const CREATED: ReadonlySet<number> = new Set([200, 201, 204])
const CONFLICT = 409
const PRECONDITION_FAILED = 412
/** Digits of a size in a name, so that names sort as sizes do: 2^53 has 16. */
const SIZE_DIGITS = 16

const text = z.string().min(1)
const httpsUrl = z.url({ protocol: /^https?$/, error: 'expected an https URL' })

function isWitnessKey(vkey: string): boolean {
  const parsed = parseVkey(vkey)
  return parsed.problem === undefined && parsed.value.type === TYPE_COSIGNATURE
}

/** A mirror's settings. */
export const mirrorSchema = z.union([
  z.strictObject({
    /** A folder, which must exist; best on storage of another keeper. */
    directory: text,
  }),
  z.strictObject({
    s3: z.strictObject({
      /** Of the bucket: `https://BUCKET.HOST` or `https://HOST/BUCKET`. */
      url: httpsUrl,
      /** Before each name. */
      prefix: z.string().default(''),
      region: text.default('us-east-1'),
      /** A file with the key's id in the first line and the secret in the second. */
      keyFile: text,
      caFile: text.optional(),
    }),
  }),
  z.strictObject({
    witness: z.strictObject({
      /** Before `/add-checkpoint`. */
      url: httpsUrl,
      /** Its verifier key (cosignature/v1). */
      vkey: text.refine(isWitnessKey, 'expected a verifier key of a witness'),
      caFile: text.optional(),
    }),
  }),
])

/** How often checkpoints are copied, and where to. */
export const mirrorsSchema = z.strictObject({
  everySeconds: z.int().min(1).max(MAX_EVERY_S).default(60),
  to: z.array(mirrorSchema).default([]),
})

/** See {@link mirrorsSchema}. */
export type MirrorsSettings = z.infer<typeof mirrorsSchema>
/** See {@link mirrorSchema}. */
export type MirrorSettings = z.infer<typeof mirrorSchema>

/** One mirror. Rejects where it did not take the checkpoint. */
export interface Mirror {
  readonly name: string
  readonly put: (checkpoint: StoredCheckpoint) => Promise<void>
  readonly close: () => Promise<void>
}

/** The mirrors, running. */
export interface Mirrors {
  /** Checkpoints as witnesses signed them, the newest of each. */
  cosigned(): readonly string[]
  close(): Promise<void>
}

/** Begins to copy. @param checkpoints - what is signed */
export function startMirrors(
  { everySeconds, to }: MirrorsSettings,
  checkpoints: Pick<Checkpoints, 'current' | 'consistency'>,
  log: Logger,
): Mirrors {
  const cosigned = new Map<string, string>()
  const mirrors = to.map((settings) => createMirror(settings, checkpoints, cosigned))
  const done = new Map<Mirror, number>()
  const busy = new Set<Mirror>()
  const copy = async (mirror: Mirror): Promise<void> => {
    if (busy.has(mirror)) return
    busy.add(mirror)
    try {
      // not the last one of this broker: another one may have shown a larger ledger to the same witness meanwhile
      const checkpoint = await checkpoints.current()
      if (done.get(mirror) === checkpoint.size) return
      await mirror.put(checkpoint)
      done.set(mirror, checkpoint.size)
    } catch (error) {
      const { name } = mirror
      log.error({ mirror: name, error: messageOf(error) }, 'a mirror did not take the checkpoint')
    } finally {
      busy.delete(mirror)
    }
  }
  const copyAll = (): void => {
    for (const mirror of mirrors) void copy(mirror)
  }
  const timer = setInterval(copyAll, everySeconds * 1000)
  timer.unref()
  copyAll()
  return {
    cosigned: () => [...cosigned.values()],
    async close() {
      clearInterval(timer)
      await Promise.all(mirrors.map((mirror) => mirror.close()))
    },
  }
}

/** Makes one mirror; a witness puts what it signed into `cosigned`, by its name. */
export function createMirror(
  settings: MirrorSettings,
  checkpoints: Pick<Checkpoints, 'consistency'>,
  cosigned: Map<string, string>,
): Mirror {
  if ('directory' in settings) return directoryMirror(settings.directory)
  if ('s3' in settings) return s3Mirror(settings.s3)
  return witnessMirror(settings.witness, checkpoints, cosigned)
}

/** Name of a checkpoint's copy. */
function nameOf({ size }: StoredCheckpoint): string {
  return `${String(size).padStart(SIZE_DIGITS, '0')}.checkpoint`
}

function directoryMirror(directory: string): Mirror {
  return {
    name: directory,
    async put(checkpoint) {
      const file = join(directory, nameOf(checkpoint))
      try {
        await writeFile(file, checkpoint.note, { flag: 'wx', mode: 0o644, flush: true })
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error
        mustBeSame(await readFile(file, 'utf8'), checkpoint)
      }
    },
    close: () => Promise.resolve(),
  }
}

/** What is there of this size already must be of the same tree: else the ledger has two histories. */
function mustBeSame(there: string, { note, size }: StoredCheckpoint): void {
  const bodyOf = (whole: string): string => whole.slice(0, whole.indexOf('\n\n'))
  if (bodyOf(there) !== bodyOf(note))
    throw new Fault('ledger_rolled_back', `the mirror has another checkpoint of size ${size}`)
}

function s3Mirror({ url, prefix, region, keyFile, caFile }: S3Settings): Mirror {
  const agent = createAgent(caFile)
  const ask = async (
    method: 'PUT' | 'GET',
    checkpoint: StoredCheckpoint,
  ): Promise<{ status: number; text: string }> => {
    const [accessKeyId = '', secretAccessKey = ''] = (await readPrivateFile(keyFile)).split('\n')
    const sent =
      method === 'GET'
        ? {}
        : {
            headers: { 'content-type': 'text/plain', 'if-none-match': '*' },
            body: checkpoint.note,
          }
    const signer = new AwsV4Signer({
      ...{ method, url: `${url.replace(/\/$/, '')}/${prefix}${nameOf(checkpoint)}`, ...sent },
      ...{ accessKeyId: accessKeyId.trim(), secretAccessKey: secretAccessKey.trim() },
      ...{ service: 's3', region },
    })
    const signed = await signer.sign()
    const { statusCode, body } = await request(signed.url, {
      ...{ method, dispatcher: await agent, headers: Object.fromEntries(signed.headers) },
      ...{ ...(sent.body === undefined ? {} : { body: sent.body }) },
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    return { status: statusCode, text: await textOf(body) }
  }
  return {
    name: url,
    async put(checkpoint) {
      // one that is there stays: the name says the size, and the ledger has one tree of a size
      const put = await ask('PUT', checkpoint)
      if (CREATED.has(put.status)) return
      const isThere = put.status === PRECONDITION_FAILED
      const got = isThere ? await ask('GET', checkpoint) : put
      if (!isThere || got.status !== 200)
        throw new Fault('mirror_failed', `the bucket answered ${got.status}`)
      mustBeSame(got.text, checkpoint)
    },
    close: async () => (await agent).close(),
  }
}

type S3Settings = Extract<MirrorSettings, { s3: unknown }>['s3']
type WitnessSettings = Extract<MirrorSettings, { witness: unknown }>['witness']

function witnessMirror(
  { url, vkey, caFile }: WitnessSettings,
  checkpoints: Pick<Checkpoints, 'consistency'>,
  cosigned: Map<string, string>,
): Mirror {
  const agent = createAgent(caFile)
  // what it signed last, as far as is known; it says so itself where this is wrong
  let old = 0
  const ask = async ({
    size,
    note,
  }: StoredCheckpoint): Promise<{ status: number; text: string }> => {
    const hashes = old === 0 ? [] : await checkpoints.consistency(old, size)
    const lines = [`old ${old}`, ...hashes.map(encodeBase64), '', note]
    const { statusCode, body } = await request(`${url.replace(/\/$/, '')}/add-checkpoint`, {
      ...{ method: 'POST', dispatcher: await agent, body: lines.join('\n') },
      signal: AbortSignal.timeout(ANSWER_MS),
    })
    return { status: statusCode, text: await textOf(body) }
  }
  return {
    name: url,
    async put(checkpoint) {
      let reply = await ask(checkpoint)
      const known = reply.status === CONFLICT ? parseDecimal(reply.text.trim()) : undefined
      if (known !== undefined) {
        if (known > checkpoint.size)
          throw new Fault(
            'ledger_rolled_back',
            `the witness has signed ${known} entries, the ledger has ${checkpoint.size}`,
          )
        old = known
        reply = await ask(checkpoint)
      }
      if (reply.status !== 200)
        throw new Fault('mirror_failed', `the witness answered ${reply.status}`)
      const note = `${checkpoint.note}${reply.text}`
      mustBeCosigned(note, vkey)
      old = checkpoint.size
      cosigned.set(vkey, note)
    },
    close: async () => (await agent).close(),
  }
}

/** The witness' own line, over this very checkpoint. */
function mustBeCosigned(note: string, vkey: string): void {
  const key = parseVkey(vkey)
  if (key.problem !== undefined) throw new Fault('mirror_failed', key.problem)
  const { problem } = verifyNote(note, [key.value])
  if (problem !== undefined) throw new Fault('mirror_failed', `the witness’ answer: ${problem}`)
}

/** An answer, which no honest mirror makes long. */
async function textOf(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body) {
    bytes += part.length
    if (bytes > MAX_ANSWER_BYTES) throw new Fault('mirror_failed', 'the answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

async function createAgent(caFile: string | undefined): Promise<Agent> {
  return caFile === undefined
    ? new Agent()
    : new Agent({ connect: { ca: await readFile(caFile, 'utf8') } })
}
