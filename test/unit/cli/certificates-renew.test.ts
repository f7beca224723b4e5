/** Renewing the certificates of an installation in place, and seeing how long they are good for. */
import { X509Certificate } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { renewCertificates } from '../../../cli/certificates-renew.ts'
import { readCertificates } from '../../../cli/certificates-show.ts'
import { writeCertificates } from '../../../cli/certificates.ts'
import type { CertificateResult } from '../../../cli/certificates.ts'
import { runCli } from '../../../cli/program.ts'
import { loadKeyPair } from '../../../shared/key-pair.ts'

const DAY_MS = 86_400_000
const NOW = Date.UTC(2030, 0, 1)

describe('certificates of an installation', function () {
  this.timeout(30_000)
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-renew-'))
    const made = writeCertificates({
      dir,
      brokerHosts: ['broker.example', '*.broker.example', '10.0.0.7', '::1'],
      webhookHosts: ['hook.example'],
      days: 10,
      now: NOW,
    })
    expect(made).to.have.property('written')
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  const read = (name: string): string => readFileSync(join(dir, name), 'utf8')
  const certificate = (name: string): X509Certificate => new X509Certificate(read(name))
  const problems = (result: CertificateResult): string =>
    'problems' in result ? result.problems.join('; ') : ''
  const renew = (days = 20, now = NOW + 5 * DAY_MS): CertificateResult =>
    renewCertificates({ dir, days, now })
  const files = (): Record<string, string> =>
    Object.fromEntries(readdirSync(dir).map((name) => [name, read(name)]))
  async function command(
    ...args: readonly string[]
  ): Promise<{ code: number; out: string; err: string }> {
    let out = ''
    let err = ''
    const code = await runCli({
      args: ['certificates', ...args],
      env: {},
      now: () => NOW,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }

  describe('renewed', () => {
    it('have the same names, another key and a new life under the same authority', () => {
      const before = files()
      const names = certificate('broker.crt').subjectAltName
      expect(renew()).to.deep.equal({
        written: ['broker.key', 'broker.crt', 'webhook.key', 'webhook.crt'].map((name) =>
          join(dir, name),
        ),
      })
      for (const name of ['ca.crt', 'ca.key']) expect(read(name)).to.equal(before[name])
      for (const name of ['broker', 'webhook']) {
        const { cert } = loadKeyPair(read(`${name}.crt`), read(`${name}.key`))
        expect(cert).not.to.equal(before[`${name}.crt`])
        expect(read(`${name}.key`)).not.to.equal(before[`${name}.key`])
        const renewed = certificate(`${name}.crt`)
        expect(renewed.verify(certificate('ca.crt').publicKey)).to.equal(true)
        expect(renewed.validToDate.getTime()).to.equal(NOW + 25 * DAY_MS)
        expect(statSync(join(dir, `${name}.key`)).mode & 0o777).to.equal(0o600)
      }
      expect(certificate('broker.crt').subjectAltName).to.equal(names)
      expect(certificate('broker.crt').checkIP('::1')).not.to.equal(undefined)
    })

    it('leave nothing beside them, not even of a renewal that was interrupted', () => {
      const names = readdirSync(dir)
      writeFileSync(join(dir, 'broker.key.new'), 'torn', { mode: 0o644 })
      renew()
      expect(readdirSync(dir)).to.have.members(names)
      expect(statSync(join(dir, 'broker.key')).mode & 0o777).to.equal(0o600)
    })

    it('are mended by the next renewal when one was interrupted between key and certificate', () => {
      const old = read('broker.crt')
      renew()
      writeFileSync(join(dir, 'broker.crt'), old)
      expect(() => loadKeyPair(read('broker.crt'), read('broker.key'))).to.throw('not that of')
      renew()
      loadKeyPair(read('broker.crt'), read('broker.key'))
    })

    it('are those that there are', () => {
      unlinkSync(join(dir, 'webhook.crt'))
      unlinkSync(join(dir, 'webhook.key'))
      expect(renew()).to.deep.equal({
        written: [join(dir, 'broker.key'), join(dir, 'broker.crt')],
      })
      expect(existsSync(join(dir, 'webhook.crt'))).to.equal(false)
    })

    const refused: readonly [string, RegExp, () => CertificateResult][] = [
      ['a life of no days', /days: expected/, () => renew(0)],
      ['an authority that is over', /has expired/, () => renew(20, NOW + 4000 * DAY_MS)],
      [
        'no key of the authority',
        /ca\.key is missing/,
        () => {
          unlinkSync(join(dir, 'ca.key'))
          return renew()
        },
      ],
      [
        'the key of another authority',
        /not the key of ca\.crt/,
        () => {
          writeFileSync(join(dir, 'ca.key'), read('broker.key'))
          return renew()
        },
      ],
      [
        'nothing to renew',
        /no certificate to renew/,
        () => {
          for (const name of ['broker.crt', 'webhook.crt']) unlinkSync(join(dir, name))
          return renew()
        },
      ],
    ]
    for (const [what, problem, attempt] of refused)
      it(`are not with ${what}, and nothing is written`, () => {
        const broker = read('broker.key')
        expect(problems(attempt())).to.match(problem)
        expect(read('broker.key')).to.equal(broker)
      })

    it('are not by the command where others can read the authority’s key', async () => {
      chmodSync(join(dir, 'ca.key'), 0o644)
      const { code, out, err } = await command('renew', '--out', dir)
      expect([code, out]).to.deep.equal([1, ''])
      expect(err).to.include('ca.key has mode 0644')
      expect(err).not.to.include('PRIVATE')
    })
  })

  describe('shown', () => {
    it('say whose they are, for which names, until when, and how many days that is', () => {
      const facts = readCertificates([dir], NOW)
      expect(facts.map(({ file }) => file)).to.deep.equal(
        ['broker.crt', 'ca.crt', 'webhook.crt'].map((name) => join(dir, name)),
      )
      expect(facts[2]).to.deep.equal({
        file: join(dir, 'webhook.crt'),
        subject: 'CN=nestgate-webhook',
        names: ['DNS:hook.example'],
        notAfter: '2030-01-11T00:00:00.000Z',
        daysLeft: 10,
      })
      expect(readCertificates([join(dir, 'broker.crt')], NOW + 11 * DAY_MS)[0]?.daysLeft).to.equal(
        -1,
      )
    })

    it('have each certificate of a chain', () => {
      writeFileSync(join(dir, 'chain.pem'), read('broker.crt') + read('ca.crt'))
      expect(readCertificates([join(dir, 'chain.pem')], NOW)).to.have.length(2)
    })

    const endings = [
      ['enough days', ['--days', '10'], 0],
      ['a day too few', ['--days', '11'], 1],
      ['fewer than the usual 30', [], 1],
      ['days that are none', ['--days', 'soon'], 2],
    ] as const
    for (const [what, args, code] of endings)
      it(`end with ${code} for ${what}`, async () => {
        const got = await command('show', join(dir, 'broker.crt'), ...args)
        expect(got.code).to.equal(code)
        if (code !== 2) expect(got.out).to.include('CN=nestgate-broker')
      })

    it('end with 1 where there is none, or it is broken', async () => {
      writeFileSync(join(dir, 'broken.crt'), read('broker.crt').replace(/\n.{8}/, '\nAAAAAAAA'))
      for (const name of ['broken.crt', 'ca.key', 'missing.crt']) {
        const { code, err } = await command('show', join(dir, name), '--days', '0')
        expect(code, name).to.equal(1)
        expect(err).not.to.equal('')
      }
    })
  })
})
