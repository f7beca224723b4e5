/** Notifications to real receivers: signed as Standard Webhooks wants it, tried again under one id, never in anybody's way. */
import { createServer } from 'node:http'
import type { IncomingHttpHeaders, Server, ServerResponse } from 'node:http'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { Webhook } from 'standardwebhooks'
import { MAX_QUEUED } from '../../broker/notifications/deliveries.ts'
import { createNotifications } from '../../broker/notifications/notifications.ts'
import type { Notifications } from '../../broker/notifications/notifications.ts'
import { notificationsSchema } from '../../broker/notifications/settings.ts'
import type { StoredApproval } from '../../broker/store/store.ts'
import { createLog } from '../../shared/log.ts'
import { pending as heldRequest } from '../support/entries.ts'

interface Received {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

const secret = (byte: number): string => `whsec_${Buffer.alloc(32, byte).toString('base64')}`

describe('notifications', () => {
  const log = createLog('test', 'silent')
  let dir: string
  let server: Server
  let received: Received[]
  let answer: (response: ServerResponse, count: number) => void
  const open: Notifications[] = []

  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-notify-'))
    received = []
    answer = (response) => response.writeHead(204).end()
    server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        received.push({ headers: request.headers, body: Buffer.concat(chunks).toString() })
        answer(response, received.length)
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    writeFileSync(join(dir, 'secret'), `${secret(1)}\n`, { mode: 0o600 })
  })

  afterEach(async () => {
    await Promise.all(open.splice(0).map((one) => one.close()))
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    rmSync(dir, { recursive: true })
  })

