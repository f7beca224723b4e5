/** What must hold for any input: nothing of a client's headers becomes identity, and no argument leaves the pod. */
import fc from 'fast-check'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { AGENT_HEADER, REQUEST_HEADER, isIdentityHeader } from '../../shared/headers.ts'
import { commandOf } from '../../sidecar/caller/declared.ts'
import { parseStat } from '../../sidecar/caller/process.ts'
import { requestHeaders } from '../../sidecar/headers.ts'
import { statLine } from '../support/proc-fixture.ts'

const OWN = new Set(['authorization', AGENT_HEADER, 'nestgate-hold'])

describe('sidecar, for any input', () => {
  it('sends no identity header but its own, with its own values', () => {
    const prefix = fc.constantFrom(
      'impersonate-',
      'x-remote-',
      'nestgate-',
      'x-forwarded-',
      'x-',
      'audit-id',
      'authorization',
      'connection',
      '',
    )
    const name = fc
      .tuple(prefix, fc.stringMatching(/^[a-z0-9_-]{0,12}$/))
      .map(([head, tail]) => head + tail)
      .filter((text) => text !== '')
    const headers = fc.dictionary(name, fc.constant('evil, nestgate-agent'), { maxKeys: 20 })
    fc.assert(
      fc.property(headers, (sent) => {
        const result = requestHeaders(sent, 'broker', { token: 'T', tag: 'TAG' })
        expect(result['authorization']).to.equal('Bearer T')
        expect(result[AGENT_HEADER]).to.equal('TAG')
        expect(result).not.to.have.property(REQUEST_HEADER)
        for (const [key, value] of Object.entries(result))
          if (isIdentityHeader(key)) {
            expect(OWN.has(key)).to.equal(true)
            expect(value).not.to.contain('evil')
          }
      }),
    )
  })

  it('shows no argument that follows an option or holds more than a path', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('kubectl', 'curl', '/bin/agent', 'bash', 'python3', 'node'),
        fc.constantFrom('-c', '-e', '--token', '-p', '--eval', '-H'),
        fc.string({ minLength: 1 }).map((text) => `hunter2${text}`),
        fc.array(fc.string()),
        (program, option, secret, rest) => {
          expect(commandOf([program, option, secret, ...rest])).not.to.contain('hunter2')
        },
      ),
    )
  })

  it('reads the start time of a process of any name', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 15 }), fc.nat(), (name, ticks) => {
        expect(
          parseStat(statLine({ pid: 1, name, startTicks: String(ticks) }))?.startTicks,
        ).to.equal(String(ticks))
      }),
    )
  })
})
