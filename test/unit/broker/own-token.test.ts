import { expect } from 'chai'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { AskedConnection } from '../../../broker/credentials/cluster-json.ts'
import { renewedToken } from '../../../broker/credentials/own-token.ts'
import { createLog } from '../../../shared/log.ts'

const NOW = 1_700_000_000_000
const log = createLog('test', 'silent')

/** A token that ends so many seconds from now, and has lived 600 s then. */
function jwt(endsInS: number): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const exp = NOW / 1000 + endsInS
  return `${part({ alg: 'RS256' })}.${part({ iat: exp - 600, exp })}.c2ln`
}

describe('a token that the broker renews', () => {
  let file = ''
  beforeEach(async () => {
    file = join(await mkdtemp(join(tmpdir(), 'nestgate-own-')), 'token')
    await writeFile(file, jwt(100), { mode: 0o600 })
  })
  afterEach(() => rm(join(file, '..'), { recursive: true }))

  /** What is in the file after a cluster was asked, and said this. */
  const renewedBy = async (token: string, expected?: string): Promise<string> => {
    const asked = Promise.withResolvers<undefined>()
    const own = {
      request: () => {
        asked.resolve(undefined)
        const body = [Buffer.from(JSON.stringify({ status: { token } }))]
        return Promise.resolve({ statusCode: 201, body })
      },
    }
    const credential = { own: () => Promise.resolve({}) }
    const connection = { name: 'prod', own, credential } as unknown as AskedConnection
    const account = { namespace: 'a', serviceAccount: 'b' }
    const kept = renewedToken(file, account, connection, { log, now: () => NOW })
    await asked.promise
    // a new one is written on a disk that others use too
    const until = Date.now() + (expected === undefined ? 50 : 5000)
    while (Date.now() < until && (await readFile(file, 'utf8')) !== expected)
      await new Promise((resolve) => setTimeout(resolve, 10))
    kept.close()
    return readFile(file, 'utf8')
  }

  it('is replaced by a good one', async () => {
    expect(await renewedBy(jwt(600), jwt(600))).to.equal(jwt(600))
  })

  for (const [what, token] of [
    ['no token', 'x'],
    ['two lines', `${jwt(600)}\r\nx-remote-user: admin`],
    ['one that has ended', jwt(-1)],
  ] as const)
    it(`stays where the cluster gives ${what}`, async () => {
      expect(await renewedBy(token)).to.equal(jwt(100))
    })
})