  const url = (): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`

  function notifier(more: object = {}): Notifications {
    const targets = notificationsSchema.parse([
      { name: 'ops', url: url(), format: 'standard', secretFile: join(dir, 'secret'), ...more },
    ])
    const made = createNotifications(targets, { log, now: Date.now, firstPauseMs: 20 })
    open.push(made)
    return made
  }

  async function until(count: number): Promise<void> {
    const end = performance.now() + 5000
    while (received.length < count && performance.now() < end) await sleep(5)
    expect(received).to.have.length(count)
  }

  const pending = (more: Partial<StoredApproval> = {}): StoredApproval => heldRequest(more)

  it('are signed so that the standard’s own library takes them, and say what waits', async () => {
    const approval = pending()
    notifier().tell({ from: 'RECEIVED', approval })
    await until(1)
    const [{ headers, body }] = received as [Received]
    const verified = new Webhook(secret(1)).verify(body, headers as Record<string, string>)
    expect(verified).to.have.property('type', 'approval.pending')
    expect(verified).to.have.nested.property('data.id', approval.id)
    expect(verified).to.have.nested.property('data.subject', approval.subject)
    expect(headers['webhook-id']).to.equal(`msg_${approval.id}_approval_pending`)
    expect(() => new Webhook(secret(2)).verify(body, headers as Record<string, string>)).to.throw()
  })

  it('carry no preview, no query and nothing of the process but names', async () => {
    const approval = pending({
      query: 'command=sh&command=hunter2',
      preview: { kind: 'session', text: 'hunter2' },
    })
    notifier().tell({ from: 'RECEIVED', approval })
    await until(1)
    expect(received[0]?.body).not.to.include('hunter2')
  })

  it('are signed with every secret while one is replaced', async () => {
    writeFileSync(join(dir, 'secret'), `${secret(1)}\n${secret(2)}\n`, { mode: 0o600 })
    notifier().tell({ from: 'RECEIVED', approval: pending() })
    await until(1)
    const [{ headers, body }] = received as [Received]
    for (const byte of [1, 2])
      new Webhook(secret(byte)).verify(body, headers as Record<string, string>)
  })

  it('are tried again under the same id until they are taken', async () => {
    answer = (response, count) => {
      if (count === 1) response.writeHead(500).end()
      else if (count === 2) response.destroy()
      else response.writeHead(200).end()
    }
    notifier().tell({ from: 'RECEIVED', approval: pending() })
    await until(3)
    await sleep(150)
    expect(received).to.have.length(3)
    expect(new Set(received.map(({ headers }) => headers['webhook-id'])).size).to.equal(1)
  })

  it('wait when a receiver asks for it, and are not given up because it asks for long', async () => {
    const problems: string[] = []
    const listening = { ...log, error: (_fields: object, text: string) => problems.push(text) }
    answer = (response) => response.writeHead(429, { 'retry-after': '999999' }).end()
    const targets = notificationsSchema.parse([
      { name: 'ops', url: url(), format: 'standard', secretFile: join(dir, 'secret') },
    ])
    const one = createNotifications(targets, {
      log: listening as unknown as typeof log,
      now: Date.now,
      firstPauseMs: 20,
    })
    open.push(one)
    one.tell({ from: 'RECEIVED', approval: pending() })
    await until(1)
    await sleep(150)
    expect(received, 'the pause is the receiver’s, not ours').to.have.length(1)
    expect(problems).to.deep.equal([])
  })

  it('that a receiver refuses do not hold up those behind them for ever', async () => {
    const bad = pending()
    answer = (response) => {
      const refuses = received.at(-1)?.body.includes(bad.id) === true
      response.writeHead(refuses ? 400 : 204).end()
    }
    const settings = { name: 'ops', url: url(), format: 'slack' }
    const deps = { log, now: Date.now, firstPauseMs: 20, refusedMs: 100 }
    const one = createNotifications(notificationsSchema.parse([settings]), deps)
    open.push(one)
    one.tell({ from: 'RECEIVED', approval: bad })
    const good = pending()
    one.tell({ from: 'RECEIVED', approval: good })
    const end = performance.now() + 5000
    while (received.at(-1)?.body.includes(good.id) !== true && performance.now() < end)
      await sleep(5)
    expect(received.at(-1)?.body).to.include(good.id)
    expect(received.length).to.be.above(2)
  })

  it('do not follow a redirect', async () => {
    answer = (response, count) => {
      if (count === 1) response.writeHead(307, { location: `${url()}?moved` }).end()
      else response.writeHead(200).end()
    }
    notifier().tell({ from: 'RECEIVED', approval: pending() })
    await until(2)
    expect(received).to.have.length(2)
  })

  it('stop for a receiver that is gone', async () => {
    answer = (response) => response.writeHead(410).end()
    const one = notifier()
    one.tell({ from: 'RECEIVED', approval: pending() })
    await until(1)
    await sleep(50)
    one.tell({ from: 'RECEIVED', approval: pending() })
    await sleep(150)
    expect(received).to.have.length(1)
  })

  it('go to no receiver whose configured authority is none', async () => {
    writeFileSync(join(dir, 'ca.crt'), '')
    notifier({ caFile: join(dir, 'ca.crt') }).tell({ from: 'RECEIVED', approval: pending() })
    await sleep(100)
    expect(received).to.have.length(0)
  })

  it('go to nobody while others can read the secret that signs them, and then after all', async () => {
    chmodSync(join(dir, 'secret'), 0o644)
    notifier().tell({ from: 'RECEIVED', approval: pending() })
    await sleep(100)
    expect(received).to.have.length(0)
    chmodSync(join(dir, 'secret'), 0o600)
    await until(1)
  })

  it('never hold up whoever tells them, and keep a bounded number', async () => {
    answer = () => undefined
    const one = notifier()
    const started = performance.now()
    for (let at = 0; at < MAX_QUEUED * 2; at += 1)
      one.tell({ from: 'RECEIVED', approval: pending() })
    expect(performance.now() - started).to.be.below(1000)
    await until(1)
    await one.close()
  })

  it('have the same id when a broker that restarts announces them again', async () => {
    const approval = pending()
    notifier().tell({ from: 'RECEIVED', approval })
    await until(1)
    notifier().announce([{ ...approval, version: 3 }])
    await until(2)
    expect(received[0]?.headers['webhook-id']).to.equal(received[1]?.headers['webhook-id'])
    expect(received[0]?.body).to.equal(received[1]?.body)
  })

  it('are sent for what a receiver wants to know, of the clusters it cares for', async () => {
    const one = notifier({ events: ['approval.denied', 'breakglass.used'], clusters: ['east'] })
    one.tell({ from: 'RECEIVED', approval: pending({ cluster: 'east' }) })
    one.tell({ from: 'PENDING', approval: pending({ cluster: 'west', state: 'DENIED' }) })
    one.tell({ from: 'PENDING', approval: pending({ cluster: 'east', state: 'DENIED' }) })
    const glass = { state: 'EXECUTING', breakGlass: true, review: 'open' } as const
    one.tell({ from: 'RECEIVED', approval: pending({ cluster: 'east', ...glass }) })
    await until(2)
    await sleep(100)
    expect(received.map(({ body }) => (JSON.parse(body) as { type: string }).type)).to.deep.equal([
      'approval.denied',
      'breakglass.used',
    ])
  })

  it('are a message that Slack takes, with what others chose made harmless', async () => {
    const approval = pending({ name: '<!channel> & <https://evil|click>' })
    const targets = notificationsSchema.parse([
      { name: 'chat', url: url(), format: 'slack', consoleUrl: 'https://console/approvals/' },
    ])
    const one = createNotifications(targets, { log, now: Date.now })
    open.push(one)
    one.tell({ from: 'RECEIVED', approval })
    await until(1)
    const { text, blocks } = JSON.parse(received[0]?.body ?? '') as {
      text: string
      blocks: object[]
    }
    expect(text).to.include('&lt;!channel&gt; &amp;')
    expect(JSON.stringify(blocks)).to.include(`<https://console/approvals/${approval.id}|`)
    expect(JSON.stringify(blocks)).not.to.include('<!channel>').and.not.to.include('<https://evil')
    expect(received[0]?.headers).not.to.have.property('webhook-signature')
  })

  it('are well-formed text wherever a long one is cut', async () => {
    const approval = pending({ explanation: `${'x'.repeat(299)}😀` })
    const targets = notificationsSchema.parse([{ name: 'chat', url: url(), format: 'slack' }])
    const one = createNotifications(targets, { log, now: Date.now })
    open.push(one)
    one.tell({ from: 'RECEIVED', approval })
    await until(1)
    expect(received[0]?.body).not.to.match(/\\ud[89a-f]/i)
  })

  it('are configured with an address that can be sent to, and a secret where one is needed', () => {
    const bad = [
      { name: 'a', url: 'http://example.com', format: 'slack' },
      { name: 'a', url: 'file:///etc/passwd', format: 'slack' },
      { name: 'a', url: 'https://example.com', format: 'standard' },
      { name: 'a', format: 'slack' },
    ]
    for (const target of bad)
      expect(notificationsSchema.safeParse([target]).success).to.equal(false)
  })
})
