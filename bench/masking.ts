/**
 * Masking: `npm run bench -- masking [--rounds N --seconds N]`. The masker alone beside what a program would do with JSON.parse; answers through
 * a real broker that masks them, and through the same that passes them on; memory while a long list and a watch go through; what a watch
 * is late by. Loopback only, bounded by rounds, seconds, bytes and events.
 */
import { randomBytes } from 'node:crypto'
import { createInterface } from 'node:readline'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { createJsonMasker } from '../broker/masking/objects/masker.ts'
import { createPlaceholders } from '../broker/masking/placeholder.ts'
import { run, sleep } from '../scripts/run.ts'
import { STANDARD_MASKING } from '../shared/policy/masking.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { makeBodies } from './masking-bodies.ts'
import type { Body } from './masking-bodies.ts'
import { openMaskingWorld, WAYS } from './masking-setup.ts'
import type { MaskingWay, MaskingWorld } from './masking-setup.ts'
import { median, spread, table } from './report.ts'

/** As pieces come from a socket. */
const CHUNK_BYTES = 64 * 1024
/** How long each cell of the masker alone runs in a round, at least, in milliseconds. */
const ALONE_MS = 400
const WARMUP_MS = 500
/** Of the list that goes through while memory is looked at. */
const STREAM_BYTES = 500e6
const EVENTS = 1000
const SAMPLE_MS = 25
const REST_MS = 3000
/** Through the broker each cell is asked one request at a time. */
const CONNECTIONS = 1

const METHODS = ['masker', 'parse, walk, stringify', 'parse'] as const
type Method = (typeof METHODS)[number]

const placeholders = createPlaceholders(randomBytes(32), 'bench')

function mask(bytes: Buffer): number {
  const masker = createJsonMasker({
    ...{ masking: STANDARD_MASKING, placeholders, shape: 'object', write: false },
  })
  let out = 0
  const take = (pieces: readonly Buffer[]): void => {
    for (const piece of pieces) out += piece.length
  }
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES)
    take(masker.push(bytes.subarray(at, at + CHUNK_BYTES)))
  take(masker.end())
  return out
}

type Json = null | boolean | number | string | readonly Json[] | { [name: string]: Json }

/** What it takes at least: each object is looked at, and the data of Secrets replaced. */
function walk(value: Json, kind: string): void {
  if (typeof value !== 'object' || value === null) return
  if (Array.isArray(value)) {
    for (const item of value as readonly Json[]) walk(item, kind)
    return
  }
  const object = value as Record<string, Json>
  const own = typeof object['kind'] === 'string' ? object['kind'] : kind
  const { data } = object
  if (own.startsWith('Secret') && typeof data === 'object' && data !== null && !Array.isArray(data))
    for (const key of Object.keys(data)) (data as Record<string, Json>)[key] = 'bWFza2Vk'
  for (const key of Object.keys(object)) walk(object[key] ?? null, own)
}

const WORK: Readonly<Record<Method, (bytes: Buffer) => number>> = {
  masker: mask,
  'parse, walk, stringify': (bytes) => {
    const value = JSON.parse(bytes.toString()) as Json
    walk(value, '')
    return Buffer.from(JSON.stringify(value)).length
  },
  parse: (bytes) => Object.keys(JSON.parse(bytes.toString()) as object).length,
}

/** MB/s of one method over one body. */
function alone(method: Method, { bytes }: Body, forMs: number): number {
  const work = WORK[method]
  const startedMs = performance.now()
  let done = 0
  for (;;) {
    if (work(bytes) === 0) throw new Error(`${method}: nothing came out`)
    done += bytes.length
    const spentMs = performance.now() - startedMs
    if (spentMs >= forMs) return done / 1e3 / spentMs
  }
}

/** What one way of one body gives. */
interface Through {
  readonly mbPerSecond: number
  readonly p50: number
  /** CPU of the broker, in milliseconds for each MB. */
  readonly cpu: number
}

async function through(
  world: MaskingWorld,
  way: MaskingWay,
  body: Body,
  seconds: number,
): Promise<Through> {
  const { origin, prefix, headers, tls } = await world.target(way)
  const plan: LoadPlan = {
    ...{ origin, tls, connections: CONNECTIONS, warmupMs: WARMUP_MS, durationMs: seconds * 1000 },
    path: `${prefix}${body.path}`,
    headers: { ...headers, accept: body.accept },
  }
  const file = join(import.meta.dirname, 'load.ts')
  const broker = world.broker()
  const before = broker.cpuMs()
  const said = await run('node', [file, JSON.stringify(plan)], { timeoutMs: 120_000 })
  const spent = broker.cpuMs() - before
  const result = JSON.parse(said) as LoadResult
  if (result.failures > 0 || result.requests === 0) throw new Error(`${way}, ${body.name}: ${said}`)
  // of the warm-up too, whose requests are as many in its time
  const share = (WARMUP_MS + plan.durationMs) / plan.durationMs
  const megabytes = (result.requests * body.bytes.length) / 1e6
  return {
    mbPerSecond: megabytes / seconds,
    p50: result.p50,
    cpu: spent / (megabytes * share),
  }
}

