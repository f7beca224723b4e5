/**
 * An agent that uses sessions in every way that kubectl has: `node sessions.ts JSON` (see Errand), inside a pod or on a machine. Prints
 * `{NAME: Did}` as one line of JSON; what came is told by length and SHA-256, so that a test can compare it with recordings.
 */
import { spawn } from 'node:child_process'
import type { ChildProcessByStdio } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'

/** What to do. */
export interface Errand {
  /** kubectl, with what it is always told. */
  readonly kubectl: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly pod: string
  /** In the command of every exec: recordings are found by it. */
  readonly marker: string
  /** Names of what to do; of all that there is, where left out. */
  readonly only?: readonly string[]
}

/** Bytes that somebody saw. */
export interface Seen {
  readonly bytes: number
  readonly sha256: string
  /** The first of them, as text. */
  readonly head: string
}

/** What came of one thing. */
export interface Did {
  readonly pid: number
  /** Exit code; -1 after a signal. */
  readonly code: number
  readonly stdout: Seen
  readonly stderr: Seen
  /** What was sent. */
  readonly stdin?: Seen
  /** Whatever else there is to say. */
  readonly said?: Readonly<Record<string, unknown>>
}

/** Bytes of standard input that are echoed, in KiB. */
const ECHO_KIB = 1024
/** So much that nobody reads; of 1 MiB, kubelet 1.20 now and then never ends, without Nestgate too. */
const UNREAD_KIB = 32
/** Bytes of the large output, as in the script of it. */
const LARGE = '64M'
const FILE_BYTES = 8 * 2 ** 20
const HEAD_BYTES = 2000
const LIMIT_MS = 60_000
const AT_ONCE = 4

/** Hashes what it is given. */
function seeing(): { add: (piece: Buffer) => void; seen: () => Seen; text: () => string } {
  const hash = createHash('sha256')
  let bytes = 0
  let head = Buffer.alloc(0)
  return {
    add: (piece) => {
      hash.update(piece)
      bytes += piece.length
      if (head.length < HEAD_BYTES)
        head = Buffer.concat([head, piece.subarray(0, HEAD_BYTES - head.length)])
    },
    seen: () => ({ bytes, sha256: hash.copy().digest('hex'), head: head.toString() }),
    text: () => head.toString(),
  }
}

function seen(bytes: Buffer): Seen {
  const one = seeing()
  one.add(bytes)
  return one.seen()
}

interface Running {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly did: Promise<Did>
  /** Settles once the output matches. */
  readonly says: (pattern: RegExp) => Promise<string>
}

interface Start {
  readonly input?: Buffer
  /** Keeps standard input open. */
  readonly open?: boolean
  /** The program is not kubectl. */
  readonly program?: readonly string[]
}

function start({ kubectl, env }: Errand, args: readonly string[], how: Start = {}): Running {
  const [program = '', ...rest] = how.program ?? kubectl
  const child = spawn(program, [...rest, ...args], {
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS)
  const out = seeing()
  const err = seeing()
  const waiting: (() => void)[] = []
  const hear = (into: typeof out) => (piece: Buffer) => {
    into.add(piece)
    for (const look of waiting) look()
  }
  child.stdout.on('data', hear(out))
  child.stderr.on('data', hear(err))
  child.stdin.on('error', () => undefined)
  if (how.input !== undefined) child.stdin.write(how.input)
  if (how.open !== true) child.stdin.end()
  const did = new Promise<Did>((resolve) => {
    child.on('error', (error) => {
      err.add(Buffer.from(String(error)))
    })
    child.on('close', (code) => {
      clearTimeout(timer)
      const stdin = how.input === undefined ? {} : { stdin: seen(how.input) }
      resolve({
        pid: child.pid ?? 0,
        code: code ?? -1,
        stdout: out.seen(),
        stderr: err.seen(),
        ...stdin,
      })
    })
  })
  const says = (pattern: RegExp): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const match = pattern.exec(out.text()) ?? pattern.exec(err.text())
        if (match !== null) resolve(match[0])
      }
      waiting.push(look)
      look()
      child.on('close', () => {
        reject(new Error(`ended without ${String(pattern)}: ${out.text()} ${err.text()}`))
      })
    })
  return { child, did, says }
}

type Doing = (errand: Errand, name: string) => Promise<Did>

