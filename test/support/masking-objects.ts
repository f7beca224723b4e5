/**
 * Generated Kubernetes objects for tests of masking, spelled as servers and others might: keys in any order, white space, escapes, odd
 * numbers. Wherever something has to be hidden, it holds {@link MARK}.
 */
import fc from 'fast-check'
import { gzipSync } from 'node:zlib'

/** Stands in every planted value, and nowhere else; long enough that its base64 is found at any alignment. */
export const MARK = 'pLanTed7Qx9'

/** A JSON value whose spelling is still open. */
export type Value = string | Raw | readonly Value[] | Members

/** Written as it is: numbers, words. */
export interface Raw {
  readonly raw: string
}

/** An object; order counts. */
export interface Members {
  readonly members: readonly (readonly [string, Value])[]
}

/** Makes an object. Members without a value are left out; of equal keys the first counts. */
export function members(...entries: readonly (readonly [string, Value | undefined])[]): Members {
  const seen = new Map<string, Value>()
  for (const [key, value] of entries)
    if (value !== undefined && !seen.has(key)) seen.set(key, value)
  return { members: [...seen] }
}

/** How a text is spelled. */
export interface Spelling {
  readonly seed: number
  readonly space: 'none' | 'pretty' | 'odd'
  /** Of 100 characters so many are escaped without need. */
  readonly escapes: number
}

/** Numbers between 0 and 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

/** Writes a value. */
export function spell(value: Value, { seed, space, escapes }: Spelling): string {
  const random = randomOf(seed)
  const gap = (depth: number): string => {
    if (space === 'none') return ''
    if (space === 'pretty') return `\n${' '.repeat(4 * depth)}`
    return [' ', '\t', '\r\n', '', '', '\n  '][Math.floor(random() * 6)] ?? ''
  }
  const colon = (): string =>
    space === 'none' ? ':' : space === 'pretty' ? ': ' : `${gap(0)}:${gap(0)}`
  const text = (of: string): string => spellText(of, () => random() * 100 < escapes, random)
  const write = (one: Value, depth: number): string => {
    if (typeof one === 'string') return text(one)
    if ('raw' in one) return one.raw
    const isObject = 'members' in one
    const parts = isObject
      ? one.members.map(([key, below]) => `${text(key)}${colon()}${write(below, depth + 1)}`)
      : one.map((item) => write(item, depth + 1))
    const [open, close] = isObject ? '{}' : '[]'
    if (parts.length === 0) return `${open}${space === 'odd' ? gap(0) : ''}${close}`
    const separator = space === 'odd' ? () => `${gap(0)},` : () => ','
    const inner = parts.map((part, at) => `${at === 0 ? '' : separator()}${gap(depth + 1)}${part}`)
    return `${open}${inner.join('')}${gap(depth)}${close}`
  }
  return write(value, 0)
}

const SHORT: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\t': '\\t',
  '\r': '\\r',
  '\b': '\\b',
  '\f': '\\f',
}

function spellText(text: string, escaped: () => boolean, random: () => number): string {
  let out = ''
  for (const unit of text) {
    const needed = unit < ' ' || unit === '"' || unit === '\\' || /[\ud800-\udfff]/u.test(unit)
    const short = SHORT[unit] ?? (unit === '/' ? '\\/' : undefined)
    if (needed && short !== undefined && random() < 0.8) out += short
    else if (!needed && !escaped()) out += unit
    else if (short !== undefined && random() < 0.5) out += short
    else
      for (let at = 0; at < unit.length; at++) {
        const hex = unit.charCodeAt(at).toString(16).padStart(4, '0')
        out += `\\u${random() < 0.5 ? hex : hex.toUpperCase()}`
      }
  }
  return `"${out}"`
}

const raw = (text: string): Raw => ({ raw: text })
const NUMBERS = ['0', '-0', '1', '9007199254740993', '-9223372036854775808', '1E400', '1.0', '1e-7']
const base64 = (text: string): string => Buffer.from(text).toString('base64')

