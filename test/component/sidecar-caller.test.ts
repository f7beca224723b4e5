/** Which process made a request: real programs call a sidecar, and the fake broker answers with the tag that came. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { createCallers } from '../../sidecar/caller/caller.ts'
import { createExeHashes } from '../../sidecar/caller/exe-hash.ts'
import { createDiagSocketTable } from '../../sidecar/caller/sock-diag.ts'
import { createProcSocketTable, TCP_STATE } from '../../sidecar/caller/socket-table.ts'
import { loadNative } from '../../sidecar/native.ts'
import { dialog, run } from '../support/client-processes.ts'
import type { Dialog } from '../support/client-processes.ts'
import { startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

const SOCKET_AGENT = join(import.meta.dirname, '..', 'support', 'socket-agent.py')
/**
 * Prints one answer with nothing but bash's own words, so that no child holds the socket. HTTP/1.0, so that the body
 * comes in one piece, however the proxy got it.
 */
const BASH_GET = `exec 3<>/dev/tcp/127.0.0.1/$1
printf 'GET %s HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n' "$2" >&3
IFS= read -r -d '' -u 3 answer
printf '%s' "$answer"`

/** How curl ends when `-m` is over. */
const CURL_TIMED_OUT = 28
/** How often a port is tried to be used again: another program of the machine may get it first. */
const MAX_TRIES = 5
/** Longest that one of them takes. */
const TRY_MS = 15_000

interface Echo {
  readonly url: string
  readonly tag: AgentTag
}

function echoOf(text: string): Echo {
  return JSON.parse(/\{.*\}/s.exec(text)?.[0] ?? '{}') as Echo
}

function tagOf(text: string): AgentTag {
  return echoOf(text).tag
}