/** A shell in the pod, with a script of its own and a marker behind it. */
function shell(
  script: string,
  { flags = [], input }: { flags?: readonly string[]; input?: Buffer } = {},
): Doing {
  return (errand, name) => {
    const command = ['sh', '-c', script, `${errand.marker}:${name}`]
    const args = ['exec', ...flags, errand.pod, '-c', 'web', '--', ...command]
    return start(errand, args, input === undefined ? {} : { input }).did
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const killed: Doing = async (errand, name) => {
  const script = 'while echo still here; do sleep 0.1; done'
  const command = ['sh', '-c', script, `${errand.marker}:${name}`]
  const { child, did, says } = start(errand, ['exec', errand.pod, '-c', 'web', '--', ...command])
  await says(/(still here\s+){3}/)
  child.kill('SIGKILL')
  return did
}

const attach: Doing = async (errand) => {
  const args = ['attach', '-i', errand.pod, '-c', 'echo']
  const { child, did, says } = start(errand, args, { open: true })
  // the program answers what it reads; what was sent before it listens is read, too
  child.stdin.write(`hello ${errand.marker}\n`)
  await says(new RegExp(`echo: hello ${errand.marker}`))
  child.kill('SIGKILL')
  return did
}

const logs: Doing = async (errand) => {
  const { child, did, says } = start(errand, ['logs', '-f', '--tail=1', errand.pod, '-c', 'web'])
  await says(/(tick \d+\s+){4}/)
  child.kill('SIGKILL')
  return did
}

/** Types into a terminal, changes its size, and looks at what comes; the helper is Python because Node has no terminals. */
const TERMINAL = `
import fcntl, json, os, pty, select, signal, struct, subprocess, sys, termios, time
def size(fd, rows, cols): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', rows, cols, 0, 0))
ours, theirs = pty.openpty()
size(ours, 31, 97)
def own(): os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)
child = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, preexec_fn=own)
os.close(theirs)
seen = b''
def until(what):
    global seen
    end = time.time() + 20
    while what not in seen and time.time() < end:
        if select.select([ours], [], [], 0.2)[0]:
            try: piece = os.read(ours, 65536)
            except OSError: return
            if not piece: return
            seen += piece
until(b'ready')
time.sleep(0.3)
os.write(ours, b'stty size; echo first-$((1+1))\\r'); until(b'first-2')
size(ours, 40, 120)
child.send_signal(signal.SIGWINCH)
time.sleep(0.7)
os.write(ours, b'stty size; echo second-$((1+1))\\r'); until(b'second-2')
os.write(ours, b'exit 5\\r'); until(b'never')
code = child.wait()
sys.stdout.buffer.write(seen)
sys.stdout.flush()
sys.stderr.buffer.write(child.stderr.read())
sys.exit(code)
`

const terminal: Doing = async (errand, name) => {
  const command = ['sh', '-c', 'echo ready; exec sh', `${errand.marker}:${name}`]
  const kubectl = [...errand.kubectl, 'exec', '-it', errand.pod, '-c', 'web', '--', ...command]
  return start(errand, [], { program: ['python3', '-c', TERMINAL, ...kubectl] }).did
}

function hashOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}

/** A folder there and back again, and what was in it. */
const copy: Doing = async (errand, name) => {
  const work = mkdtempSync(join(tmpdir(), 'copied-'))
  const folder = join(work, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'big'), randomBytes(FILE_BYTES))
  writeFileSync(join(folder, 'small.txt'), 'a small one\n')
  writeFileSync(join(folder, 'empty'), '')
  const there = `${errand.pod}:/tmp/${errand.marker}`
  const to = await start(errand, ['cp', '-c', 'web', folder, there]).did
  if (to.code !== 0) return to
  const back = await start(errand, [
    'cp',
    '-c',
    'web',
    `${errand.pod}:/tmp/${errand.marker}`,
    join(work, 'back'),
  ]).did
  const one = await start(errand, [
    'cp',
    '-c',
    'web',
    `${errand.pod}:/tmp/${errand.marker}/big`,
    join(work, 'one'),
  ]).did
  const names = readdirSync(join(work, 'back')).sort()
  const files = Object.fromEntries(names.map((file) => [file, hashOf(join(work, 'back', file))]))
  const sent = Object.fromEntries(
    readdirSync(folder)
      .sort()
      .map((file) => [file, hashOf(join(folder, file))]),
  )
  return {
    ...back,
    code: back.code || one.code,
    said: { files, sent, one: hashOf(join(work, 'one')) },
  }
}

/** One connection of HTTP, and all that went over it each way. */
export interface Exchange {
  readonly up: Seen
  readonly down: Seen
  readonly body: Seen
}

const BODY_AT = '\r\n\r\n'

/** A request of HTTP/1.0 by hand: the connection ends with its answer. */
function http(port: number, path: string, body?: Buffer): Promise<Exchange> {
  return new Promise((resolve, reject) => {
    const verb = body === undefined ? 'GET' : 'POST'
    const length = body === undefined ? '' : `Content-Length: ${body.length}\r\n`
    const head = `${verb} ${path} HTTP/1.0\r\nHost: target\r\n${length}\r\n`
    const sent = Buffer.concat([Buffer.from(head), body ?? Buffer.alloc(0)])
    const pieces: Buffer[] = []
    const socket = connect(port, '127.0.0.1', () => socket.write(sent))
    socket.setTimeout(20_000, () => socket.destroy(new Error('no answer in time')))
    socket.on('data', (piece: Buffer) => pieces.push(piece))
    socket.on('error', reject)
    socket.on('end', () => {
      const down = Buffer.concat(pieces)
      const at = down.indexOf(BODY_AT)
      if (at === -1) reject(new Error(`no answer: ${down.toString()}`))
      else
        resolve({
          up: seen(sent),
          down: seen(down),
          body: seen(down.subarray(at + BODY_AT.length)),
        })
    })
  })
}