/** Texts that hold nothing that detectors find, some of them tempting. */
export const HARMLESS = [
  ...['', 'a', 'nginx:1.27', 'true', 'null', '{}', '[]', '{"kind":"Secret"}', '"kind":"Secret"'],
  ...[
    'Secret',
    'kind',
    'data',
    'é',
    'ü\u0000',
    '日本語',
    '😀',
    '\u2028',
    '\u007f',
    '\\',
    '"',
    '\\"',
  ],
  ...['{"kind":"Secret","data":', '\\u0064ata', '}', ']', ',', ':', 'x'.repeat(300), 'H4s', 'a/b'],
] as const

const harmless = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...HARMLESS) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 12 }) },
)
const key = fc.oneof(
  fc.constantFrom(
    'a',
    'tls.key',
    '.dockerconfigjson',
    '.dockercfg',
    'kind',
    'data',
    'é',
    '',
    'items',
  ),
  fc.constantFrom('env', 'metadata', 'annotations', 'apiVersion', 'password', 'args', '😀', 'a"b'),
  fc.string({ unit: 'binary', maxLength: 6 }),
)
const word = fc.constantFrom(...NUMBERS, 'true', 'false', 'null').map(raw)
const tail = fc.string({ unit: 'grapheme-ascii', maxLength: 8 })
const planted = tail.map((rest) => `${MARK}${rest}`)
/** What a detector finds. */
const found = fc.constantFrom(
  `password=${MARK}1`,
  `DB_PASSWORD: "${MARK}2"`,
  `url postgres://u:${MARK}@h/db`,
  `line\napi_key = ${MARK}33\nnext`,
  `é password=${MARK}4 ü`,
)

const dictionary = (value: fc.Arbitrary<Value>): fc.Arbitrary<Members> =>
  fc.array(fc.tuple(key, value), { maxLength: 4 }).map((entries) => members(...entries))

/** Below `data` of Secrets: mostly what is there in truth, and whatever else a server might send. */
const hidden: fc.Arbitrary<Value> = fc.oneof(
  { weight: 6, arbitrary: planted.map(base64) },
  { weight: 2, arbitrary: planted },
  { weight: 1, arbitrary: word },
  { weight: 1, arbitrary: fc.tuple(planted, planted, word) },
  { weight: 1, arbitrary: dictionary(planted) },
)

/** Members in an order: as types declare them, as maps print them, or any. */
function ordered(
  entries: readonly (readonly [string, Value | undefined])[],
): fc.Arbitrary<Members> {
  const given = members(...entries)
  const sorted = given.members.toSorted(([a], [b]) => (a < b ? -1 : 1))
  return fc.oneof(
    { weight: 3, arbitrary: fc.constant(given) },
    { weight: 3, arbitrary: fc.constant({ members: sorted }) },
    {
      weight: 2,
      arbitrary: fc
        .shuffledSubarray([...given.members], { minLength: given.members.length })
        .map((all) => ({ members: all })),
    },
  )
}

const spelling: fc.Arbitrary<Spelling> = fc.record({
  seed: fc.nat(),
  space: fc.constantFrom('none', 'none', 'pretty', 'odd'),
  escapes: fc.constantFrom(0, 0, 10, 60),
})