describe('sidecar: the calling process', () => {
  let broker: FakeBroker
  let sidecar: RunningSidecar
  let python = ''

  before(async () => {
    broker = await startFakeBroker()
    // Some machines have a process that not even root may search; what that means has a test of its own.
    const extra = { NESTGATE_CALLER_UNREADABLE: 'ignore', NESTGATE_HEALTH_HOST: '127.0.0.1' }
    sidecar = await startTestSidecar(broker, { extra })
    // The program itself: a version manager's script on PATH would be another process.
    python = (await run('python3', ['-c', 'import sys; print(sys.executable)'])).stdout.trim()
  })
  after(async () => {
    await sidecar.close()
    await broker.stop()
  })

  describe('whoever waits for an answer is named', () => {
    const programs: [string, () => Promise<[string, string[]]>][] = [
      ['curl', () => Promise.resolve(['curl', ['-sS', `${sidecar.url}/api`]])],
      [
        'node',
        () =>
          Promise.resolve([
            process.execPath,
            ['-e', `fetch('${sidecar.url}/api').then(r => r.text()).then(console.log)`],
          ]),
      ],
      [
        'python',
        () =>
          Promise.resolve([
            python,
            [
              '-c',
              `import urllib.request as u; print(u.urlopen('${sidecar.url}/api').read().decode())`,
            ],
          ]),
      ],
      [
        'bash',
        () => Promise.resolve(['bash', ['-c', BASH_GET, 'bash', String(sidecar.port), '/api']]),
      ],
      [
        'curl over ::1',
        () => Promise.resolve(['curl', ['-sS', `http://[::1]:${sidecar.port}/api`]]),
      ],
      [
        'curl from 127.0.0.2',
        () => Promise.resolve(['curl', ['-sS', '--interface', '127.0.0.2', `${sidecar.url}/api`]]),
      ],
      [
        'curl through a v6-mapped address',
        () =>
          Promise.resolve([
            'curl',
            ['-sS', '-H', 'Host: localhost', `http://[::ffff:127.0.0.1]:${sidecar.port}/api`],
          ]),
      ],
    ]
    for (const [name, command] of programs) {
      it(`names ${name} exclusively`, async () => {
        const { pid, stdout, stderr } = await run(...(await command()))
        const tag = tagOf(stdout)
        expect(tag.verdict, `${stdout}${stderr}`).to.equal('exclusive')
        expect(tag.verified?.pid).to.equal(pid)
        expect(tag.verified?.uid).to.equal(process.getuid?.())
        expect(tag.verified?.ancestors[0]?.pid).to.equal(process.pid)
        expect(tag.verified?.exeSha256).to.match(/^[0-9a-f]{64}$/)
      })
    }

    it('names each of twenty that call at once', async () => {
      const all = await Promise.all(
        Array.from({ length: 20 }, () => run('curl', ['-sS', `${sidecar.url}/api`])),
      )
      for (const { pid, stdout } of all) {
        const tag = tagOf(stdout)
        expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', pid])
      }
      expect(new Set(all.map(({ stdout }) => tagOf(stdout).instanceId)).size).to.equal(20)
    })

    it('names them also while the event loop is busy', async () => {
      const running = run('curl', ['-sS', `${sidecar.url}/api`])
      spawnSync('sleep', ['0.3'])
      const { pid, stdout } = await running
      expect(tagOf(stdout).verified?.pid).to.equal(pid)
    })

    for (const [way, table] of [
      ['sock_diag', createDiagSocketTable(loadNative().openDiagSocket())],
      ['/proc/net', createProcSocketTable('/proc')],
    ] as const)
      it(`does not take a process for the one whose port it uses again, by ${way}`, async function () {
        // another program may get the port, and each try waits for it
        this.timeout(MAX_TRIES * TRY_MS)
        const callers = createCallers({
          procRoot: '/proc',
          table,
          hashes: createExeHashes(),
          unreadable: 'ignore',
          level: () => ({ kind: 'process' }),
          now: () => performance.now(),
        })
        const tags = new Map<string, AgentTag>()
        const server = createServer((request, response) => {
          void callers.identify(request.socket).then((tag) => {
            if (!isRefusal(tag)) tags.set(request.url ?? '', tag)
            response.end('{}')
          })
        })
        server.on('connection', (socket) => callers.accept(socket))
        await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
        const address = server.address() as AddressInfo
        /** @returns the process whose request counts; undefined where somebody else on this machine has got the port meanwhile */
        const reuse = async (): Promise<number | undefined> => {
          const evil = dialog(python, [SOCKET_AGENT, String(address.port)])
          const innocent = dialog(python, [SOCKET_AGENT, String(address.port)])
          try {
            await innocent.ask('rename innocent')
            const port = await evil.ask('connect')
            const isConnected = (): boolean => {
              const client = { address: '127.0.0.1', port: Number(port) }
              const [rows] = table.find([{ client, own: address }])
              return rows?.client?.state === TCP_STATE.established
            }
            await sleep(50)
            // Both act while the loop is blocked: the first sends and resets, the second gets its port.
            const reset = evil.ask('send-reset /evil')
            blockUntil(() => !isConnected())
            const connected = innocent.ask(`connect ${port}`)
            const answered = innocent.ask('get /innocent')
            try {
              blockUntil(isConnected)
            } catch (error) {
              if ((await connected) === 'taken') return undefined
              throw error
            }
            expect([await reset, await connected, await answered]).to.deep.equal([
              'reset',
              port,
              '{}',
            ])
            return innocent.pid
          } finally {
            await evil.end()
            await innocent.end()
          }
        }
        let pid: number | undefined
        try {
          for (let i = 0; i < MAX_TRIES && pid === undefined; i += 1) pid = await reuse()
        } finally {
          await new Promise((resolve) => server.close(resolve))
          callers.close()
        }
        const named = tags.get('/innocent')
        expect([named?.verdict, named?.verified?.pid]).to.deep.equal(['exclusive', pid])
        expect(tags.get('/evil')?.verdict ?? 'unidentified').to.equal('unidentified')
      })
  })

  describe('whoever is gone before it is looked at is not named', () => {
    const FIRE = `exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET %s HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' "$2" >&3`

    /** Each sends a request for the path, and no process has its connection any more when it returns. */
    const clients: [string, (path: string) => Promise<void>][] = [
      [
        'one that sends and ends before it is accepted',
        (path) => {
          // The loop, and so the sidecar, stands still until the program has ended.
          const { status } = spawnSync('bash', ['-c', FIRE, 'bash', String(sidecar.port), path])
          expect(status).to.equal(0)
          return Promise.resolve()
        },
      ],
      [
        'one that gives up waiting before it is accepted',
        (path) => {
          const { status } = spawnSync('curl', ['-sS', '-m', '0.3', sidecar.url + path])
          expect(status).to.equal(CURL_TIMED_OUT)
          return Promise.resolve()
        },
      ],
      [
        'one that was accepted, sends, and is killed before that is read',
        async (path) => {
          const agent = dialog(python, [SOCKET_AGENT, String(sidecar.port)])
          await agent.ask('connect')
          expect(await connections()).to.be.greaterThan(0)
          const sent = agent.ask(`send ${path}`)
          blockUntil(() => hasUnread(sidecar.port))
          agent.child.kill('SIGKILL')
          blockUntil(() => isEnded(agent.pid))
          await sent
          await agent.end()
        },
      ],
    ]
    for (const [at, [name, act]] of clients.entries())
      it(name, async () => {
        const path = `/gone-${at}`
        const before = await lookups('unidentified')
        await act(path)
        for (let tries = 0; tries < 300 && (await lookups('unidentified')) === before; tries += 1)
          await sleep(10)
        expect(await lookups('unidentified')).to.equal(before + 1)
        // It may be passed on, if the sidecar has not seen yet that nobody waits.
        for (const { url, tag } of broker.seen)
          if (url.endsWith(path))
            expect([tag.verdict, tag.verified]).to.deep.equal(['unidentified', undefined])
      })

    async function figure(pattern: RegExp): Promise<number> {
      const { port = 0 } = sidecar.sidecar.health ?? {}
      const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
      return Number(pattern.exec(text)?.[1] ?? 0)
    }

    function lookups(result: string): Promise<number> {
      return figure(
        new RegExp(`^nestgate_sidecar_lookups_total\\{result="${result}"\\} (\\d+)$`, 'm'),
      )
    }

    function connections(): Promise<number> {
      return figure(/^nestgate_sidecar_connections (\d+)$/m)
    }
  })

  describe('one connection, several processes', () => {
    let agent: Dialog

    beforeEach(async () => {
      agent = dialog(python, [SOCKET_AGENT, String(sidecar.port)], { AGENT_NAME: 'scanner' })
      await agent.ask('connect')
    })
    afterEach(async () => {
      await agent.end()
    })

    it('calls it shared when a child sends while the parent keeps it', async () => {
      const answer = await agent.ask('fork-get /child')
      const { pid, body } = JSON.parse(answer) as { pid: number; body: string }
      const tag = tagOf(body)
      expect(tag.verdict).to.equal('shared')
      expect(tag.verified).to.equal(undefined)
      expect(tag.reason).to.contain(String(pid)).and.to.contain(String(agent.pid))
    })

    it('names a child that sends once the parent has let go', async () => {
      const answer = await agent.ask('hand-over /2')
      const { pid, body } = JSON.parse(answer) as { pid: number; body: string }
      const tag = tagOf(body)
      expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', pid])
    })

    it('names the receiver of a connection that was passed on unused', async () => {
      const answer = await agent.ask('pass /2')
      const { pid, body } = JSON.parse(answer) as { pid: number; body: string }
      const tag = tagOf(body)
      expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', pid])
    })

    it('keeps one instance over the requests of a connection', async () => {
      const first = tagOf(await agent.ask('get /1'))
      const second = tagOf(await agent.ask('get /2'))
      await sleep(1100)
      const third = tagOf(await agent.ask('get /3'))
      expect(second).to.deep.equal(first)
      expect(third).to.deep.equal(first)
      expect(first.declared).to.deep.equal({
        command: `${python} ${SOCKET_AGENT} (+1 arguments)`,
        script: SOCKET_AGENT,
        agentName: 'scanner',
      })
    })

    it('finds a socket that only one thread’s own table has', async () => {
      const tag = tagOf(await agent.ask('thread-get /thread'))
      expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', agent.pid])
    })

    it('answers a client that has ended its side and waits', async () => {
      broker.onRequest = slowly(broker.onRequest)
      const tag = tagOf(await agent.ask('half-close /half'))
      expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', agent.pid])
    })

    it('reads the process past a name with parentheses', async () => {
      await agent.ask('rename a) R 1 (b')
      const tag = tagOf(await agent.ask('get /name'))
      expect(tag.verified?.ancestors[0]?.pid).to.equal(process.pid)
      expect(tag.verified?.startTicks).to.match(/^\d+$/)
    })

    it('tags pipelined requests one by one', async () => {
      const [first, second] = JSON.parse(await agent.ask('pipeline /p1 /p2')) as [Echo, Echo]
      expect([first.url, second.url]).to.deep.equal(['/clusters/test/p1', '/clusters/test/p2'])
      expect([first.tag.verdict, second.tag.verdict]).to.deep.equal(['exclusive', 'exclusive'])
    })
  })

  describe('what a process says of itself is no evidence', () => {
    it('reports the real executable of a process that calls itself something else', async () => {
      const script = `exec -a /usr/bin/kubectl curl -sS "$1/api"`
      const { stdout } = await run('bash', ['-c', script, 'bash', sidecar.url])
      const tag = tagOf(stdout)
      expect(tag.verified?.exe).to.match(/\/curl$/)
      expect(tag.declared?.command).to.match(/^\/usr\/bin\/kubectl/)
    })

    it('says that an executable is deleted', async () => {
      const dir = await mkdtemp(join(tmpdir(), 'nestgate-deleted-'))
      const program = join(dir, 'agent')
      await copyFile('/bin/bash', program)
      const script = `/bin/rm "$3"; ${BASH_GET}`
      const { stdout } = await run(program, [
        '-c',
        script,
        'x',
        String(sidecar.port),
        '/api',
        program,
      ])
      await rm(dir, { recursive: true })
      expect(tagOf(stdout).verified?.exe).to.equal(`${program} (deleted)`)
    })

    it('never passes arguments on', async () => {
      const { stdout } = await run('curl', ['-sS', '-H', 'X-Key: hunter2', `${sidecar.url}/api`])
      expect(JSON.stringify(tagOf(stdout))).not.to.contain('hunter2')
    })

    it('calls a forwarding program a relay', async () => {
      const listener = dialog('socat', [
        'TCP-LISTEN:0,bind=127.0.0.1,fork',
        `TCP:127.0.0.1:${sidecar.port}`,
      ])
      await sleep(200)
      const port = await listeningPort(listener.pid)
      const { stdout } = await run('curl', [
        '-sS',
        '-H',
        'Host: localhost',
        `http://127.0.0.1:${port}/`,
      ])
      await listener.end()
      expect(tagOf(stdout).verdict).to.equal('relay')
    })
  })

  it('gives a client that reset its connection no answer and no name', async () => {
    const before = broker.seen.length
    const socket = connect(sidecar.port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write('GET /reset HTTP/1.1\r\nHost: localhost\r\n\r\n', () => socket.resetAndDestroy())
    await sleep(200)
    for (const seen of broker.seen.slice(before))
      if (seen.url.endsWith('/reset')) expect(seen.tag.verdict).to.equal('unidentified')
  })
})

/** Keeps the event loop from running until something outside of it has happened. */
function blockUntil(happened: () => boolean): void {
  for (let tries = 0; !happened(); tries += 1) {
    if (tries === 250) throw new Error('it did not happen')
    spawnSync('sleep', ['0.02'])
  }
}

/** Whether something lies unread in a connection that was accepted on this port; read from the kernel's text, see proc(5). */
function hasUnread(port: number): boolean {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync('/proc/net/tcp', 'latin1')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .some(
      ([, from, , state, queues]) =>
        from?.endsWith(local) === true && state === '01' && queues?.endsWith(':00000000') === false,
    )
}

/** Whether a process has ended, its files with it, although nobody has asked for its end yet. */
function isEnded(pid: number): boolean {
  return readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
}

/** Answers later, so that what happens to the connection meanwhile matters. */
function slowly(answer: FakeBroker['onRequest']): FakeBroker['onRequest'] {
  return (seen, response, request) => {
    setTimeout(() => {
      answer(seen, response, request)
    }, 200)
  }
}

async function listeningPort(pid: number): Promise<string> {
  const { stdout } = await run('sh', [
    '-c',
    `for f in /proc/${pid}/fd/*; do readlink "$f"; done | sed -n 's/socket:\\[\\(.*\\)\\]/\\1/p' | while read i; do awk -v i="$i" '$10==i && $4=="0A" {print $2}' /proc/net/tcp; done`,
  ])
  return String(Number.parseInt(stdout.trim().split(':')[1] ?? '0', 16))
}