const portOf = (line: string): number => Number(/127\.0\.0\.1:(\d+)/.exec(line)?.[1])

/** HTTP through a forwarded port: one after the other, several at once, long bodies each way. */
const forward: Doing = async (errand) => {
  const args = ['port-forward', '--address', '127.0.0.1', errand.pod, ':8080']
  const { child, did, says } = start(errand, args)
  const port = portOf(await says(/Forwarding from 127\.0\.0\.1:\d+/))
  const first = [await http(port, '/one'), await http(port, '/two')]
  const paths = Array.from({ length: 6 }, (_, at) => `/say/${at}`)
  const several = await Promise.all(paths.map((path) => http(port, path)))
  const long = await http(port, '/long')
  const body = randomBytes(FILE_BYTES)
  const hashed = await http(port, '/hash', body)
  await sleep(200)
  child.kill('SIGTERM')
  const exchanges = [...first, ...several, long, hashed]
  return { ...(await did), said: { exchanges, sent: seen(body).sha256 } }
}

/** A port that nobody listens on, beside one that is served. */
const refused: Doing = async (errand) => {
  const args = ['port-forward', '--address', '127.0.0.1', errand.pod, ':8080', ':9']
  const { child, did, says } = start(errand, args)
  const line = await says(
    /Forwarding from 127\.0\.0\.1:(\d+) -> 8080[\s\S]*Forwarding from 127\.0\.0\.1:\d+ -> 9/,
  )
  const served = portOf(line)
  const dead = Number(/127\.0\.0\.1:(\d+) -> 9/.exec(line)?.[1])
  const before = (await http(served, '/')).body.head
  const failed = await http(dead, '/').then(
    () => '',
    () => 'refused',
  )
  await says(/error occurred forwarding/)
  await sleep(200)
  const after = await http(served, '/').then(
    ({ body }) => body.head,
    () => 'refused',
  )
  child.kill('SIGTERM')
  const { stderr, ...rest } = await did
  return {
    ...rest,
    stderr,
    said: { before, failed, after, lost: stderr.head.includes('lost connection') },
  }
}

const utf8 =
  'printf "\\342"; sleep 0.2; printf "\\202"; sleep 0.2; printf "\\254 \\360\\237\\230"; sleep 0.2; printf "\\200\\377\\n"'

const ALL: Readonly<Record<string, Doing>> = {
  echo: shell('cat', { flags: ['-i'], input: randomBytes(ECHO_KIB * 1024) }),
  both: shell('for i in $(seq 200); do echo out $i; echo err $i >&2; done'),
  exit0: shell('exit 0'),
  exit1: shell('echo no >&2; exit 1'),
  exit7: shell('exit 7'),
  exit126: shell('exit 126'),
  exit127: shell('exec not-there'),
  killed9: shell('kill -9 $$'),
  binary: shell(
    'node -e "const b=Buffer.alloc(262144);for(let i=0;i<b.length;i++)b[i]=(i*7+(i>>8))&255;process.stdout.write(b)"',
  ),
  utf8: shell(utf8),
  unread: shell('exit 3', { flags: ['-i'], input: randomBytes(UNREAD_KIB * 1024) }),
  terminal,
  killed,
  attach,
  logs,
  copy,
  forward,
  refused,
  large: shell(`yes 'a line of the large output' | head -c ${LARGE}`),
  noContainer: (errand) => start(errand, ['exec', errand.pod, '-c', 'missing', '--', 'true']).did,
  noCommand: (errand, name) =>
    start(errand, ['exec', errand.pod, '-c', 'web', '--', '/not/there', `${errand.marker}:${name}`])
      .did,
}

/** All that there is to do. */
export const NAMES = Object.keys(ALL)

async function main(errand: Errand): Promise<void> {
  const left = Object.entries(ALL).filter(([name]) => errand.only?.includes(name) ?? true)
  const done: Record<string, Did | { failed: string }> = {}
  const worker = async (): Promise<void> => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const [name, doing] = next
      done[name] = await doing(errand, name).catch((error: unknown) => ({ failed: String(error) }))
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  console.log(JSON.stringify(done))
}

if (process.argv[2] !== undefined) {
  await main(JSON.parse(process.argv[2]) as Errand)
  process.exit(0)
}
