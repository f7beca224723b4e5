/** How many connections the sidecar takes, and from whom: real clients of several users, told apart by the kernel. */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { createLog } from '../../shared/log.ts'
import { reasonInStatus } from '../../shared/status.ts'
import { createCallers } from '../../sidecar/caller/caller.ts'
import type { Callers } from '../../sidecar/caller/caller.ts'
import { createExeHashes } from '../../sidecar/caller/exe-hash.ts'
import { openKernel } from '../../sidecar/caller/kernel.ts'
import { MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID } from '../../sidecar/connections.ts'
import { listen } from '../../sidecar/listeners.ts'
import type { Listeners } from '../../sidecar/listeners.ts'
import { dialog, run } from '../support/client-processes.ts'
import type { Dialog } from '../support/client-processes.ts'

const SOCKET_AGENT = join(import.meta.dirname, '..', 'support', 'socket-agent.py')
const MANY = MAX_CONNECTIONS + 76
const UID = 12_345
const OTHER_UID = 12_346

describe('sidecar: the number of connections', function () {
  this.timeout(30_000)
  const log = createLog('test', 'silent')
  let callers: Callers
  let listeners: Listeners
  let python = ''
  let waiting: ServerResponse[] = []
  let agents: Dialog[] = []

  beforeEach(async () => {
    python = (await run('python3', ['-c', 'import sys; print(sys.executable)'])).stdout.trim()
    callers = createCallers({
      procRoot: '/proc',
      ...openKernel('/proc', log),
      hashes: createExeHashes(),
      unreadable: 'ignore',
      level: () => ({ kind: 'process' }),
      now: () => performance.now(),
    })
    const deps = {
      callers,
      log,
      onRequest: ({ url }: IncomingMessage, response: ServerResponse): void => {
        if (url === '/wait') waiting.push(response)
        else response.writeHead(200, { 'content-length': 6 }).end('served')
      },
      onUpgrade: ({ url }: IncomingMessage, socket: Duplex): void => {
        if (url === '/refused') socket.end('refused')
        else socket.pipe(socket)
      },
    }
    listeners = await listen(deps, ['127.0.0.1'], 0)
  })
  afterEach(async () => {
    await Promise.all(agents.map((agent) => agent.end()))
    for (const response of waiting) response.destroy()
    agents = []
    waiting = []
    await listeners.close()
    callers.close()
  })

  /** A client of this user, or of that of the test. */
  async function client(uid?: number): Promise<Dialog> {
    const agent = dialog(python, [SOCKET_AGENT, String(listeners.addresses[0]?.port ?? 0)])
    agents.push(agent)
    if (uid !== undefined) await agent.ask(`become ${uid}`)
    return agent
  }

  /** A client of the test's own that asks for other protocols and does not end its side. */
  function upgrade(path: string): Socket {
    const port = listeners.addresses[0]?.port ?? 0
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    )
    return socket
  }

  it('lets a user end no idle connection but its own', async () => {
    const other = await client()
    await other.ask('connect')
    const flooder = await client(UID)
    await flooder.ask(`flood ${MANY}`)
    await waitFor(async () => (await openOf(flooder)) === MAX_CONNECTIONS_PER_UID)
    expect(await openOf(flooder)).to.equal(MAX_CONNECTIONS_PER_UID)
    expect(listeners.connections()).to.equal(MAX_CONNECTIONS_PER_UID + 1)
    expect(await other.ask('get /')).to.equal('served')
  })

  it('tells a user with that many requests under way to come back, ends none of them, and serves others', async () => {
    const flooder = await client(UID)
    await flooder.ask(`flood ${MAX_CONNECTIONS_PER_UID} /wait`)
    await waitFor(() => waiting.length === MAX_CONNECTIONS_PER_UID)
    const same = await client(UID)
    await same.ask('connect')
    expect(reasonInStatus(await same.ask('get /'))).to.equal('sidecar_busy')
    const other = await client()
    await other.ask('connect')
    expect(await other.ask('get /')).to.equal('served')
    expect(await openOf(flooder)).to.equal(MAX_CONNECTIONS_PER_UID)
    waiting[0]?.end('served')
    await same.ask('connect')
    expect(await same.ask('get /')).to.equal('served')
  })

  it('ends the connection that was idle longest when all users together have too many', async () => {
    const [early, first, second] = [await client(), await client(UID), await client(OTHER_UID)]
    await early.ask('connect')
    await first.ask(`flood ${MAX_CONNECTIONS_PER_UID} /wait`)
    await second.ask(`flood ${MAX_CONNECTIONS_PER_UID - 1}`)
    await waitFor(() => waiting.length === MAX_CONNECTIONS_PER_UID)
    await waitFor(() => listeners.connections() === MAX_CONNECTIONS)
    expect(listeners.connections()).to.equal(MAX_CONNECTIONS)
    expect(await early.ask('get /')).to.equal('served')
    const late = await client()
    await late.ask('connect')
    expect(await late.ask('get /')).to.equal('served')
    expect(listeners.connections()).to.equal(MAX_CONNECTIONS)
    const left = [await openOf(first), await openOf(second)]
    expect(left).to.deep.equal([MAX_CONNECTIONS_PER_UID, MAX_CONNECTIONS_PER_UID - 2])
    expect(await early.ask('get /')).to.equal('served')
  })

  it('keeps the connection of a session, but not of one that was refused and is left open', async () => {
    const [session, refused] = [upgrade('/session'), upgrade('/refused')]
    await once(refused, 'data')
    refused.resume()
    const flooder = await client()
    await flooder.ask(`flood ${MANY}`)
    await waitFor(async () => (await openOf(flooder)) === MAX_CONNECTIONS_PER_UID - 1)
    expect(await openOf(flooder)).to.equal(MAX_CONNECTIONS_PER_UID - 1)
    session.write('still there')
    expect(String(await once(session, 'data'))).to.equal('still there')
    session.destroy()
    refused.destroy()
  })

  it('ends those for whom there is no room, although they do not', async () => {
    // other tests of this process may have left some
    const before = openSockets()
    const flooder = await client(UID)
    await flooder.ask(`flood ${MAX_CONNECTIONS_PER_UID} /wait`)
    await waitFor(() => waiting.length === MAX_CONNECTIONS_PER_UID)
    const more = await client(UID)
    await more.ask('flood 200')
    expect(listeners.connections()).to.equal(MAX_CONNECTIONS_PER_UID)
    const most = before + MAX_CONNECTIONS_PER_UID + 16
    await waitFor(() => openSockets() <= most)
    expect(openSockets()).to.be.at.most(most)
  })
})

/** TCP sockets of this process, listening ones included. */
function openSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length
}

/** How many of its connections the sidecar has not ended. */
async function openOf(flooder: Dialog): Promise<number> {
  return Number(await flooder.ask('count-open'))
}

async function waitFor(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 500 && !(await condition()); tries += 1) await sleep(10)
}
