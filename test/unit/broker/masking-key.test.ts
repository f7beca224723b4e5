import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { brokerSchema } from '../../../broker/config.ts'
import { openMaskingKey } from '../../../broker/masking/key.ts'
import type { MaskingKey } from '../../../broker/masking/key.ts'
import { PLACEHOLDER } from '../../../broker/masking/placeholder.ts'

const REST = { tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' }
const PERMISSIONS = 0o777

/** The code of the fault by which something rejects. */
async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => 'nothing',
    (error: unknown) => (error as { code: unknown }).code,
  )
}

describe('the key of placeholders', () => {
  let dir: string
  const placeholder = (key: MaskingKey, cluster = 'test'): string =>
    key.placeholders(cluster).of('uid-1')('data.password')

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-masking-key-'))
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  it('is made once, is private, and stays', async () => {
    const first = placeholder(await openMaskingKey({}, dir))
    expect(first).to.match(new RegExp(`^${PLACEHOLDER.source}$`))
    const path = join(dir, 'masking.key')
    expect(statSync(path).mode & PERMISSIONS).to.equal(0o600)
    expect(Buffer.from(readFileSync(path, 'utf8'), 'base64')).to.have.length(32)
    expect(placeholder(await openMaskingKey({}, dir))).to.equal(first)
  })

  it('is another for each broker, and its placeholders for each cluster', async () => {
    const key = await openMaskingKey({}, dir)
    expect(placeholder(key)).to.not.equal(placeholder(key, 'other'))
    rmSync(join(dir, 'masking.key'))
    expect(placeholder(key)).to.not.equal(placeholder(await openMaskingKey({}, dir)))
  })

  it('is private again where a volume gave it to the group, and refused where others have it', async () => {
    const path = join(dir, 'masking.key')
    const first = placeholder(await openMaskingKey({}, dir))
    chmodSync(path, 0o660)
    expect(placeholder(await openMaskingKey({}, dir))).to.equal(first)
    expect(statSync(path).mode & PERMISSIONS).to.equal(0o600)
    chmodSync(path, 0o604)
    expect(await codeOf(openMaskingKey({}, dir))).to.equal('file_not_private')
  })

  it('may be a file that several brokers share, of at least 32 bytes', async () => {
    const keyFile = join(dir, 'shared')
    const { masking } = brokerSchema.parse({ ...REST, masking: { keyFile } })
    writeFileSync(keyFile, `${'k'.repeat(32)}\n`, { mode: 0o600 })
    const one = await openMaskingKey(masking, '/nonexistent')
    const other = await openMaskingKey(masking, '/nonexistent')
    expect(placeholder(one)).to.equal(placeholder(other))
    writeFileSync(keyFile, `${'k'.repeat(31)}\n`)
    expect(await codeOf(openMaskingKey(masking, dir))).to.equal('config_invalid')
    rmSync(keyFile)
    expect(await codeOf(openMaskingKey(masking, dir))).to.equal('ENOENT')
  })
})