/** Reads an answer to its end, and looks at the broker's memory meanwhile. */
async function memory(
  world: MaskingWorld,
  way: MaskingWay,
  path: string,
): Promise<{ before: number; most: number; lateUs: readonly number[]; bytes: number }> {
  const { origin, prefix, headers, tls } = await world.target(way)
  const dispatcher = new Agent({ connect: tls })
  await sleep(REST_MS)
  const broker = world.broker()
  const before = broker.rss()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, broker.rss())
  }, SAMPLE_MS)
  const lateUs: number[] = []
  let bytes = 0
  try {
    const accept = 'application/json'
    const { statusCode, body } = await request(`${origin}${prefix}${path}`, {
      ...{ dispatcher, headers: { ...headers, accept } },
    })
    if (statusCode !== 200) throw new Error(`${way}: ${statusCode} ${await body.text()}`)
    if (path.includes('watch'))
      for await (const line of createInterface({ input: body, crlfDelay: Infinity })) {
        const sent = /"resourceVersion":"(\d+)"/.exec(line)?.[1]
        if (sent !== undefined) lateUs.push(Number(process.hrtime.bigint() - BigInt(sent)) / 1000)
      }
    else for await (const piece of body) bytes += (piece as Buffer).length
  } finally {
    clearInterval(timer)
    await dispatcher.destroy()
  }
  return { before, most, lateUs, bytes }
}

type Figures = Map<string, number[]>

function note(figures: Figures, key: readonly string[], value: number): void {
  const name = key.join('|')
  figures.set(name, [...(figures.get(name) ?? []), value])
  console.error(`${key.join(', ')}: ${value.toFixed(2)}`)
}

function of(figures: Figures, ...key: readonly string[]): readonly number[] {
  return figures.get(key.join('|')) ?? []
}

/** Measures all and gives the section of docs/benchmarks.md. */
export async function maskingSection(rounds: number, seconds: number): Promise<string> {
  const bodies = makeBodies()
  const figures: Figures = new Map()
  for (const method of METHODS) for (const body of bodies) alone(method, body, ALONE_MS)
  for (let round = 1; round <= rounds; round += 1)
    for (const body of bodies)
      for (const method of METHODS)
        note(figures, ['alone', body.name, method], alone(method, body, ALONE_MS))
  const world = await openMaskingWorld()
  try {
    for (let round = 1; round <= rounds; round += 1) {
      for (const body of bodies)
        for (const way of WAYS) {
          const { mbPerSecond, p50, cpu } = await through(world, way, body, seconds)
          note(figures, ['rate', body.name, way], mbPerSecond)
          note(figures, ['p50', body.name, way], p50)
          note(figures, ['cpu', body.name, way], cpu)
        }
      for (const way of WAYS) await noteMemory(world, way, figures)
    }
  } finally {
    await world.stop()
  }
  return section(figures, bodies, rounds, seconds)
}

async function noteMemory(world: MaskingWorld, way: MaskingWay, figures: Figures): Promise<void> {
  if (way !== 'direct') await world.restart()
  const list = await memory(world, way, `/api/v1/secrets?bytes=${STREAM_BYTES}`)
  // most of it is hidden, and what stands for it is short
  if (list.bytes < STREAM_BYTES / (way === 'standard' ? 20 : 1))
    throw new Error(`${way}: only ${list.bytes} bytes`)
  const watch = await memory(world, way, `/api/v1/secrets?watch=true&events=${EVENTS}`)
  if (watch.lateUs.length !== EVENTS) throw new Error(`${way}: ${watch.lateUs.length} events`)
  const sorted = watch.lateUs.toSorted((a, b) => a - b)
  note(figures, ['late', way, 'p50'], sorted[EVENTS / 2] ?? Number.NaN)
  note(figures, ['late', way, 'p99'], sorted[Math.floor(EVENTS * 0.99)] ?? Number.NaN)
  if (way === 'direct') return
  note(figures, ['rss', way, 'list before'], list.before)
  note(figures, ['rss', way, 'list most'], list.most)
  note(figures, ['rss', way, 'watch before'], watch.before)
  note(figures, ['rss', way, 'watch most'], watch.most)
}

/** Median of the ratios within each round. */
function ratio(some: readonly number[], others: readonly number[]): string {
  const values = some.map((value, round) => value / (others[round] ?? Number.NaN))
  return spread(values, 2)
}

