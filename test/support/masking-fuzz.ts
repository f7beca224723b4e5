/**
 * Fuzzing of the masker by mutation: from a corpus of answers, with the oracle (masking-oracle.ts) as judge. The same seed, corpus and number
 * of rounds make the same inputs.
 */
import { createHash } from 'node:crypto'
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import { readBeginning } from './json-spans.ts'
import { disagreement, replacedByOracle, runMasker } from './masking-compare.ts'
import type { Made } from './masking-compare.ts'
import { leaks } from './masking-leaks.ts'
import { MARK, randomOf } from './masking-objects.ts'
import { expectMasking } from './masking-oracle.ts'
import type { Asked } from './masking-oracle.ts'

/** One input. */
export interface Input {
  readonly name: string
  readonly bytes: Buffer
  readonly shape: 'object' | 'watch'
  readonly write: boolean
}

/** What the masker did wrong. */
export interface Finding {
  readonly input: Input
  readonly strict: boolean
  readonly cuts: readonly number[]
  readonly what: string
}

/** A run. */
export interface FuzzReport {
  readonly executions: number
  readonly findings: readonly Finding[]
  /** Inputs that did what none before them did. */
  readonly interesting: readonly Input[]
}

/** Longest input: of longer ones there is nothing new to learn. */
const MAX_BYTES = 16 * 1024
/** Inputs that are kept to be mutated on. */
const MAX_POOL = 1000
const MAX_MUTATIONS = 5
/** Each tells something else; more of one kind only fill the folder. */
const MAX_FINDINGS = 50

/** An operator's profile of the widgets of the corpus. */
const FIELDS: Masking = {
  ...STANDARD_MASKING,
  profiles: ['standard', 'widgets'],
  fields: [
    { group: 'example.com', kind: 'Widget', path: [{ name: 'auth' }, 'any', { name: 'token' }] },
  ],
}
const STRICT: Masking = { ...FIELDS, profiles: ['strict', 'widgets'], everywhere: true }

const DICTIONARY = [
  ...['"kind":"Secret"', '"kind":"List"', '"kind":"SecretList"', '"kind":"Table"', '"kind":null'],
  ...['"kind":"ConfigMap"', '"kind":"Status"', '"kind":"Widget"', '"kind":"Node"', '"kind":"Pod"'],
  ...['"apiVersion":"example.com/v1"', '"apiVersion":"v1"', '"data":{', '"data":', '"stringData":'],
  ...['"items":[', '"items":', '"object":', '"rows":[', '"metadata":{"annotations":{', '"env":['],
  ...[
    '"name":"PASSWORD"',
    '"value":',
    `"${MARK}"`,
    `"password=${MARK}9"`,
    '"args":[',
    '"command":',
  ],
  ...['"binaryData":{', '"status":{"token":', '"message":', '"causes":', '"managedFields":[{}]'],
  ...['"uid":"u"', '{', '}', '[', ']', ',', ':', '"', '\\', '\\u0064', '\\ud83d', '\\ude00', '\\"'],
  ...[
    '{}',
    '[]',
    'null',
    'true',
    '1e5',
    '-0',
    '01',
    '0.',
    '\u0000',
    '\n',
    ' ',
    '\ufeff',
    '//',
    "'",
  ],
  ...['"kubectl.kubernetes.io/last-applied-configuration":', '"type":"ADDED"', '"httpHeaders":['],
  ...[
    '{"kind":"Secret","data":{"a":"',
    '\ud83d\ude00',
    '"k\\u0069nd":"Secret"',
    '\x80',
    '\xc3',
    '\xff',
  ],
].map((text) => Buffer.from(text, /^[\x80-\xff]$/.test(text) ? 'latin1' : 'utf8'))

/**
 * Fuzzes until told to stop.
 *
 * @param goesOn - asked now and then; gets the executions so far
 */
export function fuzz(
  corpus: readonly Input[],
  seed: number,
  goesOn: (executions: number) => boolean,
): FuzzReport {
  const random = randomOf(seed)
  const pool: Input[] = [...corpus]
  const features = new Set<string>()
  const interesting: Input[] = []
  const findings: Finding[] = []
  const kinds = new Set<string>()
  let executions = 0
  const isNew = (some: readonly string[]): boolean => {
    const before = features.size
    for (const feature of some) features.add(feature)
    return features.size > before
  }
  for (const input of corpus) isNew(judge(input, false, []).features)
  while ((executions % 32 !== 0 || goesOn(executions)) && findings.length < MAX_FINDINGS) {
    const base = pool[below(random, pool.length)]
    if (base === undefined) break
    const input = mutated(base, pool, random)
    const strict = random() < 0.3
    const cuts = Array.from({ length: below(random, 8) }, () =>
      below(random, input.bytes.length + 1),
    )
    const { what, features: some } = judge(input, strict, cuts)
    executions += 1
    if (what !== undefined && !kinds.has(kindOf(what))) {
      kinds.add(kindOf(what))
      findings.push({ input, strict, cuts, what })
    }
    if (what !== undefined || !isNew(some)) continue
    interesting.push(input)
    if (pool.length < MAX_POOL) pool.push(input)
    else pool[corpus.length + below(random, pool.length - corpus.length)] = input
  }
  return { executions, findings, interesting }
}

