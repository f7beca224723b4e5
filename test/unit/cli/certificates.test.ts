/** The certificates of an installation: what clients need of them, and that nothing is overwritten. */
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, createServer } from 'node:tls'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { BROKER_HOSTS, WEBHOOK_HOSTS, writeCertificates } from '../../../cli/certificates.ts'

const DAY_MS = 86_400_000

describe('writeCertificates', function () {
  this.timeout(30_000)
  let dir = ''

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-certificates-'))
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  const read = (name: string): string => readFileSync(join(dir, name), 'utf8')
  const certificate = (name: string): X509Certificate => new X509Certificate(read(name))
  const write = (changes: object = {}): ReturnType<typeof writeCertificates> =>
    writeCertificates({
      dir,
      brokerHosts: BROKER_HOSTS,
      webhookHosts: WEBHOOK_HOSTS,
      days: 365,
      ...changes,
    })

  it('serves a TLS handshake that a client with only the authority accepts', async () => {
    write()
    const server = createServer({ cert: read('broker.crt'), key: read('broker.key') })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const socket = connect({
      host: '127.0.0.1',
      port,
      servername: 'nestgate-broker.nestgate-system.svc',
      ca: read('ca.crt'),
    })
    await once(socket, 'secureConnect')
    expect(socket.authorized).to.equal(true)
    socket.destroy()
    server.close()
  })

  it('names every host, and each certificate its own only', () => {
    write({ brokerHosts: ['broker.example', '10.0.0.7', '::1'] })
    const broker = certificate('broker.crt')
    expect(broker.checkHost('broker.example')).to.equal('broker.example')
    expect(broker.checkIP('10.0.0.7')).to.equal('10.0.0.7')
    expect(broker.checkIP('::1')).to.not.equal(undefined)
    expect(broker.checkHost(WEBHOOK_HOSTS[0] ?? '')).to.equal(undefined)
    expect(broker.ca).to.equal(false)
    expect(certificate('ca.crt').ca).to.equal(true)
  })

  it('limits the leaves to the days asked for', () => {
    const now = Date.UTC(2030, 0, 1)
    write({ days: 30, now })
    const { validFromDate, validToDate } = certificate('webhook.crt')
    expect(validToDate.getTime()).to.equal(now + 30 * DAY_MS)
    expect(validFromDate.getTime()).to.be.lessThan(now)
  })

  it('lets nobody but the owner read a key', () => {
    write()
    for (const name of ['ca.key', 'broker.key', 'webhook.key']) {
      expect(statSync(join(dir, name)).mode & 0o777, name).to.equal(0o600)
    }
  })

  it('renews leaves under the authority that is there', () => {
    write()
    const authority = read('ca.crt')
    const before = certificate('broker.crt')
    for (const name of ['broker.crt', 'broker.key', 'webhook.crt', 'webhook.key']) {
      unlinkSync(join(dir, name))
    }
    write()
    expect(read('ca.crt')).to.equal(authority)
    const after = certificate('broker.crt')
    expect(after.serialNumber).to.not.equal(before.serialNumber)
    expect(after.verify(certificate('ca.crt').publicKey)).to.equal(true)
  })

  const refused: readonly [string, object, RegExp, ((dir: string) => void)?][] = [
    [
      'a leaf that exists',
      {},
      /broker\.crt exists/,
      (at) => {
        writeFileSync(join(at, 'broker.crt'), '')
      },
    ],
    [
      'an authority without its key',
      {},
      /only one of/,
      (at) => {
        writeFileSync(join(at, 'ca.crt'), '')
      },
    ],
    ['no host', { webhookHosts: [] }, /webhook: at least one/],
    ['a host that is none', { brokerHosts: ['a b'] }, /"a b" is neither/],
    ['a life of no days', { days: 0 }, /days: expected/],
    ['a life longer than clients accept', { days: 826 }, /days: expected/],
  ]
  for (const [what, changes, problem, prepare] of refused) {
    it(`writes nothing for ${what}`, () => {
      prepare?.(dir)
      const result = write(changes)
      expect('problems' in result ? result.problems.join('\n') : '').to.match(problem)
      expect(() => statSync(join(dir, 'webhook.key'))).to.throw('ENOENT')
    })
  }

  it('does not sign with a key that is not the authority’s', () => {
    write()
    const key = read('broker.key')
    for (const name of ['broker.crt', 'broker.key', 'webhook.crt', 'webhook.key']) {
      unlinkSync(join(dir, name))
    }
    writeFileSync(join(dir, 'ca.key'), key, { mode: 0o600 })
    const result = write()
    expect(result).to.deep.equal({ problems: [`${dir}: ca.key is not the key of ca.crt`] })
  })
})
