/** A stand-in for a bucket with an S3 API: checks Signature Version 4 and checksums, keeps `If-None-Match`, and fails as it is told. */
import { createHash, createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'

const SECRET = 'a-secret-of-the-test'
const REGION = 'eu-test-1'

/** See the head of the file. */
export interface TestBucket {
  /** `archive.s3` of the broker's configuration. */
  readonly settings: Readonly<Record<string, string>>
  /** By path. */
  readonly objects: Map<string, Buffer>
  /** `METHOD STATUS` of each answer. */
  readonly answers: string[]
  /** Answers instead, where it is set. */
  fault: ((response: ServerResponse) => void) | undefined
  close(): void
}

export async function startBucket(): Promise<TestBucket> {
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-bucket-'))
  const keyFile = join(folder, 'key')
  writeFileSync(keyFile, `AKIDEXAMPLE\n${SECRET}\n`, { mode: 0o600 })
  const server = createServer((request, response) => {
    void buffer(request).then((body) => {
      if (bucket.fault !== undefined) {
        bucket.fault(response)
        return
      }
      const { status, content = '' } = answer(bucket.objects, request, body)
      bucket.answers.push(`${request.method ?? ''} ${status}`)
      response.writeHead(status).end(content)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/evidence`
  const bucket: TestBucket = {
    settings: { url, prefix: 'sessions/', region: REGION, keyFile },
    ...{ objects: new Map(), answers: [], fault: undefined },
    close() {
      server.close()
      server.closeAllConnections()
      rmSync(folder, { recursive: true })
    },
  }
  return bucket
}

function answer(
  objects: Map<string, Buffer>,
  request: IncomingMessage,
  body: Buffer,
): { readonly status: number; readonly content?: Buffer | string } {
  const { method, url: name = '', headers } = request
  if (!isSigned(request, body)) return { status: 403, content: 'SignatureDoesNotMatch' }
  if (method === 'GET') {
    const found = objects.get(name)
    return found === undefined
      ? { status: 404, content: 'NoSuchKey' }
      : { status: 200, content: found }
  }
  if (method === 'DELETE') {
    objects.delete(name)
    return { status: 204 }
  }
  const checksum = createHash('sha256').update(body).digest('base64')
  if (headers['x-amz-checksum-sha256'] !== checksum) return { status: 400, content: 'BadDigest' }
  if (headers['if-none-match'] === '*' && objects.has(name)) return { status: 412 }
  objects.set(name, body)
  return { status: 200 }
}

const hmac = (key: string | Buffer, value: string): Buffer =>
  createHmac('sha256', key).update(value).digest()
const sha256 = (value: string | Buffer): string => createHash('sha256').update(value).digest('hex')

/** As its specification writes it, over what came; the content is always signed. */
function isSigned(request: IncomingMessage, body: Buffer): boolean {
  const { authorization = '' } = request.headers
  const [, date = '', names = '', signature] =
    /Credential=AKIDEXAMPLE\/(\d{8})\/eu-test-1\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=(.+)$/.exec(
      authorization,
    ) ?? []
  const header = (name: string): string => String(request.headers[name])
  const hash = header('x-amz-content-sha256')
  if (hash !== sha256(body)) return false
  const canonical = [
    ...[request.method, request.url, ''],
    ...names.split(';').map((name) => `${name}:${header(name)}`),
    ...['', names, hash],
  ].join('\n')
  const scope = `${date}/${REGION}/s3/aws4_request`
  const toSign = ['AWS4-HMAC-SHA256', header('x-amz-date'), scope, sha256(canonical)].join('\n')
  const key = hmac(hmac(hmac(hmac(`AWS4${SECRET}`, date), REGION), 's3'), 'aws4_request')
  return hmac(key, toSign).toString('hex') === signature
}
