/** `nestgate reconcile` on files: logs as API servers write them, and as somebody would who has something to hide. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { Entry, IntentEntry } from '../../../broker/ledger/entry.ts'
import { serializeEntry } from '../../../broker/ledger/serialize.ts'
import { readCall } from '../../../cli/reconcile/audit-event.ts'
import { Join } from '../../../cli/reconcile/join.ts'
import { readFact } from '../../../cli/reconcile/ledger-entry.ts'
import { runCli } from '../../../cli/program.ts'
import { newRequestId } from '../../../shared/request-id.ts'
import { leafHash } from '../../../shared/transparency/tree.ts'
import { intent, outcome } from '../../support/entries.ts'

const START = Date.UTC(2030, 0, 1)
const BROKER = 'system:serviceaccount:nestgate-system:nestgate-broker'
const WORKER = 'system:serviceaccount:shop:agents'
/** Seconds from {@link START} at which something happens, well within both sides. */
const MIDDLE = 100
const END = 200

interface Report {
  readonly fits: boolean
  readonly counts: Readonly<Record<string, number>>
  readonly found: Readonly<Record<string, number>>
  readonly findings: readonly {
    readonly kind: string
    readonly requestId: string
    readonly differences: readonly { field: string; ledger: string; cluster: string }[]
  }[]
  readonly log: { readonly events: number; readonly halfLines: number }
  readonly clockUs?: { least: number; most: number }
}
type Timed = readonly [second: number, entry: Entry]
type Event = Record<string, unknown>

/** The intent of a write that went out. */
function sent(change: Parameters<typeof intent>[0] = {}): IntentEntry {
  return intent({
    credential: { mode: 'impersonation', user: WORKER },
    ...change,
    request: { verb: 'delete', method: 'DELETE', ...change.request },
  })
}

const timeOf = (second: number): string =>
  new Date(START + second * 1000).toISOString().replace('Z', '000Z')

/** What an API server writes of such a request. */
function event(
  { requestId, request, credential }: IntentEntry,
  second = MIDDLE,
  change: Event = {},
): Event {
  const { verb, namespace, resource, name, apiGroup, apiVersion, subresource, path, query } =
    request
  const ref = { resource, namespace, name, apiGroup, apiVersion, subresource }
  const given = Object.entries(ref).filter(([, value]) => value !== '')
  return {
    ...{ kind: 'Event', apiVersion: 'audit.k8s.io/v1', level: 'Metadata' },
    ...{ auditID: requestId, stage: 'ResponseComplete', verb },
    requestURI: query === '' ? path : `${path}?${query}`,
    ...(credential?.mode === 'issuer'
      ? { user: { username: credential.user, groups: [`nestgate:request:${requestId}`] } }
      : {
          user: { username: BROKER },
          impersonatedUser: {
            username: credential?.user,
            extra: { 'nestgate.dev/request-id': [requestId] },
          },
        }),
    ...(request.isResourceRequest ? { objectRef: Object.fromEntries(given) } : {}),
    responseStatus: { metadata: {}, code: 200 },
    requestReceivedTimestamp: timeOf(second),
    stageTimestamp: timeOf(second + 0.01),
    ...change,
  }
}

/** Somebody else's, which shows how far the log goes. */
const other = (second: number): Event => {
  const id = newRequestId(START)
  return event(sent({ requestId: id }), second, {
    user: { username: 'kubelet' },
    impersonatedUser: undefined,
  })
}
const jsonl = (events: readonly unknown[]): string =>
  events.map((value) => `${JSON.stringify(value)}\n`).join('')

