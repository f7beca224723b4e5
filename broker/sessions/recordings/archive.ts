/**
 * The archive: where segments are kept for good, a folder or a bucket with an S3 API. What is there is never written over: a segment of the same
 * name must have the same bytes.
 */
import { createHash } from 'node:crypto'
import { copyFile, link, mkdir, open, readFile, rename, rm, rmdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AwsV4Signer } from 'aws4fetch'
import { Agent, request } from 'undici'
import { codeOf, Fault } from '../../../shared/errors.ts'
import { readPrivateFile } from '../../../shared/private-file.ts'
import { MAX_SEGMENT_BYTES } from './segments.ts'
import type { BucketSettings } from './settings.ts'
import { syncFolder } from './spool.ts'

/** Longest wait for a segment to go or come, in milliseconds. */
const ARCHIVE_MS = 60_000
/** Longest answer that is no segment. */
const MAX_ANSWER_BYTES = 65_536
const FOLDER_MODE = 0o700
const PUT_DONE: ReadonlySet<number> = new Set([200, 201, 204])
const REMOVED: ReadonlySet<number> = new Set([200, 202, 204, 404])
const NOT_FOUND = 404
/** It is there, or is being put by somebody else: S3 says both to `If-None-Match`. */
const THERE: ReadonlySet<number> = new Set([409, 412])
/** A link cannot be made here: other disks, file systems without links. */
const NO_LINK: ReadonlySet<string> = new Set([
  ...['EXDEV', 'EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EMLINK', 'ENOSYS'],
])

/** See the head of the file. All reject where the archive does not do what is asked. */
export interface Archive {
  /** For the log. */
  readonly name: string
  /** Durable when it settles; rejects with Fault `recording_corrupt` where another content is there. @param path - of the segment in the spool */
  put(name: string, path: string): Promise<void>
  /** @returns undefined where there is none */
  get(name: string): Promise<Buffer | undefined>
  /** Settles also where there is none. */
  remove(name: string): Promise<void>
  close(): Promise<void>
}

/** A folder. @param make - makes it where it is missing; otherwise that is an error, as with a disk that is not mounted */
export function folderArchive(root: string, make: boolean): Archive {
  return {
    name: root,
    async put(name, path) {
      const target = join(root, name)
      const folder = dirname(target)
      if (make) await mkdir(root, { recursive: true, mode: FOLDER_MODE })
      await mkdir(folder, { mode: FOLDER_MODE }).catch(unless('EEXIST'))
      try {
        await link(path, target)
      } catch (error) {
        const code = codeOf(error) ?? ''
        if (code === 'EEXIST') mustBeSame(name, await readFile(path), await readFile(target))
        else if (NO_LINK.has(code)) await copy(path, target)
        else throw error
      }
      await syncFolder(folder)
      await syncFolder(root)
    },
    async get(name) {
      try {
        return await readFile(join(root, name))
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined
        throw error
      }
    },
    async remove(name) {
      const target = join(root, name)
      await rm(target, { force: true })
      // the last one takes its folder along
      await rmdir(dirname(target)).catch(unless('ENOTEMPTY', 'ENOENT', 'EEXIST'))
    },
    close: () => Promise.resolve(),
  }
}

function unless(...codes: readonly string[]): (error: unknown) => void {
  return (error) => {
    if (!codes.includes(codeOf(error) ?? '')) throw error
  }
}

async function copy(path: string, target: string): Promise<void> {
  const there = await readFile(target).catch((error: unknown) => {
    if (codeOf(error) !== 'ENOENT') throw error
    return undefined
  })
  if (there !== undefined) {
    mustBeSame(target, await readFile(path), there)
    return
  }
  await copyFile(path, `${target}.new`)
  const handle = await open(`${target}.new`, 'r+')
  await handle.sync()
  await handle.close()
  await rename(`${target}.new`, target)
}

