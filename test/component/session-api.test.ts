/** The routes of sessions over a real socket, with a real ledger, and recordings of real events. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { MAX_FOLLOWERS } from '../../broker/api/session-follow.ts'
import { MAX_MATCHES_OF_SESSION } from '../../broker/api/session-grep.ts'
import {
  FIRST_USE_MS,
  MAX_TICKETS_OF_PERSON,
  SessionTickets,
  USE_MS,
} from '../../broker/api/session-tickets.ts'
import { Fault } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import type { Session } from '../../shared/recording/session-wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { MemorySessions, session, Tape, TOTALS } from '../support/memory-sessions.ts'

describe('the API of sessions', () => {
  let api: ApiServer
  let sessions: MemorySessions
  let appends: number
  let failing: boolean
  beforeEach(async () => {
    sessions = new MemorySessions()
    appends = 0
    failing = false
    api = await startApi(
      (store) =>
        new Proxy(store, {
          get: (target, key) => {
            const value = Reflect.get(target, key) as unknown
            if (key !== 'append')
              return typeof value === 'function' ? (value.bind(target) as unknown) : value
            return (...args: Parameters<typeof store.append>) => {
              appends += 1
              return failing
                ? Promise.reject(new Fault('store_failed', 'gone'))
                : store.append(...args)
            }
          },
        }),
      {},
      { sessions },
    )
  })
  afterEach(() => api.close())

  const get = (
    path: string,
    as = 'carol',
    headers: Record<string, string> = {},
  ): Promise<Response> =>
    fetch(`${api.url}/v1/sessions${path}`, {
      headers: {
        authorization: as.includes('-') ? `Bearer ${as}` : `Bearer token-${as}`,
        ...headers,
      },
    })
  const post = (path: string, as: string, body?: object): Promise<Response> =>
    fetch(`${api.url}/v1/sessions${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer token-${as}`, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  const codeOf = async (response: Promise<Response>): Promise<[number, unknown]> => {
    const answer = await response
    return [answer.status, ((await answer.json()) as { code?: string }).code]
  }
  const reads = async (): Promise<unknown[]> => {
    const events = await api.store.events({ event: 'audit_read' }, 100)
    return events.map(({ entry }) => entry['detail']).toReversed()
  }
  const add = (
    more: Partial<Session> = {},
    fill: (tape: Tape) => Tape = (tape) => tape,
  ): Session => {
    const one = session(more)
    return sessions.add(one, fill(new Tape(one)))
  }
  const hello = (tape: Tape): Tape => tape.out(5, 'hello\n').json('end', 9, TOTALS)

  it('lists and shows for reviewers and auditors, and refuses what it does not understand', async () => {
    const first = add({ startedAt: '2026-11-26T10:00:00.000Z', kind: 'logs' })
    const second = add({ startedAt: '2026-11-26T11:00:00.000Z' })
    const page = (await (await get('?limit=1', 'bob')).json()) as {
      sessions: Session[]
      next: string
    }
    expect(page.sessions).to.deep.equal([second])
    const rest = await (await get(`?limit=1&cursor=${page.next}`)).json()
    expect(rest).to.deep.include({ sessions: [first] })
    expect(await (await get('?kind=logs&until=2026-11-26T11:00:00Z')).json()).to.deep.equal({
      sessions: [first],
    })
    expect(await (await get(`/${first.id}`, 'bob')).json()).to.deep.equal(first)
    for (const query of [
      '?kind=x',
      '?limit=0',
      '?surprise=1',
      '?kind=logs&kind=exec',
      '?since=2026-11-26T11:00:00Z&until=2026-11-26T11:00:00Z',
    ])
      expect(await codeOf(get(query)), query).to.deep.equal([400, 'query_invalid'])
    expect(await codeOf(get(`/${newRequestId(0)}`))).to.deep.equal([404, 'session_unknown'])
    expect(await codeOf(get('/..%2f..%2fx'))).to.deep.equal([404, 'session_unknown'])
    expect(await codeOf(get('', 'nobody-x'))).to.deep.equal([401, 'credentials_invalid'])
    expect(appends, 'only the logins').to.equal(2)
  })

  it('sends the events, whole and in parts, and has written down that it does', async () => {
    const { id } = add({}, hello)
    const all = await get(`/${id}/events`)
    const bytes = Buffer.from(await all.arrayBuffer())
    expect([
      all.status,
      all.headers.get('content-type'),
      all.headers.get('accept-ranges'),
      all.headers.get('content-length'),
    ]).to.deep.equal([200, 'application/vnd.nestgate.recording', 'bytes', String(bytes.length)])
    expect(bytes.includes('hello')).to.equal(true)
    const size = bytes.length
    for (const [range, from, to] of [
      ['bytes=0-0', 0, 1],
      ['bytes=3-10', 3, 11],
      [`bytes=${size - 1}-`, size - 1, size],
      ['bytes=5-999999', 5, size],
      ['bytes=-7', size - 7, size],
      ['bytes=-999999', 0, size],
    ] as const) {
      const part = await get(`/${id}/events`, 'carol', { range })
      expect([part.status, part.headers.get('content-range')], range).to.deep.equal([
        206,
        `bytes ${from}-${to - 1}/${size}`,
      ])
      expect(
        Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(from, to)),
        range,
      ).to.equal(true)
    }
    for (const range of [`bytes=${size}-`, 'bytes=-0', 'bytes=999999-9999999']) {
      const none = await get(`/${id}/events`, 'carol', { range })
      expect([none.status, none.headers.get('content-range')], range).to.deep.equal([
        416,
        `bytes */${size}`,
      ])
    }
    for (const range of [
      'bytes=0-1,3-4',
      'lines=0-1',
      'bytes=4-2',
      'bytes=-',
      'bytes=a-b',
      'bytes=1e1-',
    ])
      expect((await get(`/${id}/events`, 'carol', { range })).status, range).to.equal(200)
    expect(
      (await get(`/${id}/events`, 'carol', { range: 'bytes=0-0', 'if-range': '"x"' })).status,
    ).to.equal(200)
    expect((await reads()).slice(0, 2)).to.deep.equal([
      { session: id, route: 'events' },
      { session: id, route: 'events', from: 0, to: 1 },
    ])
  })

  it('sends chunks as they are sealed, an asciicast, and what is no output', async () => {
    const file = { direction: 'fromPod', name: 'a', type: 'file', size: 3 }
    const { id } = add({}, (tape) => hello(tape.json('file', 4, file)))
    expect(await (await get(`/${id}/sealed`)).text()).to.equal('sealed chunks')
    const cast = await get(`/${id}/asciicast`)
    expect(cast.headers.get('content-type')).to.equal('application/x-asciicast')
    const [header, ...lines] = (await cast.text())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown)
    expect(header).to.deep.include({ version: 3 })
    expect(JSON.stringify(lines)).to.include('hello')
    expect(await (await get(`/${id}/details`)).json()).to.deep.equal({
      items: [
        { type: 'file', atUs: 4, value: file },
        { type: 'end', atUs: 9, value: TOTALS },
      ],
      more: [],
    })
    expect(await reads()).to.deep.equal(
      ['sealed', 'asciicast', 'details'].map((route) => ({ session: id, route })),
    )
    expect(sessions.open).to.equal(0)
  })

  it('shows nothing that could not be written down, to nobody who may not, and not to HEAD', async () => {
    const { id } = add({}, hello)
    const running = add({ state: 'running' }, hello).id
    await get('', 'carol')
    failing = true
    for (const path of [
      `/${id}/events`,
      `/${id}/sealed`,
      `/${id}/asciicast`,
      `/${id}/details`,
      `/${running}/follow`,
      '/grep?text=hello',
    ])
      expect(await codeOf(get(path)), path).to.deep.equal([503, 'ledger_unavailable'])
    expect(await codeOf(post(`/${id}/view`, 'carol'))).to.deep.equal([503, 'ledger_unavailable'])
    expect(sessions.pulls, 'nothing was read').to.equal(0)
    failing = false
    for (const path of [
      `/${id}/events`,
      `/${id}/sealed`,
      `/${id}/asciicast`,
      `/${id}/details`,
      '/grep?text=hello',
    ])
      expect(await codeOf(get(path, 'bob')), path).to.deep.equal([403, 'role_missing'])
    expect(await codeOf(post(`/${id}/view`, 'bob'))).to.deep.equal([403, 'role_missing'])
    const before = appends
    const head = await fetch(`${api.url}/v1/sessions/${id}/events`, {
      method: 'HEAD',
      headers: { authorization: 'Bearer token-carol' },
    })
    expect([head.status, appends - before]).to.deep.equal([404, 0])
  })

  it('says why there is no recording, and cuts the answer where it is not readable to its end', async () => {
    const { id } = add({}, hello)
    sessions.refusal = refuse('session_expired')
    expect(await codeOf(get(`/${id}/events`))).to.deep.equal([410, 'session_expired'])
    sessions.refusal = undefined
    const corrupt = add({}, (tape) => {
      tape.out(1, 'x'.repeat(5000))
      tape.pieces.push(Buffer.from([77, 0, 0, 0]))
      return tape
    })
    expect(await codeOf(get(`/${corrupt.id}/details`))).to.deep.equal([500, 'recording_corrupt'])
    const error = await get(`/${corrupt.id}/asciicast`)
      .then((response) => response.text())
      .catch((reason: unknown) => reason)
    expect(error).to.be.an.instanceOf(Error)
    expect(sessions.open).to.equal(0)
  })

  it('reads no further than the client does, and frees what it holds when the client leaves', async () => {
    const { id } = add({}, (tape) => {
      for (let i = 0; i < 600; i += 1) tape.out(i, Buffer.alloc(60_000, 'a'))
      return tape
    })
    sessions.pieceBytes = 60_000
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    socket.write(
      `GET /v1/sessions/${id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-carol\r\n\r\n`,
    )
    await once(socket, 'readable')
    let last = -1
    while (last !== sessions.pulls) {
      last = sessions.pulls
      await sleep(100)
    }
    expect(sessions.pulls).to.be.within(1, 400)
    expect(sessions.open).to.equal(1)
    socket.destroy()
    while (sessions.open > 0) await sleep(10)
  })

  /** Server-sent events of an answer until it ends, or so many. */
  const eventsOf = async (
    response: Response,
    count = Infinity,
  ): Promise<{ id: string; name: string; data: string }[]> => {
    let text = ''
    const found = (): { id: string; name: string; data: string }[] =>
      [...text.matchAll(/(?:id: (\d+)\n)?event: (\w+)\ndata: (.*)\n\n/g)].map(
        ([, id = '', name = '', data = '']) => ({ id, name, data }),
      )
    for await (const part of response.body ?? []) {
      text += Buffer.from(part as Uint8Array).toString()
      if (found().length >= count) break
    }
    return found()
  }

  it('follows a running session to its end, also from the middle', async () => {
    const one = add({ state: 'running' })
    const start = (await sessions.size(one.id)) as number
    const piece = new Tape(one).out(7, 'later').pieces.at(-1)!
    const following = get(`/${one.id}/follow`, 'bob').then((response) => eventsOf(response))
    const later = get(`/${one.id}/follow`, 'carol', { 'last-event-id': String(start) }).then(
      (response) => eventsOf(response),
    )
    while (sessions.followers(one.id) < 2) await sleep(5)
    sessions.append(one.id, piece)
    await sleep(50)
    sessions.over(one.id, { result: { status: 'Success' } })
    const all = await following
    expect(all.map(({ name, id }) => [name, id])).to.deep.equal([
      ['events', String(start)],
      ['events', String(start + piece.length)],
      ['end', ''],
    ])
    expect(Buffer.from(all[1]!.data, 'base64').equals(piece)).to.equal(true)
    expect(JSON.parse(all[2]!.data)).to.deep.include({
      id: one.id,
      state: 'ended',
      result: { status: 'Success' },
    })
    expect((await later).map(({ name }) => name)).to.deep.equal(['events', 'end'])
    expect(await reads()).to.have.deep.members([
      { session: one.id, route: 'follow', from: 0 },
      { session: one.id, route: 'follow', from: start },
    ])
    expect(await codeOf(get(`/${one.id}/follow`, 'bob'))).to.deep.equal([409, 'session_over'])
    for (const query of ['from=x', 'from=-1', 'format=gif', 'format=asciicast&from=5'])
      expect(await codeOf(get(`/${one.id}/follow?${query}`)), query).to.deep.equal([
        400,
        'query_invalid',
      ])
  })

  it('follows as an asciicast with what is no output, and ends without an end where the token ends', async () => {
    const one = add({ state: 'running' }, hello)
    const seen = await eventsOf(await get(`/${one.id}/follow?format=asciicast`), 3)
    expect(seen.map(({ name }) => name)).to.have.members(['cast', 'cast', 'detail'])
    expect(seen.filter(({ name }) => name === 'cast')[1]?.data).to.include('hello')
    while (sessions.followers(one.id) > 0) await sleep(5)
    const following = get(`/${one.id}/follow`).then((response) => eventsOf(response))
    while (sessions.followers(one.id) < 1) await sleep(5)
    api.approvals.close()
    expect((await following).map(({ name }) => name)).to.deep.equal(['events'])
  })

  it('has a bounded number of followers', async () => {
    const { id } = add({ state: 'running' }, hello)
    const leaving = new AbortController()
    const follow = (): Promise<Response> =>
      fetch(`${api.url}/v1/sessions/${id}/follow`, {
        headers: { authorization: 'Bearer token-bob' },
        signal: leaving.signal,
      })
    const all = await Promise.all(Array.from({ length: MAX_FOLLOWERS }, follow))
    expect(all.every(({ status }) => status === 200)).to.equal(true)
    expect(await codeOf(follow())).to.deep.equal([503, 'broker_busy'])
    leaving.abort()
    while (sessions.followers(id) > 0) await sleep(10)
    expect((await get(`/${id}/follow`, 'bob')).status).to.equal(200)
  })

  it('is asked for no more by a follower who does not read', async () => {
    const { id } = add({ state: 'running' })
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    socket.write(
      `GET /v1/sessions/${id}/follow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer token-carol\r\n\r\n`,
    )
    while (sessions.followers(id) < 1) await sleep(5)
    const [, ...pieces] = new Tape(session()).out(1, Buffer.alloc(6_000_000, 'a')).pieces
    const piece = Buffer.concat(pieces)
    sessions.pieceBytes = piece.length
    let read = 0
    for (let i = 0; i < 20; i += 1) {
      read = sessions.pulls
      sessions.append(id, piece)
      await sleep(10)
    }
    expect(sessions.pulls, 'it waits').to.equal(read)
    expect(read).to.be.below(10)
    let seen = 0
    socket.on('data', (part: Buffer) => (seen += part.length))
    sessions.over(id)
    await once(socket, 'close')
    // what did not wait for the follower was read from where it lies
    expect(sessions.pulls).to.be.above(read)
    // base64 of all of it
    expect(seen).to.be.above((20 * piece.length * 4) / 3)
    expect([sessions.followers(id), sessions.open]).to.deep.equal([0, 0])
  })

  const grep = async (query: string): Promise<Record<string, unknown>[]> => {
    const response = await get(`/grep?${query}`)
    expect(response.headers.get('content-type')).to.equal('application/x-ndjson')
    return (await response.text())
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  }

  it('finds a text across events, escape sequences and capitals, and shows it without them', async () => {
    const one = add({}, (tape) => {
      tape.out(10, 'first\nthe pass\u001b[31mwo')
      tape.out(20, 'error: nothing\n', 'stderr')
      return tape.out(30, 'rd\u001b[0m is \u001b]52;c;evil\u0007here\u202e\nlast PASSWORD')
    })
    add({ namespace: 'other' }, (tape) => tape.out(1, 'password\n'))
    const found = { id: one.id, startedAt: one.startedAt, stream: 'stdout' }
    expect(await grep('text=password&namespace=shop')).to.deep.equal([
      { ...found, atUs: 10, line: 2, text: 'the password is here' },
      { searched: 1 },
    ])
    expect(
      (await grep('text=passWORD&namespace=shop&ignoreCase=true')).map(({ line }) => line),
    ).to.deep.equal([2, 3, undefined])
    expect(await grep('text=nothing')).to.deep.include({
      id: one.id,
      startedAt: one.startedAt,
      stream: 'stderr',
      atUs: 20,
      line: 1,
      text: 'error: nothing',
    })
    expect((await reads())[0]).to.deep.equal({
      route: 'grep',
      query: JSON.stringify({ namespace: 'shop', ignoreCase: false, textLength: 8 }),
    })
    for (const query of ['', 'text=', 'text=a%0ab', `text=${'a'.repeat(300)}`, 'text=a&cursor=x'])
      expect(await codeOf(get(`/grep?${query}`)), query).to.deep.equal([400, 'query_invalid'])
  })

  it('finds what lies across the parts of a line without end', async () => {
    const filler = 'ab'.repeat(40_000)
    const { id } = add({}, (tape) => {
      for (let i = 0; i < 8; i += 1) tape.out(i, filler.slice(0, 60_000))
      tape.out(9, `${filler.slice(0, 5_535)}need`)
      return tape.out(10, `le${filler.slice(0, 60_000)}`)
    })
    const [match, end] = await grep('text=needle')
    expect(match).to.deep.include({ id, line: 1 })
    expect(String(match?.['text'])).to.include('needle').and.to.have.length.below(500)
    expect(end).to.deep.equal({ searched: 1 })
  })

  it('tells a bounded number of lines of a session, what it could not read, and where to go on', async () => {
    const many = add({ startedAt: '2026-11-26T10:00:00.000Z' }, (tape) =>
      tape.out(1, 'x\n'.repeat(1000)),
    )
    add({ startedAt: '2026-11-26T11:00:00.000Z' }, (tape) => {
      tape.pieces.push(Buffer.from([77]))
      return tape
    })
    const lines = await grep('text=x')
    expect(lines).to.have.length(MAX_MATCHES_OF_SESSION + 1)
    expect(lines.at(-1)).to.deep.include({ searched: 1, cut: [many.id] })
    expect(lines.at(-1)?.['unread']).to.have.length(1)
    expect(sessions.open).to.equal(0)
    for (let i = 0; i < 201; i += 1)
      add({ startedAt: new Date(Date.UTC(2026, 10, 27) + i * 1000).toISOString() }, (tape) =>
        tape.out(1, 'y\n'),
      )
    const first = await grep('text=y')
    expect(first).to.have.length(201)
    const { more } = first.at(-1) as { more: string }
    // what is new does not move the place
    add({ startedAt: '2026-11-28T00:00:00.000Z' }, (tape) => tape.out(1, 'y\n'))
    const rest = await grep(`text=y&cursor=${more}`)
    expect(rest).to.have.length(2)
    expect(first.map(({ id }) => id)).not.to.include(rest[0]?.['id'])
  })

  it('ends a running session for a reviewer, with a reason', async () => {
    const { id } = add({ state: 'running' }, hello)
    expect(await codeOf(post(`/${id}/kill`, 'carol', { reason: 'x' }))).to.deep.equal([
      403,
      'role_missing',
    ])
    expect(await codeOf(post(`/${id}/kill`, 'bob', {}))).to.deep.equal([400, 'body_invalid'])
    const killed = (await (
      await post(`/${id}/kill`, 'bob', { reason: 'it is ours' })
    ).json()) as Session
    expect([killed.state, killed.ending]).to.deep.equal(['ended', 'killed'])
    expect(sessions.kills).to.deep.equal([{ actor: 'bob', reason: 'it is ours' }])
    expect(await codeOf(post(`/${id}/kill`, 'bob', { reason: 'x' }))).to.deep.equal([
      409,
      'session_over',
    ])
  })

  it('gives a link whose ticket reads that session and no other, by the routes of the page', async () => {
    const { id } = add({}, hello)
    const other = add({}, hello).id
    const running = add({ state: 'running' }, hello).id
    const view = (await (await post(`/${id}/view`, 'carol')).json()) as {
      url: string
      expiresAt: string
    }
    const url = new URL(view.url)
    expect([url.protocol, url.host, url.pathname, url.search]).to.deep.equal([
      'https:',
      new URL(api.url).host,
      `/pages/sessions/${id}`,
      '',
    ])
    expect(Date.parse(view.expiresAt) - Date.now()).to.be.within(
      FIRST_USE_MS - 10_000,
      FIRST_USE_MS,
    )
    const ticket = url.hash.slice('#ticket='.length)
    for (const path of [`/${id}`, `/${id}/asciicast`, `/${id}/details`])
      expect((await get(path, ticket)).status, path).to.equal(200)
    for (const path of [
      '',
      '/grep?text=x',
      `/${other}`,
      `/${other}/asciicast`,
      `/${running}/follow`,
      `/${id}/events`,
      `/${id}/sealed`,
    ])
      expect(await codeOf(get(path, ticket)), path).to.deep.equal([401, 'credentials_invalid'])
    for (const path of ['/v1/me', '/v1/audit/events', '/v1/approvals'])
      expect(
        (await fetch(api.url + path, { headers: { authorization: `Bearer ${ticket}` } })).status,
        path,
      ).to.equal(401)
    const events = await api.store.events({ event: 'audit_read' }, 100)
    expect(
      events.map(({ entry }) => [entry['actor'], (entry['detail'] as { route: string }).route]),
    ).to.deep.equal([
      ['carol', 'details'],
      ['carol', 'asciicast'],
      ['carol', 'view'],
    ])
    expect(JSON.stringify(events)).not.to.include(ticket)
    expect(await codeOf(post(`/${newRequestId(0)}/view`, 'carol'))).to.deep.equal([
      404,
      'session_unknown',
    ])
  })

  it('makes no link of a host that is none', async () => {
    const { id } = add({}, hello)
    const ask = async (host: string): Promise<string> => {
      const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
      socket.write(
        `POST /v1/sessions/${id}/view HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer token-carol\r\nConnection: close\r\n\r\n`,
      )
      let text = ''
      for await (const part of socket.setEncoding('utf8')) text += String(part)
      return text
    }
    for (const host of ['evil.example/@x', 'a b', 'user@x', 'x:99999999', '<script>', ''])
      expect(await ask(host), host).to.match(/^HTTP\/1.1 400/)
    for (const host of ['broker.example', '[::1]:8443', '127.0.0.1:8443', 'nestgate'])
      expect(await ask(host), host).to.include(`"url":"https://${host}/pages/`)
  })
})