describe('nestgate reconcile', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-reconcile-'))
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  const file = (name: string, content: string | Buffer): string => {
    const path = join(dir, name)
    writeFileSync(path, content)
    return path
  }
  const exportOf = (entries: readonly Timed[], change: object = {}): string => {
    const lines = entries.map(([second, entry], seq) => {
      const leaf = serializeEntry(entry, (START + second * 1000) * 1000)
      const hash = Buffer.from(leafHash(leaf)).toString('base64')
      return { seq, hash, leaf: Buffer.from(leaf).toString('base64') }
    })
    const manifest = { nestgate: 'ledger-export', version: 1, from: 0, to: lines.length }
    const end = { end: true, count: lines.length, checkpoint: '' }
    return file('ledger.jsonl', jsonl([{ ...manifest, ...change }, ...lines, end]))
  }
  const run = async (...args: string[]): Promise<{ code: number; out: string; err: string }> => {
    let [out, err] = ['', '']
    const code = await runCli({
      args: ['reconcile', '--cluster', 'main', ...args],
      env: {},
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }
  /** Both sides, with what shows how far they go around it. */
  const reconcile = async (
    entries: readonly Timed[],
    events: readonly Event[],
    ...more: string[]
  ): Promise<Report & { readonly code: number; readonly err: string }> => {
    const log = file('audit.jsonl', jsonl([other(0), ...events, other(END)]))
    return withLog(entries, [log], ...more)
  }
  const withLog = async (
    entries: readonly Timed[],
    logs: readonly string[],
    ...more: string[]
  ): Promise<Report & { readonly code: number; readonly err: string }> => {
    const began = intent({ requestId: newRequestId(START) })
    const ended = intent({ requestId: newRequestId(START) })
    const ledger = exportOf([[0, began], ...entries, [END, ended]])
    const { code, out, err } = await run(
      ...['--audit-log', ...logs, '--export', ledger, '--format', 'json', ...more],
    )
    return { ...(out === '' ? ({} as Report) : (JSON.parse(out) as Report)), code, err }
  }
  const whole = (asked: IntentEntry, status = 200, second = MIDDLE): Timed[] => [
    [second, asked],
    [second + 0.02, outcome(asked.requestId, status)],
  ]
  const kinds = ({ findings }: Report): string[] => findings.map(({ kind }) => kind)

  it('says that both sides fit, in either mode', async () => {
    const acted = sent()
    const issued = sent({ credential: { mode: 'issuer', user: 'nestgate:subject:ci' } })
    const path = intent({
      credential: { mode: 'impersonation', user: WORKER },
      request: {
        isResourceRequest: false,
        verb: 'get',
        path: '/version',
        resource: '',
        name: '',
        namespace: '',
      },
    })
    const report = await reconcile(
      [...whole(acted), ...whole(issued, 404), ...whole(path)],
      [event(acted), event(issued, MIDDLE, { responseStatus: { code: 404 } }), event(path)],
    )
    expect(report).to.deep.include({ code: 0, fits: true, found: {}, findings: [] })
    expect(report.counts).to.include({ fits: 3, unfinished: 0 })
  })

  it('tells calls of ours that the ledger lacks, and entries that the cluster never saw', async () => {
    const [lost, unseen] = [sent(), sent()]
    const report = await reconcile(whole(unseen), [event(lost)])
    expect(report.code).to.equal(1)
    expect(report.found).to.deep.equal({ missing_in_ledger: 1, missing_in_cluster: 1 })
    expect(report.findings.map(({ requestId }) => requestId)).to.have.members([
      ...[lost.requestId, unseen.requestId],
    ])
  })

  it('knows a call by the credential of another cluster as missing', async () => {
    const elsewhere = sent({ cluster: 'other' })
    const report = await reconcile([[MIDDLE, elsewhere]], [event(elsewhere)])
    expect(kinds(report)).to.deep.equal(['missing_in_ledger'])
  })

  const FACTS: readonly (readonly [string, Event, string])[] = [
    ['verb', { verb: 'patch' }, 'verb'],
    [
      'resource',
      { objectRef: { resource: 'secrets', namespace: 'shop', name: 'web-0' } },
      'resource',
    ],
    [
      'group',
      { objectRef: { resource: 'pods', apiGroup: 'x', namespace: 'shop', name: 'web-0' } },
      'apiGroup',
    ],
    [
      'namespace',
      { objectRef: { resource: 'pods', namespace: 'kube-system', name: 'web-0' } },
      'namespace',
    ],
    ['name', { objectRef: { resource: 'pods', namespace: 'shop', name: 'web-1' } }, 'name'],
    [
      'subresource',
      { objectRef: { resource: 'pods', subresource: 'exec', namespace: 'shop', name: 'web-0' } },
      'subresource',
    ],
    ['status', { responseStatus: { code: 403 } }, 'status'],
    ['user', { impersonatedUser: { username: 'system:admin' } }, 'user'],
  ]
  for (const [what, change, field] of FACTS) {
    it(`tells a ${what} that differs`, async () => {
      const asked = sent()
      const report = await reconcile(whole(asked), [event(asked, MIDDLE, change)])
      expect(report.code).to.equal(1)
      expect(kinds(report)).to.deep.equal(['differs'])
      expect(report.findings[0]?.differences.map((difference) => difference.field)).to.deep.equal([
        field,
      ])
    })
  }

  it('knows the name of a new object, which the API server may have read or not', async () => {
    const made = sent({
      request: {
        ...{ verb: 'create', method: 'POST', name: '' },
        attributes: {
          policyVerb: 'create',
          actions: [],
          equivalents: [],
          parameters: { dryRun: false },
          objectName: 'g-*',
        },
      },
    })
    const ref = (name: string): Event => ({
      objectRef: { resource: 'pods', namespace: 'shop', name },
    })
    for (const [change, code] of [
      [{}, 0],
      [ref('g-x'), 0],
      [ref('h-x'), 1],
    ] as const) {
      expect((await reconcile(whole(made), [event(made, MIDDLE, change)])).code).to.equal(code)
    }
  })

  describe('excuses', () => {
    it('what was not sent, runs on, or is of another time, and counts it', async () => {
      const [refused, running, late] = [sent(), sent(), sent()]
      const report = await reconcile(
        [
          [MIDDLE, refused],
          [MIDDLE, { ...outcome(refused.requestId, 502), reason: 'upstream_unavailable' }],
          [MIDDLE, running],
          ...whole(late, 200, END - 1),
        ],
        [event(sent(), END - 1)],
      )
      expect(report.code).to.equal(0)
      expect(report.counts).to.include({ notSent: 1, running: 1, outsideLog: 1, outsideLedger: 1 })
    })

    it('nothing before an export that begins with the first entry', async () => {
      const early = sent()
      const log = file('audit.jsonl', jsonl([event(early, -1000), other(END)]))
      expect(kinds(await withLog([], [log]))).to.deep.equal(['missing_in_ledger'])
    })

    it('an answer that broke off, whose status is the API server’s alone', async () => {
      for (const reason of ['upstream_invalid', 'answer_unmaskable'] as const) {
        const asked = sent()
        const broken = { ...outcome(asked.requestId, 502), reason }
        const entries = [asked, broken].map((entry) => [MIDDLE, entry] as const)
        expect((await reconcile(entries, [event(asked)])).code, reason).to.equal(0)
        // it was sent, so a log without it has lost it
        expect((await reconcile(entries, [])).code, reason).to.equal(1)
      }
    })

    it('what the audit policy leaves out, and only that', async () => {
      const [pod, map] = [sent(), sent({ request: { resource: 'configmaps' } })]
      const policy = (rules: object[]): string =>
        file('policy.yaml', JSON.stringify({ kind: 'Policy', rules }))
      const none = { level: 'None', resources: [{ group: '', resources: ['configmaps'] }] }
      const groups = { ...none, userGroups: ['system:nodes'] }
      const found = async (...rules: object[]): Promise<string[]> => {
        const entries = [...whole(pod), ...whole(map)]
        const report = await reconcile(entries, [event(pod)], '--audit-policy', policy(rules))
        return kinds(report)
      }
      expect(await found(none, { level: 'Metadata' })).to.deep.equal([])
      expect(await found(groups, { level: 'Metadata' })).to.deep.equal(['missing_in_cluster'])
      expect(await found({ level: 'Metadata' }, none)).to.deep.equal(['missing_in_cluster'])
    })

    it('refused attempts of nestgate doctor, and none that got through', async () => {
      const checked: Timed = [
        MIDDLE + 5,
        { kind: 'system', event: 'cluster_checked', actor: 'root', detail: { cluster: 'main' } },
      ]
      const [refused, through] = [sent(), sent()]
      const report = await reconcile(
        [checked],
        [event(refused, MIDDLE, { responseStatus: { code: 403 } }), event(through, MIDDLE)],
      )
      expect(report.counts).to.include({ probes: 1 })
      expect(report.findings.map(({ requestId }) => requestId)).to.deep.equal([through.requestId])
    })
  })

  it('takes the stages of one request for one, also a panic, and an unfinished watch', async () => {
    const [asked, watch, panicked] = [sent(), sent({ request: { verb: 'watch' } }), sent()]
    const stage = (name: string): Event => ({ stage: name, responseStatus: undefined })
    const report = await reconcile(
      [...whole(asked), [MIDDLE, watch], ...whole(panicked, 500)],
      [
        ...[event(asked, MIDDLE, stage('RequestReceived')), event(asked)],
        event(watch, MIDDLE, stage('ResponseStarted')),
        event(panicked, MIDDLE, { stage: 'Panic', responseStatus: { code: 500 } }),
      ],
    )
    expect(report.code).to.equal(0)
    expect(report.counts).to.include({ fits: 3, unfinished: 1, doubled: 0 })
  })

  it('tells a second call under a spent id, but not a read that was sent once more', async () => {
    const [write, read] = [sent(), sent({ request: { verb: 'list', method: 'GET' } })]
    const report = await reconcile(
      [...whole(write), ...whole(read)],
      [event(write), event(read), event(write, MIDDLE + 1), event(read, MIDDLE + 1)],
    )
    expect(kinds(report)).to.deep.equal(['second_call'])
    expect(report.counts).to.include({ repeated: 1, fits: 2 })
  })

  it('counts events that are there twice, and tells those that are not the same', async () => {
    const [asked, changed] = [sent(), sent()]
    const report = await reconcile(
      [...whole(asked), ...whole(changed)],
      [event(asked), event(asked), event(changed), event(changed, MIDDLE, { verb: 'create' })],
    )
    expect(report.counts).to.include({ doubled: 1, fits: 2 })
    expect(kinds(report)).to.deep.equal(['differs'])
  })

  it('takes no event of somebody else for ours, whatever id it has', async () => {
    const asked = sent()
    const forged = event(asked, MIDDLE + 1, {
      user: { username: 'mallory' },
      impersonatedUser: undefined,
    })
    expect(kinds(await reconcile(whole(asked), [forged]))).to.have.members([
      ...['foreign_user', 'missing_in_cluster'],
    ])
  })

  it('believes the credential before the Audit-ID', async () => {
    const [asked, hidden] = [sent(), sent()]
    const report = await reconcile(
      [...whole(asked), ...whole(hidden)],
      [event(asked), event(asked, MIDDLE + 1, { auditID: hidden.requestId })],
    )
    expect(kinds(report)).to.have.members(['second_call', 'missing_in_cluster'])
  })

  it('tells what the broker’s account does without a name to act for', async () => {
    const own = (change: Event): Event =>
      event(sent(), MIDDLE, { impersonatedUser: undefined, ...change })
    const review = { resource: 'tokenreviews', apiGroup: 'authentication.k8s.io' }
    const report = await reconcile([], [own({ verb: 'create', objectRef: review }), own({})])
    expect(report.counts).to.include({ own: 1 })
    expect(kinds(report)).to.deep.equal(['own_account'])
  })

  it('compares people by their pseudonyms, each of which is one person', async () => {
    const pseudonym = `personal:${'a'.repeat(43)}`
    const by = (user: string): readonly [IntentEntry, Event] => {
      const asked = sent({ credential: { mode: 'impersonation', user: pseudonym } })
      return [asked, event(asked, MIDDLE, { impersonatedUser: { username: user } })]
    }
    const pairs = [by('ada'), by('ada'), by('bob'), by('system:admin')]
    const report = await reconcile(
      pairs.flatMap(([asked]) => whole(asked)),
      pairs.map(([, seen]) => seen),
    )
    expect(report.counts).to.include({ fits: 2, hidden: 4 })
    expect(report.findings.map(({ requestId }) => requestId)).to.have.members(
      pairs.slice(2).map(([asked]) => asked.requestId),
    )
  })

  it('tells two intents of one request', async () => {
    const asked = sent()
    const report = await reconcile([...whole(asked), [MIDDLE + 1, asked]], [event(asked)])
    expect(kinds(report)).to.deep.equal(['second_intent'])
  })

  it('bears clocks that differ, and says by how much', async () => {
    const asked = sent()
    const report = await reconcile(whole(asked), [event(asked, MIDDLE - 30)])
    expect(report.code).to.equal(0)
    expect(report.clockUs).to.deep.equal({ least: -30_000_000, most: -30_000_000 })
  })

  describe('reads', () => {
    it('rotated and compressed files in any order, an EventList, a half last line', async () => {
      const asked = [sent(), sent(), sent(), sent()]
      const [first, second, third, fourth] = asked.map((one, at) => event(one, MIDDLE + at))
      const list = {
        kind: 'EventList',
        apiVersion: 'audit.k8s.io/v1',
        metadata: {},
        items: [third],
      }
      const members = [[other(0), first], [second]].map((events) => gzipSync(jsonl(events)))
      const logs = [
        file('now.jsonl', `${jsonl([fourth, other(END)])}{"kind":"Event","audi`),
        file('old.gz', Buffer.concat(members)),
        file('list.json', JSON.stringify(list, undefined, 2)),
      ]
      const report = await withLog(
        asked.flatMap((one) => whole(one)),
        logs,
      )
      expect(report).to.include({ code: 0 })
      expect(report.counts).to.include({ fits: 4 })
      expect(report.log).to.include({ events: 6, halfLines: 1 })
    })

    const BROKEN: readonly (readonly [string, string | Buffer, string])[] = [
      ['a line that is none', `${jsonl([other(0)])}{"x\n${jsonl([other(END)])}`, 'audit.jsonl:2'],
      ['JSON that is no event', jsonl([other(0), { kind: 'Pod' }]), 'audit.jsonl:2'],
      [
        'a compressed file that was cut',
        gzipSync(jsonl([other(0)])).subarray(0, -9),
        'cannot read',
      ],
      ['an empty log', '', 'no event'],
    ]
    for (const [what, content, said] of BROKEN) {
      it(`ends with 2 on ${what}`, async () => {
        const { code, err } = await withLog([], [file('audit.jsonl', content)])
        expect(code).to.equal(2)
        expect(err).to.contain(said)
      })
    }

    it('ends with 2 on a file that is not there, and without --since where the broker is asked', async () => {
      expect((await withLog([], [join(dir, 'nothing')])).code).to.equal(2)
      expect((await run('--audit-log', file('audit.jsonl', jsonl([other(0)])))).err).to.contain(
        '--since',
      )
    })

    it('no export that is filtered, cut, reordered or changed', async () => {
      const log = file('audit.jsonl', jsonl([other(0), other(END)]))
      const good = exportOf([
        [0, sent()],
        [1, sent()],
      ])
      const of = async (path: string): Promise<number> =>
        (await run('--audit-log', log, '--export', path)).code
      expect(await of(good)).to.equal(0)
      const [manifest = '', first = '', second = '', end = ''] = await lines(good)
      const forged = first.replace(/"leaf":"[^"]{4}/, '"leaf":"e30K')
      const texts = [
        [manifest.replace('"to":2', '"to":2,"filter":{"verb":"get"}'), first, second, end],
        [manifest.replace('"to":2', '"to":2,"filter":{"cluster":"other"}'), first, second, end],
        [manifest, first, second],
        [manifest, second, first, end],
        [manifest, first, end],
        [manifest, forged, second, end],
        [first, second, end],
      ]
      for (const [at, text] of texts.entries())
        expect(await of(file('bad.jsonl', `${text.join('\n')}\n`)), String(at)).to.equal(2)
    })
  })

  it('remembers requests under way alone', () => {
    const options = { skewUs: 0, isAudited: (): boolean => true }
    const all = new Join(options)
    const clusters = new Set(['main'])
    let most = 0
    for (let second = 0; second < 5_000; second += 1) {
      const asked = sent()
      const [began, ended] = [asked, outcome(asked.requestId)].map((entry) =>
        readFact({ time: timeOf(second), ...entry }, second, clusters),
      )
      const call = readCall(event(asked, second), (name) => name === BROKER)
      if (began === undefined || ended === undefined || call === undefined) throw new Error('none')
      all.entry(began)
      all.call(call)
      all.entry(ended)
      most = Math.max(most, all.open)
    }
    expect(most).to.equal(0)
    const period = { fromUs: -Infinity, toUs: Infinity }
    expect(all.finish(period, period).counts).to.include({ fits: 5_000 })
  })

  it('shows hostile names as what they are, in each form', async () => {
    const hostile = sent({ request: { name: '=cmd()\u001b[2J\u202e,"' } })
    const log = file('audit.jsonl', jsonl([other(0), event(hostile), other(END)]))
    const ledger = exportOf([
      [0, sent()],
      [END, sent()],
    ])
    for (const format of ['table', 'csv', 'json']) {
      const { code, out } = await run('--audit-log', log, '--export', ledger, '--format', format)
      expect(code).to.equal(1)
      for (const hidden of ['\u001b', '\u202e']) expect(out).not.to.contain(hidden)
      if (format === 'csv') expect(out).to.contain(`"'=cmd()\\u{1b}[2J\\u{202e},"""`)
    }
  })
})

async function lines(path: string): Promise<string[]> {
  const { readFile } = await import('node:fs/promises')
  return (await readFile(path, 'utf8')).trim().split('\n')
}
