/**
 * Sessions of the JavaScript client of Kubernetes, unchanged: `node stream.ts NAMESPACE POD MARKER HOW`. `once`: exec, attach, port-forward and
 * copies; `N` or `N,AT_ONCE`: so many short execs; `open,N`: so many at once, each of which is given a line. Prints JSON.
 */
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { Attach, Cp, Exec, KubeConfig, PortForward } from '@kubernetes/client-node'
import type { V1Status } from '@kubernetes/client-node'

const [namespace = '', pod = '', marker = '', how = 'once', count = '4'] = process.argv.slice(2)
const config = new KubeConfig()
config.loadFromCluster()
const LIMIT_MS = 20_000

/** Collects a stream, and tells when it has some text. */
function collect(): {
  stream: PassThrough
  text: () => string
  has: (what: string) => Promise<void>
} {
  const stream = new PassThrough()
  let text = ''
  stream.setEncoding('utf8').on('data', (piece: string) => (text += piece))
  const has = (what: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`no ${what} in ${text}`))
      }, LIMIT_MS)
      const look = (): void => {
        if (!text.includes(what)) return
        clearTimeout(timer)
        resolve()
      }
      stream.on('data', look)
      look()
    })
  return { stream, text: () => text, has }
}

interface Ran {
  readonly stdout: string
  readonly stderr: string
  readonly status: V1Status
}

/** Runs a script in the pod. @param open - how long it is kept open before it is given its input */
function exec(
  script: string,
  name: string,
  input: string,
  open?: () => Promise<void>,
): Promise<Ran> {
  const [out, err, stdin] = [collect(), collect(), new PassThrough()]
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`${name}: no status in time: ${out.text()}`))
    }, LIMIT_MS * 3)
    const command = ['sh', '-c', script, `${marker}:${name}`]
    new Exec(config)
      .exec(namespace, pod, 'web', command, out.stream, err.stream, stdin, false, (status) => {
        clearTimeout(timer)
        // what came before the status is still on its way through the streams
        setImmediate(() => {
          resolve({ stdout: out.text(), stderr: err.text(), status })
        })
      })
      .then(async (socket) => {
        socket.on('error', reject)
        await open?.()
        stdin.write(input)
      })
      .catch(reject)
  })
}

async function attach(): Promise<string> {
  const [out, stdin] = [collect(), new PassThrough()]
  const socket = await new Attach(config).attach(
    namespace,
    pod,
    'echo',
    out.stream,
    null,
    stdin,
    false,
  )
  stdin.write(`hello ${marker}\n`)
  await out.has(`echo: hello ${marker}\n`)
  socket.close()
  return out.text()
}

async function forward(): Promise<string> {
  const [out, err, stdin] = [collect(), collect(), new PassThrough()]
  await new PortForward(config).portForward(namespace, pod, [8080], out.stream, err.stream, stdin)
  stdin.write('GET /javascript HTTP/1.0\r\nHost: target\r\n\r\n')
  await out.has('hello from /javascript')
  return `${out.text().split('\r\n\r\n')[1] ?? ''}${err.text()}`
}

async function copy(): Promise<{ sent: string; back: string }> {
  const [here, back] = [mkdtempSync(join(tmpdir(), 'js-')), mkdtempSync(join(tmpdir(), 'js-'))]
  const sent = `a file of ${marker}\n`
  writeFileSync(join(here, marker), sent)
  const cp = new Cp(config)
  await cp.cpToPod(namespace, pod, 'web', here, '/tmp')
  await exec(`until test -s /tmp/${marker}; do sleep 0.1; done`, 'waits', '')
  await cp.cpFromPod(namespace, pod, 'web', marker, back, '/tmp')
  const end = Date.now() + LIMIT_MS
  for (;;) {
    try {
      const text = readFileSync(join(back, marker), 'utf8')
      if (text === sent || Date.now() > end) return { sent, back: text }
    } catch (error) {
      if (Date.now() > end) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function once(): Promise<object> {
  const script = 'read word; echo got $word; echo careful >&2; exit 7'
  const ran = await exec(script, 'javascript', 'javascript\n')
  return { exec: ran, attach: await attach(), forward: await forward(), copy: await copy() }
}

/** Short execs one after the other, by some workers. */
async function many(all: number, atOnce: number): Promise<object> {
  let left = all
  let good = 0
  const bad: object[] = []
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      const { stdout, status } = await exec('echo short', 'short', '')
      if (stdout === 'short\n' && status.status === 'Success') good += 1
      else bad.push({ stdout, status })
    }
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  return { good, bad: bad.slice(0, 5) }
}

/** So many sessions that are all open before the first is given its line. */
async function together(all: number): Promise<object> {
  let open = 0
  let go = (): void => undefined
  const everybody = new Promise<void>((resolve) => (go = resolve))
  const arrive = (): Promise<void> => {
    open += 1
    if (open === all) go()
    return everybody
  }
  const rans = await Promise.all(
    Array.from({ length: all }, (_, at) =>
      exec('read word; echo got $word', 'together', `${at}\n`, arrive),
    ),
  )
  return { good: rans.filter(({ stdout }, at) => stdout === `got ${at}\n`).length }
}

const whole = Number(count)
const result =
  how === 'once'
    ? await once()
    : how === 'open'
      ? await together(whole)
      : await many(Number(how), whole)
console.log(JSON.stringify(result))
process.exit(0)