/** A last-applied copy is one level less deep than its object. */
function metadata(depth: number, version = '1'): fc.Arbitrary<Members> {
  const copy =
    depth <= 0
      ? fc.constant('{}')
      : fc.tuple(anObject(depth - 1), spelling).map(([value, how]) => spell(value, how))
  const annotation: fc.Arbitrary<readonly [string, Value]> = fc.oneof(
    fc.tuple(
      fc.constant('note'),
      harmless.filter((text) => !/^\s*[{[]/.test(text)),
    ),
    fc.tuple(fc.constant('info'), found),
    fc.tuple(fc.constant('kubectl.kubernetes.io/last-applied-configuration'), copy),
    fc.tuple(fc.constant('kapp.k14s.io/original'), copy),
    fc.tuple(fc.constant('example.com/last-applied'), planted),
  )
  return fc
    .tuple(fc.array(annotation, { maxLength: 3 }), fc.boolean(), harmless, fc.boolean())
    .map(([annotations, uid, label, managed]) =>
      members(
        ['name', 'thing'],
        ['namespace', 'agents'],
        ['uid', uid ? '6a2f7c0e-0000-4000-8000-000000000001' : undefined],
        ['resourceVersion', version],
        ['generation', raw('9007199254740993')],
        ['labels', members(['app', label])],
        ['annotations', annotations.length === 0 ? undefined : members(...annotations)],
        ['ownerReferences', [members(['kind', 'Secret'], ['name', 'x'], ['uid', 'u'])]],
        [
          'managedFields',
          managed
            ? [
                members(
                  ['manager', 'kubectl'],
                  ['fieldsV1', members(['f:data', members(['f:a', members()])])],
                ),
              ]
            : undefined,
        ],
      ),
    )
}

function typed(
  apiVersion: string,
  kind: string | undefined,
  depth: number,
  ...rest: readonly (readonly [string, fc.Arbitrary<Value | undefined>])[]
): fc.Arbitrary<Members> {
  return fc
    .tuple(metadata(depth), ...rest.map(([, value]) => value))
    .chain(([meta, ...values]) =>
      ordered([
        ['kind', kind],
        ['apiVersion', apiVersion],
        ['metadata', meta],
        ...rest.map(([name], at): [string, Value | undefined] => [name, values[at]]),
      ]),
    )
}

const maybe = (value: fc.Arbitrary<Value>): fc.Arbitrary<Value | undefined> =>
  fc.option(value, { nil: undefined, freq: 3 })

const secret = (depth: number, kind: string | undefined): fc.Arbitrary<Members> =>
  typed(
    'v1',
    kind,
    depth,
    ['data', kind === undefined ? dictionary(hidden) : maybe(dictionary(hidden))],
    ['stringData', maybe(dictionary(planted))],
    ['type', fc.constantFrom('Opaque', 'kubernetes.io/tls', 'helm.sh/release.v1')],
    ['immutable', maybe(word)],
  )

const compressed = planted.map((text) => gzipSync(text).toString('base64'))
const configMap = (depth: number): fc.Arbitrary<Members> =>
  typed(
    'v1',
    'ConfigMap',
    depth,
    ['data', dictionary(fc.oneof(harmless, found, compressed))],
    [
      'binaryData',
      maybe(dictionary(fc.oneof(harmless.map(base64), found.map(base64), compressed))),
    ],
  )

const variable: fc.Arbitrary<Value> = fc
  .oneof(
    fc.record({
      name: fc.constantFrom(
        'DB_PASSWORD',
        'apiKey',
        'AUTH_TOKEN',
        'Authorization',
        'CLIENT_SECRET',
      ),
      value: planted,
    }),
    fc.record({ name: fc.constantFrom('HOST', 'PASSWORD_FILE', 'é'), value: harmless }),
    fc.record({ name: fc.constantFrom('HOST', 'CONFIG'), value: found }),
  )
  .chain(({ name, value }) =>
    ordered([
      ['name', name],
      ['value', value],
    ]),
  )
const words: fc.Arbitrary<Value> = fc
  .array(
    fc.oneof(
      fc.constantFrom('serve', '--verbose', '-c', '--port=80', 'é').map((one) => [one]),
      planted.map((text) => ['--password', text]),
      planted.map((text) => ['--token', text]),
      fc.constant([`--password=${MARK}5`]),
    ),
    { maxLength: 3 },
  )
  .map((parts) => parts.flat())
const container: fc.Arbitrary<Members> = fc
  .tuple(fc.array(variable, { maxLength: 3 }), words, words, fc.array(variable, { maxLength: 2 }))
  .chain(([env, command, args, httpHeaders]) =>
    ordered([
      ['name', 'main'],
      ['image', 'nginx'],
      ['command', command],
      ['args', args],
      ['env', env],
      ['livenessProbe', members(['httpGet', members(['path', '/'], ['httpHeaders', httpHeaders])])],
      ['resources', members(['limits', members(['cpu', raw('1e3')])])],
    ]),
  )
const podSpec = fc
  .tuple(fc.array(container, { minLength: 1, maxLength: 2 }), container)
  .map(([containers, init]) => members(['initContainers', [init]], ['containers', containers]))
const template = (depth: number): fc.Arbitrary<Members> =>
  fc
    .tuple(metadata(depth), podSpec)
    .map(([meta, spec]) => members(['metadata', meta], ['spec', spec]))

const status = fc
  .tuple(
    fc.constantFrom(
      `Secret "x" is invalid: data[a]: Invalid value: "${MARK}": no`,
      `unable to decode: error found in #10 byte of ...|"${MARK}"|..., bigger context ...|{"a":"${MARK}"}|...`,
      `password=${MARK}6 is wrong`,
      'not found',
    ),
    fc.constantFrom('secrets', 'Secret'),
  )
  .chain(([message, kind]) =>
    ordered([
      ['kind', 'Status'],
      ['apiVersion', 'v1'],
      ['metadata', members()],
      ['status', 'Failure'],
      ['message', message],
      ['reason', 'Invalid'],
      [
        'details',
        members(
          ['name', 'x'],
          ['kind', kind],
          [
            'causes',
            [members(['reason', 'FieldValueInvalid'], ['message', message], ['field', 'a'])],
          ],
        ),
      ],
      ['code', raw('422')],
    ]),
  )

const tokenRequest = (depth: number): fc.Arbitrary<Members> =>
  typed(
    'authentication.k8s.io/v1',
    'TokenRequest',
    depth,
    ['spec', fc.constant(members(['audiences', ['a']]))],
    ['status', planted.map((token) => members(['token', token], ['expirationTimestamp', 'x']))],
  )
const tokenReview = (depth: number): fc.Arbitrary<Members> =>
  typed('authentication.k8s.io/v1', 'TokenReview', depth, [
    'spec',
    planted.map((token) => members(['token', token])),
  ])

/** What stands where no object is due says its kind first; that of Secrets and ConfigMaps is waited for everywhere. */
function kindFirst(object: Members): Members {
  const inner = object.members.map(([key, value]) => [key, valueKindFirst(value)] as const)
  const kind = inner.find(([key]) => key === 'kind')
  if (kind === undefined || kind[1] === 'Secret' || kind[1] === 'ConfigMap')
    return { members: inner }
  const isHead = (key: string): boolean => key === 'kind' || key === 'apiVersion'
  return {
    members: [...inner.filter(([key]) => isHead(key)), ...inner.filter(([key]) => !isHead(key))],
  }
}

function valueKindFirst(value: Value): Value {
  if (typeof value === 'string' || 'raw' in value) return value
  return 'members' in value ? kindFirst(value) : value.map(valueKindFirst)
}

const custom = (depth: number): fc.Arbitrary<Members> =>
  typed(
    'example.com/v1',
    'Widget',
    depth,
    [
      'spec',
      fc
        .tuple(template(depth - 1), anObject(depth - 1).map(kindFirst), words)
        .map(([pod, inner, args]) =>
          members(
            ['kind', 'vault'],
            ['template', pod],
            ['resources', [inner, [[inner]]]],
            ['args', args],
          ),
        ),
    ],
    [
      'auth',
      fc
        .tuple(planted, planted)
        .map(([a, b]) =>
          members(
            ['basic', members(['kind', 'Basic'], ['token', a])],
            ['x', members(['token', b])],
          ),
        ),
    ],
  )

const anEvent = (depth: number): fc.Arbitrary<Members> =>
  typed(
    'v1',
    'Event',
    depth,
    ['message', fc.oneof(found, harmless)],
    ['involvedObject', fc.constant(members(['kind', 'Secret'], ['name', 'x']))],
  )

/** One object, with others in it to that depth. */
export function anObject(depth: number): fc.Arbitrary<Members> {
  const flat: fc.Arbitrary<Members>[] = [
    secret(depth, 'Secret'),
    secret(depth, 'Secret'),
    configMap(depth),
    typed('v1', 'Pod', depth, ['spec', podSpec]),
    status,
    tokenRequest(depth),
    tokenReview(depth),
    anEvent(depth),
    typed('v1', 'Node', depth, ['spec', fc.constant(members(['podCIDR', '10.0.0.0/24']))]),
    typed('meta.k8s.io/v1', 'PartialObjectMetadata', depth),
  ]
  if (depth <= 0) return fc.oneof(...flat)
  return fc.oneof(
    ...flat,
    typed('apps/v1', 'Deployment', depth, [
      'spec',
      template(depth - 1).map((pod) => members(['replicas', raw('1')], ['template', pod])),
    ]),
    typed('batch/v1', 'CronJob', depth, [
      'spec',
      template(depth - 1).map((pod) =>
        members(['jobTemplate', members(['spec', members(['template', pod])])]),
      ),
    ]),
    typed(
      'apps/v1',
      'ControllerRevision',
      depth,
      ['data', template(depth - 1).map((pod) => members(['spec', members(['template', pod])]))],
      ['revision', word],
    ),
    custom(depth),
    list(depth),
    table(depth),
  )
}

function list(depth: number): fc.Arbitrary<Members> {
  const of = (kind: string, item: fc.Arbitrary<Members>): fc.Arbitrary<Members> =>
    fc.array(item, { maxLength: 3 }).chain((items) =>
      ordered([
        ['kind', kind],
        ['apiVersion', 'v1'],
        ['metadata', members(['resourceVersion', '1'], ['continue', 'x'])],
        ['items', items],
      ]),
    )
  return fc.oneof(
    of('List', anObject(depth - 1)),
    of('SecretList', secret(depth - 1, undefined)),
    of('SecretList', secret(depth - 1, 'Secret')),
    of('List', secret(depth - 1, undefined)),
    of('PodList', typed('v1', undefined, depth - 1, ['spec', podSpec])),
  )
}

function table(depth: number): fc.Arbitrary<Members> {
  return fc.array(fc.tuple(harmless, anObject(depth - 1)), { maxLength: 2 }).chain((rows) =>
    ordered([
      ['kind', 'Table'],
      ['apiVersion', 'meta.k8s.io/v1'],
      ['columnDefinitions', [members(['name', 'Name'], ['type', 'string'])]],
      [
        'rows',
        rows.map(([cell, object]) => members(['cells', [cell, raw('2')]], ['object', object])),
      ],
    ]),
  )
}

/** A watch: events of objects of any kind, with or without lines between them. */
const watch = fc
  .array(
    fc.tuple(
      fc
        .tuple(fc.constantFrom('ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'), anObject(2))
        .chain(([type, object]) =>
          ordered([
            ['type', type],
            ['object', object],
          ]),
        ),
      spelling,
    ),
    { maxLength: 4 },
  )
  .chain((events) =>
    fc
      .constantFrom('\n', '\n', ' ', '')
      .map((end) => events.map(([value, how]) => `${spell(value, how)}${end}`).join('')),
  )

/** An answer, as it goes over the wire. */
export interface GeneratedAnswer {
  readonly bytes: Buffer
  readonly shape: 'object' | 'watch'
  readonly write: boolean
}

const shown = (answer: GeneratedAnswer): GeneratedAnswer & fc.WithToStringMethod => ({
  ...answer,
  [fc.toStringMethod]: () => `${answer.shape} ${JSON.stringify(answer.bytes.toString())}`,
})

/** Answers of both shapes. */
export const answers: fc.Arbitrary<GeneratedAnswer> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .tuple(anObject(2), spelling, fc.boolean(), fc.constantFrom('', '\n'))
      .map(([value, how, write, end]) =>
        shown({ bytes: Buffer.from(spell(value, how) + end), shape: 'object', write }),
      ),
  },
  {
    weight: 1,
    arbitrary: watch.map((text) =>
      shown({ bytes: Buffer.from(text), shape: 'watch', write: false }),
    ),
  },
)