/** Runs one input whole and in pieces. @returns `what` went wrong, and what kind of run it was */
export function judge(
  input: Input,
  strict: boolean,
  cuts: readonly number[],
): { readonly what: string | undefined; readonly features: readonly string[] } {
  const { bytes, shape, write } = input
  const asked: Asked = { masking: strict ? STRICT : FIELDS, shape, write, aboutSecrets: true }
  try {
    const made = runMasker([bytes], asked)
    const pieces = runMasker(split(bytes, cuts), asked)
    const what =
      disagreement(bytes, made, asked) ?? splitting(made, pieces) ?? leak(bytes, made, asked)
    return { what: what ?? leak(bytes, pieces, asked), features: featuresOf(bytes, made, asked) }
  } catch (error) {
    return { what: `threw ${String(error)}`, features: [] }
  }
}

function splitting(whole: Made, pieces: Made): string | undefined {
  if (whole.outcome !== pieces.outcome) return `whole ${whole.outcome}, in pieces ${pieces.outcome}`
  if (whole.outcome === 'refused' || whole.bytes.equals(pieces.bytes)) return undefined
  return `in pieces: ${pieces.bytes.toString().slice(0, 2000)}`
}

/** Whether something went out that the oracle would have hidden. */
function leak(bytes: Buffer, made: Made, asked: Asked): string | undefined {
  if (!leaks(made.bytes, MARK)) return undefined
  const known = made.outcome === 'masked' ? bytes : readBeginning(bytes)
  const expected = expectMasking(known, asked)
  if (expected.outcome === 'refused') return undefined
  if (leaks(replacedByOracle(known, expected.edits, false), MARK)) return undefined
  return `leaks: ${made.bytes.toString().slice(0, 2000)}`
}

/** What kind of run it was: what came of it, what was hidden how, and what kinds of tokens there were next to each other. */
function featuresOf(bytes: Buffer, made: Made, asked: Asked): readonly string[] {
  const expected = expectMasking(bytes, asked)
  const { outcome } = made
  if (expected.outcome === 'refused') {
    const why = expected.why.replaceAll(/[0-9]+/g, '0')
    return [`${outcome} ${why} ${made.bytes.length > 0}`]
  }
  return expected.edits.map(({ path, forms, optional, inner }) => {
    const steps = path.split('.')
    const last = steps.slice(-3).map((name) => (NAMES.has(name) ? name : 'x'))
    return [
      ...[outcome, asked.shape, Math.min(steps.length, MAX_STEPS), ...last],
      ...[[...forms].join(), optional, inner.length > 0],
    ].join(' ')
  })
}

/** Deeper places are all alike. */
const MAX_STEPS = 8
/** Names that decide. */
const NAMES = new Set([
  ...['data', 'stringData', 'items', '[]', 'object', 'annotations', 'env', 'args', 'value'],
  ...['binaryData', 'message', 'token', 'metadata', 'spec', 'auth', 'rows', 'causes'],
])

/** Findings that read alike are one. */
function kindOf(what: string): string {
  const cause = what.slice(0, 400).replaceAll(/[0-9]+|«[^]*/g, '')
  const allowed = /allowed: [a-z0-9,]*/.exec(what)?.[0] ?? ''
  const [sentence = ''] = /^[^"]*/.exec(cause.replace(/^[^ ]*\.(?=[^.])/, '')) ?? []
  return `${sentence.slice(0, 60)} ${allowed}`
}

function below(random: () => number, limit: number): number {
  return Math.floor(random() * limit)
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts)].sort((a, b) => a - b)
  return [0, ...places].map((from, index) => bytes.subarray(from, places[index] ?? bytes.length))
}

type Mutation = (bytes: Buffer, random: () => number, other: Buffer) => Buffer

const replaceRange = (bytes: Buffer, from: number, to: number, by: Buffer): Buffer =>
  Buffer.concat([bytes.subarray(0, from), by, bytes.subarray(to)])

