import { expect } from 'chai'
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { MAX_WATCHERS } from '../../broker/api/watch.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { facts } from '../support/entries.ts'

interface Watch {
  readonly socket: Socket
  /** All that was received so far. */
  text(): string
  /** Waits until the text has this. */
  has(part: string): Promise<void>
  readonly ended: Promise<unknown>
}

describe('watching held requests', () => {
  let api: ApiServer
  let sockets: Socket[]
  beforeEach(async () => {
    sockets = []
    // expires soon after it has begun to watch
    api = await startApi(undefined, { expiresAtMs: Date.now() + 700 })
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await api.close()
  })

  const watch = (who = 'alice'): Watch => {
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    sockets.push(socket)
    let text = ''
    socket.setEncoding('utf8').on('data', (part: string) => (text += part))
    socket.on('error', () => undefined)
    socket.write(
      `GET /v1/approvals/watch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-${who}\r\n\r\n`,
    )
    return {
      socket,
      text: () => text,
      async has(part) {
        while (!text.includes(part)) await once(socket, 'data')
      },
      ended: once(socket, 'close'),
    }
  }
  const hold = async (change: Parameters<typeof facts>[0] = {}): Promise<string> => {
    const asked = await api.approvals.ask(facts(change), [])
    if (isRefusal(asked)) throw new Error(asked.refused)
    return asked.approval.id
  }
  /** The events of a stream, in order. */
  const eventsOf = (text: string): { name: string; data: Record<string, unknown> }[] =>
    [...text.matchAll(/event: (\w+)\ndata: (.+)\n\n/g)].map(([, name = '', data = '']) => ({
      name,
      data: JSON.parse(data) as Record<string, unknown>,
    }))

  it('begins with all that is pending, and tells each change with what it was before', async () => {
    const first = await hold()
    const watcher = watch()
    await watcher.has('event: snapshot')
    expect(watcher.text()).to.match(/content-type: text\/event-stream/i)
    const second = await hold()
    const decision = { reviewer: 'alice', approve: true, reason: 'yes' }
    await api.approvals.decide({ id: second, ...decision })
    await watcher.has('"state":"APPROVED"')
    const [snapshot, ...changes] = eventsOf(watcher.text())
    expect(snapshot).to.have.nested.property('data.items[0].id', first)
    expect(snapshot?.data['items']).to.have.length(1)
    const told = changes.map(({ name, data }) => {
      const { id, state } = data['approval'] as { id: string; state: string }
      return [name, data['from'], state, id]
    })
    expect(told).to.deep.equal([
      ['change', 'RECEIVED', 'PENDING', second],
      ['change', 'PENDING', 'APPROVED', second],
    ])
    expect(watcher.text()).to.contain('id: 2\n').and.not.contain('callerKey')
  })

  it('loses nothing that happens while the snapshot is made', async () => {
    const list = api.approvals.list.bind(api.approvals)
    const released = Promise.withResolvers<undefined>()
    const begun = Promise.withResolvers<undefined>()
    api.approvals.list = async (...args) => {
      const result = await list(...args)
      begun.resolve(undefined)
      await released.promise
      return result
    }
    const watcher = watch()
    await begun.promise
    const id = await hold()
    released.resolve(undefined)
    await watcher.has(id)
    expect(eventsOf(watcher.text()).map(({ name }) => name)).to.deep.equal(['snapshot', 'change'])
  })

  it('ends when the broker closes', async () => {
    const watcher = watch()
    await watcher.has('event: snapshot')
    api.approvals.close()
    await watcher.has('0\r\n\r\n')
  })

  it('ends when the person’s token does', async () => {
    const watcher = watch('brief')
    await watcher.has('event: snapshot')
    await watcher.has('0\r\n\r\n')
  })

  it('takes a bounded number of watchers, and another one when one has left', async () => {
    const watchers = Array.from({ length: MAX_WATCHERS }, () => watch())
    await Promise.all(watchers.map((one) => one.has('event: snapshot')))
    const refused = watch()
    await refused.has('broker_busy')
    watchers[0]?.socket.destroy()
    await new Promise((resolve) => setTimeout(resolve, 100))
    await watch().has('event: snapshot')
  })

  it('drops a watcher who does not read, and delays no decision for them', async () => {
    const slow = watch()
    await slow.has('event: snapshot')
    slow.socket.pause()
    const quick = watch()
    await quick.has('event: snapshot')
    // more than sockets and the broker hold together
    const tag = { text: 'x'.repeat(60_000) }
    const ids: string[] = []
    for (let i = 0; i < 200; i += 1) ids.push(await hold({ tag, podUid: `pod-${i}` }))
    for (const id of ids) {
      await api.approvals.decide({ id, reviewer: 'alice', approve: false, reason: 'x' })
    }
    await quick.has(`"DENIED"`)
    while (!quick.text().includes(`${ids.at(-1)}","state":"DENIED`))
      await once(quick.socket, 'data')
    slow.socket.resume()
    await slow.ended
    expect(slow.text()).to.not.contain(`${ids.at(-1)}","state":"DENIED`)
  }).timeout(20_000)
})