function mustBeSame(name: string, ours: Buffer, there: Buffer): void {
  if (!ours.equals(there))
    throw new Fault('recording_corrupt', `the archive has something else as ${name}`)
}

/** A bucket. @param answerMs - see {@link ARCHIVE_MS} */
export function bucketArchive(settings: BucketSettings, answerMs: number = ARCHIVE_MS): Archive {
  const bucket = new Bucket(settings, answerMs)
  return {
    name: settings.url,
    async put(name, path) {
      const bytes = await readFile(path)
      const { status } = await bucket.ask('PUT', name, bytes)
      if (PUT_DONE.has(status)) return
      const there = THERE.has(status) ? await bucket.ask('GET', name) : undefined
      if (there?.status !== 200) throw notDone('PUT', status)
      mustBeSame(name, bytes, there.bytes)
    },
    async get(name) {
      const { status, bytes } = await bucket.ask('GET', name)
      if (status === NOT_FOUND) return undefined
      if (status !== 200) throw notDone('GET', status)
      return bytes
    },
    async remove(name) {
      const { status } = await bucket.ask('DELETE', name)
      if (!REMOVED.has(status)) throw notDone('DELETE', status)
    },
    close: () => bucket.close(),
  }
}

function notDone(method: string, status: number): Fault {
  return new Fault('recording_failed', `the bucket answered ${method} with ${status}`)
}

interface Answer {
  readonly status: number
  readonly bytes: Buffer
}

class Bucket {
  readonly #settings: BucketSettings
  readonly #answerMs: number
  #agent: Agent | undefined

  constructor(settings: BucketSettings, answerMs: number) {
    this.#settings = settings
    this.#answerMs = answerMs
  }

  async ask(method: 'PUT' | 'GET' | 'DELETE', name: string, content?: Buffer): Promise<Answer> {
    const { url, prefix, region, keyFile } = this.#settings
    const [accessKeyId = '', secretAccessKey = ''] = (await readPrivateFile(keyFile)).split('\n')
    const hash = createHash('sha256').update(content ?? '')
    const hex = hash.copy().digest('hex')
    const signer = new AwsV4Signer({
      ...{ method, url: `${url.replace(/\/$/, '')}/${prefix}${name}` },
      ...{ accessKeyId: accessKeyId.trim(), secretAccessKey: secretAccessKey.trim() },
      ...{ service: 's3', region },
      headers: {
        // of what is sent, so that the bucket takes nothing else; buckets with Object Lock ask for the second
        'x-amz-content-sha256': hex,
        ...(content === undefined
          ? {}
          : { 'x-amz-checksum-sha256': hash.digest('base64'), 'if-none-match': '*' }),
      },
    })
    const signed = await signer.sign()
    const signal = AbortSignal.timeout(this.#answerMs)
    const { statusCode: status, body } = await request(signed.url, {
      ...{ method, dispatcher: await this.#dispatcher(), signal },
      headers: Object.fromEntries(signed.headers),
      ...(content === undefined ? {} : { body: content }),
    })
    const isSegment = method === 'GET' && status === 200
    return { status, bytes: await bytesOf(body, isSegment ? MAX_SEGMENT_BYTES : MAX_ANSWER_BYTES) }
  }

  async close(): Promise<void> {
    await this.#agent?.destroy()
  }

  async #dispatcher(): Promise<Agent> {
    const { caFile } = this.#settings
    const connect = caFile === undefined ? {} : { ca: await readFile(caFile, 'utf8') }
    this.#agent ??= new Agent({
      connect: { ...connect, rejectUnauthorized: true },
      ...{ headersTimeout: this.#answerMs, bodyTimeout: this.#answerMs },
    })
    return this.#agent
  }
}

async function bytesOf(body: AsyncIterable<Uint8Array>, limit: number): Promise<Buffer> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body) {
    bytes += part.length
    if (bytes > limit) throw new Fault('recording_failed', 'the bucket’s answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts)
}