function range(bytes: Buffer, random: () => number): [number, number] {
  const from = below(random, bytes.length + 1)
  const most = random() < 0.5 ? 8 : 200
  return [from, Math.min(bytes.length, from + below(random, most))]
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+|\s+|"/gs

function token(bytes: Buffer, random: () => number): [number, number] {
  const all = [...bytes.toString('latin1').matchAll(TOKEN)]
  const one = all[below(random, all.length)]
  return one === undefined ? [0, 0] : [one.index, one.index + one[0].length]
}

const MUTATIONS: readonly Mutation[] = [
  (bytes, random) => {
    const copy = Buffer.from(bytes)
    const at = below(random, bytes.length)
    copy[at] = (copy[at] ?? 0) ^ (1 << below(random, 8))
    return copy
  },
  (bytes, random) => {
    const copy = Buffer.from(bytes)
    copy[below(random, bytes.length)] = below(random, 256)
    return copy
  },
  (bytes, random) => {
    const at = below(random, bytes.length + 1)
    return replaceRange(bytes, at, at, DICTIONARY[below(random, DICTIONARY.length)] ?? bytes)
  },
  (bytes, random) => {
    const [, at] = token(bytes, random)
    const entry = DICTIONARY[below(random, DICTIONARY.length)] ?? bytes
    const comma = Buffer.from(random() < 0.5 ? ',' : '')
    return replaceRange(bytes, at, at, Buffer.concat([entry, comma]))
  },
  (bytes, random) => {
    const [from, to] = token(bytes, random)
    return replaceRange(bytes, from, to, DICTIONARY[below(random, DICTIONARY.length)] ?? bytes)
  },
  (bytes, random) => replaceRange(bytes, ...range(bytes, random), Buffer.alloc(0)),
  (bytes, random) => replaceRange(bytes, ...token(bytes, random), Buffer.alloc(0)),
  (bytes, random) => {
    const [from, to] = range(bytes, random)
    return replaceRange(bytes, to, to, bytes.subarray(from, to))
  },
  (bytes, random) => {
    const [from, to] = token(bytes, random)
    const [toFrom, toTo] = token(bytes, random)
    return replaceRange(bytes, toFrom, toTo, bytes.subarray(from, to))
  },
  (bytes, random, other) => {
    const [from, to] = token(bytes, random)
    return replaceRange(bytes, from, to, other.subarray(...token(other, random)))
  },
  (bytes, random, other) =>
    replaceRange(bytes, ...range(bytes, random), other.subarray(...range(other, random))),
  (bytes, random) => bytes.subarray(0, below(random, bytes.length + 1)),
  (bytes, random) => {
    // A letter by its escape.
    const at = below(random, bytes.length)
    const unit = bytes[at] ?? 0
    if (!/[a-zA-Z0-9.{}[\]":/-]/.test(String.fromCharCode(unit))) return bytes
    return replaceRange(
      bytes,
      at,
      at + 1,
      Buffer.from(`\\u00${unit.toString(16).padStart(2, '0')}`),
    )
  },
  (bytes) => Buffer.concat([Buffer.from('{"kind":"List","items":['), bytes, Buffer.from(']}')]),
  (bytes) =>
    Buffer.concat([Buffer.from('{"items":['), bytes, Buffer.from('],"kind":"SecretList"}')]),
  (bytes) => Buffer.concat([Buffer.from('{"type":"ADDED","object":'), bytes, Buffer.from('}\n')]),
  (bytes) => Buffer.concat([Buffer.from('{"kind":"Widget","spec":'), bytes, Buffer.from('}')]),
  (bytes) =>
    Buffer.from(
      JSON.stringify({
        kind: 'Pod',
        metadata: { annotations: { 'last-applied': bytes.toString() } },
      }),
    ),
  (bytes, random) => {
    const [from, to] = token(bytes, random)
    const times = 1 + below(random, 140)
    return replaceRange(
      bytes,
      from,
      to,
      Buffer.from(
        `${'['.repeat(times)}${bytes.toString('latin1', from, to)}${']'.repeat(times)}`,
        'latin1',
      ),
    )
  },
  (bytes, _random, other) => Buffer.concat([bytes, other]),
]

function mutated(base: Input, pool: readonly Input[], random: () => number): Input {
  let { bytes } = base
  for (let rounds = 1 + below(random, MAX_MUTATIONS); rounds > 0; rounds--) {
    const mutation = MUTATIONS[below(random, MUTATIONS.length)]
    const other = pool[below(random, pool.length)]
    if (mutation !== undefined && other !== undefined && bytes.length > 0)
      bytes = mutation(bytes, random, other.bytes).subarray(0, MAX_BYTES)
  }
  const shape = random() < 0.9 ? base.shape : base.shape === 'watch' ? 'object' : 'watch'
  const write = shape === 'object' && random() < 0.3
  const name = createHash('sha256').update(bytes).digest('hex').slice(0, 12)
  return { name, bytes, shape, write }
}
