/** Agents' own tokens behind a sidecar: real clients and sockets, with what the broker saw. */
import { connect } from 'node:net'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { reasonInStatus } from '../../shared/status.ts'
import { PLACEHOLDER_TOKEN } from '../../sidecar/service-account-files.ts'
import { run } from '../support/client-processes.ts'
import { claimOf, POD_TOKEN, startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { FORGED_LINES } from '../support/forged-headers.ts'
import { startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

const OWN = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl'
const KINDS = {
  'a request': 'Connection: close\r\n',
  'an upgrade': 'Connection: Upgrade\r\nUpgrade: websocket\r\n',
} as const

/** What stands in Authorization and is not one bearer token. */
const NO_TOKEN: Readonly<Record<string, string>> = {
  'two tokens': `Authorization: Bearer ${OWN}\r\nAUTHORIZATION: Bearer ${OWN}x\r\n`,
  'the same token twice': `Authorization: Bearer ${OWN}\r\nAuthorization: Bearer ${OWN}\r\n`,
  'a token after the placeholder': `Authorization: Bearer ${PLACEHOLDER_TOKEN}\r\nAuthorization: Bearer ${OWN}\r\n`,
  'two tokens in one': `Authorization: Bearer ${OWN}, Bearer ${OWN}\r\n`,
  'a password': 'Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n',
  'no scheme': `Authorization: ${OWN}\r\n`,
  'an empty token': 'Authorization: Bearer \r\n',
  'nothing in it': 'Authorization:\r\n',
  'no ASCII': 'Authorization: Bearer s\u00e9cret\r\n',
}

describe('an agent’s own token behind a sidecar', function () {
  this.timeout(20_000)
  let broker: FakeBroker
  let sidecar: RunningSidecar

  beforeEach(async () => {
    broker = await startFakeBroker()
    sidecar = await startTestSidecar(broker)
  })
  afterEach(async () => {
    await broker.stop()
    await sidecar.close()
  })

  /** Sends a head; returns what came back when the first bytes are there and the connection has ended. */
  function send(lines: string): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect(sidecar.port, '127.0.0.1')
      let answer = ''
      socket.on('data', (chunk) => {
        answer += chunk.toString('latin1')
        socket.end()
      })
      socket.on('error', () => undefined)
      socket.on('close', () => {
        resolve(answer)
      })
      socket.write(`GET /exec HTTP/1.1\r\nHost: localhost\r\n${lines}\r\n`, 'latin1')
    })
  }

  /** Values of the headers of a name, as the broker got them. */
  function got(name: string): readonly string[] {
    const raw = broker.seen.at(-1)?.rawHeaders ?? []
    return raw.filter((_, at) => at % 2 === 1 && raw[at - 1]?.toLowerCase() === name)
  }

  it('comes with curl as the subject’s, beside the pod’s and the tag of curl', async () => {
    const { stdout } = await run('curl', [
      ...['-sS', '-o', '/dev/null', '-w', '%{http_code}', '-H', `Authorization: Bearer ${OWN}`],
      `${sidecar.url}/api`,
    ])
    expect(stdout).to.equal('200')
    expect(got('authorization')).to.deep.equal([`Bearer ${POD_TOKEN}`])
    expect(got('nestgate-subject-token')).to.deep.equal([OWN])
    expect(broker.seen[0]?.tag.verified?.exe).to.match(/curl$/)
  })

  for (const [what, connection] of Object.entries(KINDS)) {
    it(`is the only subject of ${what} that forges others, also by Connection`, async () => {
      const named = connection.replace(/\r\n/, ', Authorization, Nestgate-Subject-Token\r\n')
      await send(`${FORGED_LINES}${named}authorization: bearer ${OWN}\r\n`)
      expect(broker.seen).to.have.length(1)
      expect(got('authorization')).to.deep.equal([`Bearer ${POD_TOKEN}`])
      expect(got('nestgate-subject-token')).to.deep.equal([OWN])
      expect(JSON.stringify(broker.seen[0]?.rawHeaders)).not.to.contain('evil')
    })

    it(`is not there in ${what} without one, and with the placeholder`, async () => {
      await send(connection)
      await send(`${connection}Authorization: Bearer ${PLACEHOLDER_TOKEN}\r\n`)
      expect(broker.seen).to.have.length(2)
      for (const { headers } of broker.seen)
        expect(headers).to.include({ authorization: `Bearer ${POD_TOKEN}` })
      for (const { rawHeaders } of broker.seen) {
        expect(rawHeaders.map((name) => name.toLowerCase())).not.to.include(
          'nestgate-subject-token',
        )
        expect(rawHeaders.join()).not.to.contain(PLACEHOLDER_TOKEN)
      }
    })

    it(`that is none, or not the only one, refuses ${what}; nothing of it is repeated`, async () => {
      for (const [how, lines] of Object.entries(NO_TOKEN)) {
        const answer = await send(connection + lines)
        expect(answer, how).to.match(/^HTTP\/1\.1 400 /)
        expect(reasonInStatus(answer.slice(answer.indexOf('{'))), how).to.equal('header_invalid')
        expect(answer, how).not.to.match(/eyJ|c2Vj|cret/)
      }
      expect(broker.seen).to.deep.equal([])
    })
  }

  it('is not taken from the subprotocols of a WebSocket, where browsers put it', async () => {
    const hidden = Buffer.from(OWN).toString('base64url')
    await send(
      `${KINDS['an upgrade']}Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.${hidden}, v5.channel.k8s.io\r\n`,
    )
    expect(got('sec-websocket-protocol')).to.deep.equal(['v5.channel.k8s.io'])
    expect(got('nestgate-subject-token')).to.deep.equal([])
    expect(JSON.stringify(broker.seen[0]?.rawHeaders)).not.to.contain(hidden)
  })

  it('comes again with the repeat of a held request', async () => {
    const answer = broker.onRequest
    broker.onRequest = (seen, response, request) => {
      if (claimOf(seen) === undefined) broker.decide(broker.hold(response), 'APPROVED')
      else answer(seen, response, request)
    }
    await send(`Connection: close\r\nAuthorization: Bearer ${OWN}\r\n`)
    expect(broker.seen.map(({ headers }) => headers['nestgate-subject-token'])).to.deep.equal([
      OWN,
      OWN,
    ])
  })
})
