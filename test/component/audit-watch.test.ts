import { expect } from 'chai'
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { MAX_AUDIT_WATCHERS } from '../../broker/api/audit-watch.ts'
import { Fault } from '../../shared/errors.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent } from '../support/entries.ts'
import { MemoryLedger } from '../support/memory-ledger.ts'

interface Watch {
  readonly socket: Socket
  text(): string
  has(part: string): Promise<void>
  /** Numbers of the entries that came. */
  seqs(): number[]
  readonly ended: Promise<unknown>
}

describe('watching the ledger', () => {
  let ledger: MemoryLedger
  let api: ApiServer
  let sockets: Socket[]
  let failing = false
  beforeEach(async () => {
    sockets = []
    failing = false
    ledger = new MemoryLedger()
    api = await startApi((store) => ledger.over(store), {
      roles: ['auditor'],
      expiresAtMs: Date.now() + 1_500,
    })
    const head = ledger.head.bind(ledger)
    ledger.head = () => (failing ? Promise.reject(new Fault('store_failed', 'gone')) : head())
  })
  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await api.close()
  })

  const watch = (query = '', who = 'carol', header = ''): Watch => {
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    sockets.push(socket)
    let text = ''
    socket.setEncoding('utf8').on('data', (part: string) => (text += part))
    socket.on('error', () => undefined)
    socket.write(
      `GET /v1/audit/watch${query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-${who}\r\n${header}\r\n`,
    )
    return {
      socket,
      text: () => text,
      async has(part) {
        while (!text.includes(part)) await once(socket, 'data')
      },
      seqs: () => [...text.matchAll(/id: (\d+)\nevent: entry\n/g)].map(([, seq]) => Number(seq)),
      ended: once(socket, 'close'),
    }
  }

  it('shows what comes, oldest first, each once, and is itself an entry', async () => {
    await ledger.append([intent(), intent()])
    const watcher = watch('?agent=new')
    await watcher.has('event: start\ndata: {"after":2}')
    const read = ledger.rows.at(-1)?.entry
    expect(read).to.deep.include({ event: 'audit_read', actor: 'carol' })
    expect(read).to.have.deep.nested.property('detail.query', '{"agent":"new","watch":true}')
    const first = await ledger.append([
      intent({ agent: 'new' }),
      intent(),
      intent({ agent: 'new' }),
    ])
    await watcher.has(`id: ${first + 2}\n`)
    const next = await ledger.append([intent({ agent: 'new' })])
    await watcher.has(`id: ${next}\n`)
    expect(watcher.seqs()).to.deep.equal([first, first + 2, next])
    const [, data = ''] = /event: entry\ndata: (.+)\n\n/.exec(watcher.text()) ?? []
    expect(JSON.parse(data)).to.deep.equal(ledger.rows[first]?.event)
  })

  it('goes on after the entry that one has, also by Last-Event-ID, through a clock that was set back', async () => {
    const first = await ledger.append(Array.from({ length: 300 }, () => intent()))
    ledger.nowUs -= 3_600_000_000
    const last = (await ledger.append(Array.from({ length: 300 }, () => intent()))) + 299
    const all = watch(`?kind=intent&after=${first + 9}`)
    await all.has(`id: ${last}\n`)
    const expected = Array.from({ length: 590 }, (_, i) => first + 10 + i)
    expect(all.seqs()).to.deep.equal(expected)
    const again = watch('?kind=intent&after=0', 'carol', `Last-Event-ID: ${last - 2}\r\n`)
    await again.has(`id: ${last}\n`)
    expect(again.seqs()).to.deep.equal([last - 1, last])
  })

  for (const [query, header] of [
    ['?after=1000', ''],
    ['?after=-1', ''],
    ['?limit=1', ''],
    ['?cursor=x', ''],
    ['', 'Last-Event-ID: x\r\n'],
  ] as const) {
    it(`refuses ${query}${header.trim()}`, async () => {
      const watcher = watch(query, 'carol', header)
      await watcher.has('query_invalid')
      expect(watcher.text()).to.match(/^HTTP\/1.1 400/)
    })
  }

  it('is for auditors', async () => {
    const watcher = watch('', 'alice')
    await watcher.has('role_missing')
  })

  it('ends with the token, and with the broker', async () => {
    const brief = watch('', 'brief')
    const other = watch()
    await Promise.all([brief.has('event: start'), other.has('event: start')])
    await brief.has('0\r\n\r\n')
    expect(other.text()).to.not.contain('0\r\n\r\n')
    api.approvals.close()
    await other.has('0\r\n\r\n')
  })

  it('breaks off, and does not end, where the store fails', async () => {
    const watcher = watch()
    await watcher.has('event: start')
    failing = true
    await watcher.ended
    expect(watcher.text()).to.not.contain('0\r\n\r\n')
  })

  it('is not begun where the reading cannot be written down', async () => {
    ledger.append = () => Promise.reject(new Fault('store_failed', 'full'))
    const watcher = watch()
    await watcher.has('ledger_unavailable')
    expect(watcher.text()).to.match(/^HTTP\/1.1 503/)
  })

  it('takes a bounded number of watchers, and another one when one has left', async () => {
    const all = Array.from({ length: MAX_AUDIT_WATCHERS }, () => watch())
    await Promise.all(all.map((one) => one.has('event: start')))
    const late = watch()
    await late.has('broker_busy')
    all[0]?.socket.destroy()
    for (;;) {
      const next = watch()
      await Promise.race([next.has('event: start'), next.has('broker_busy')])
      if (next.text().includes('event: start')) break
    }
  })
})