describe('tickets of sessions', () => {
  const person = { name: 'carol', roles: ['auditor'] } as const
  let now = 0
  let tickets: SessionTickets
  beforeEach(() => {
    now = 1_000_000
    tickets = new SessionTickets(() => now)
  })
  const issue = (who: Parameters<SessionTickets['issue']>[0] = person): string => {
    const issued = tickets.issue(who, 's')
    if (isRefusal(issued)) throw new Error(issued.refused)
    return issued.ticket
  }

  it('are good for a while until they are used, and for longer then', () => {
    const unused = issue()
    const used = issue()
    now += FIRST_USE_MS - 1
    expect(tickets.use(used, 's')).to.include({ name: 'carol', expiresAtMs: now + USE_MS })
    now += 1
    expect(tickets.use(unused, 's')).to.equal(undefined)
    now += USE_MS - 2
    expect(tickets.use(used, 's')).to.include({ name: 'carol' })
    now += 1
    expect(tickets.use(used, 's')).to.equal(undefined)
  })

  it('are good for no longer than what the person signed in with', () => {
    const ticket = issue({ ...person, expiresAtMs: now + 1000 })
    expect(tickets.use(ticket, 's')).to.include({ expiresAtMs: now + 1000 })
    now += 1000
    expect(tickets.use(ticket, 's')).to.equal(undefined)
  })

  it('are each another, and of one person only so many', () => {
    const all = Array.from({ length: MAX_TICKETS_OF_PERSON + 1 }, () => issue())
    expect(new Set(all).size).to.equal(all.length)
    expect(tickets.use(all[0]!, 's')).to.equal(undefined)
    expect(tickets.use(all[1]!, 's')).not.to.equal(undefined)
    expect(tickets.use(all[1]!, 'other')).to.equal(undefined)
  })
})