function isLarge({ bytes }: Body): boolean {
  return bytes.length > 1e5
}

function size(body: Body): string {
  const { length } = body.bytes
  return isLarge(body) ? `${(length / 1e6).toFixed(1)} MB` : `${(length / 1e3).toFixed(1)} kB`
}

function aloneTable(figures: Figures, bodies: readonly Body[]): string {
  const rows = bodies.map((body) => {
    const [masker = [], walked = [], parsed = []] = METHODS.map((method) =>
      of(figures, 'alone', body.name, method),
    )
    return [
      body.name,
      size(body),
      ...[masker, walked, parsed].map((values) => spread(values, 0)),
      ratio(masker, walked),
    ]
  })
  const headings = ['answer', 'size', ...METHODS.map((name) => `${name}, MB/s`)]
  return table([...headings, 'masker ÷ parse, walk, stringify'], rows)
}

function throughTable(figures: Figures, bodies: readonly Body[]): string {
  const rows = bodies.filter(isLarge).map((body) => {
    const get = (what: string, way: MaskingWay): readonly number[] =>
      of(figures, what, body.name, way)
    return [
      `${body.name}${body.masked ? '' : ' (nothing to mask)'}`,
      ...WAYS.map((way) => spread(get('rate', way), 0)),
      ratio(get('rate', 'standard'), get('rate', 'mask: none')),
      ...WAYS.map((way) => median(get('p50', way)).toFixed(1)),
      ...WAYS.slice(1).map((way) => median(get('cpu', way)).toFixed(1)),
    ]
  })
  const headings = [
    'answer',
    ...WAYS.map((way) => `${way}, MB/s`),
    'standard ÷ none',
    ...WAYS.map((way) => `${way}, p50 ms`),
    ...WAYS.slice(1).map((way) => `${way}, CPU ms/MB`),
  ]
  return table(headings, rows)
}

/** Of an answer so small that its bytes are not what costs. */
function smallTable(figures: Figures, bodies: readonly Body[]): string {
  const rows = bodies
    .filter((body) => !isLarge(body))
    .flatMap((body) =>
      WAYS.map((way) => {
        const megabytes = body.bytes.length / 1e6
        const each = (what: string, factor: number): readonly number[] =>
          of(figures, what, body.name, way).map((value) => value * factor)
        return [
          `${body.name}, ${size(body)}`,
          way,
          spread(each('rate', 1 / megabytes), 0),
          spread(each('p50', 1), 2),
          way === 'direct' ? '' : spread(each('cpu', megabytes), 2),
        ]
      }),
    )
  return table(['answer', 'way', 'requests/s', 'p50 ms', 'CPU ms of the broker'], rows)
}

function memoryTable(figures: Figures): string {
  const rows = WAYS.map((way) => {
    const rss = (what: string): string => {
      const values = of(figures, 'rss', way, what)
      return values.length === 0 ? '' : spread(values, 0)
    }
    return [
      way,
      ...['list before', 'list most', 'watch before', 'watch most'].map(rss),
      ...['p50', 'p99'].map((what) =>
        spread(
          of(figures, 'late', way, what).map((us) => us / 1000),
          2,
        ),
      ),
    ]
  })
  const megabytes = STREAM_BYTES / 1e6
  const headings = [
    'way',
    `before ${megabytes} MB, MiB`,
    'highest',
    `before ${EVENTS} events, MiB`,
    'highest',
    'event late by, p50 ms',
    'p99 ms',
  ]
  return table(headings, rows)
}

function section(
  figures: Figures,
  bodies: readonly Body[],
  rounds: number,
  seconds: number,
): string {
  return `## Masking

\`npm run bench -- masking\`: answers as clusters have them, of which the standard profile hides what it hides. Medians over ${rounds} rounds, all of each round in turn, lowest and highest
beside them; ratios are taken within a round. On ${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), Node ${process.versions.node}.

The masker alone, in one thread: bytes in pieces of ${CHUNK_BYTES / 1024} KiB in, masked bytes out. Beside it \`JSON.parse\` of the whole text, a walk over all objects that replaces the data of Secrets and
looks at nothing else, and \`JSON.stringify\`; and \`JSON.parse\` alone. MB are those of the answer as it came.

${aloneTable(figures, bodies)}

Through a broker with TLS on both sides, one request at a time for ${seconds} s: the same broker, once with a rule that says \`mask: none\` and once with the standard profile. *direct* is the stand-in
for an API server itself. All of them and the client share the machine. CPU is the broker's.

${throughTable(figures, bodies)}

${smallTable(figures, bodies)}

Resident memory of a broker that was just started, while a list of Secrets of ${STREAM_BYTES / 1e6} MB goes through, and while ${EVENTS} events of a watch do; and how long after its sending an event was there.

${memoryTable(figures)}
`
}
