/** Events on the owners of pods: what is said, how often, and what a dead API server means. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { Reviewed } from '../../../shared/injection/review.ts'
import { createLog } from '../../../shared/log.ts'
import { createEventSink } from '../../../webhook/events.ts'
import type { EventSink } from '../../../webhook/events.ts'
import type { Json } from '../../support/pod-admission.ts'

const OWNER = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'agents-1', uid: 'u1' }
const REVIEWED: Reviewed = {
  body: '{}',
  outcome: 'patched',
  uid: 'r',
  namespace: 'team-a',
  pod: 'agents-1-',
  warnings: [],
  owner: OWNER,
  isDryRun: false,
}

interface Sink {
  readonly sink: EventSink
  readonly sent: { readonly path: string; readonly event: Json }[]
  readonly pass: (ms: number) => void
}

function sinkOf(create?: () => Promise<void>): Sink {
  const sent: Sink['sent'] = []
  let now = 0
  const sink = createEventSink({
    api: {
      async create(path, event): Promise<unknown> {
        await create?.()
        sent.push({ path, event: event as Json })
        return {}
      },
    },
    log: createLog('test', 'silent'),
    now: () => now,
    date: () => new Date('2026-11-26T10:00:00.123Z'),
  })
  return { sink, sent, pass: (ms) => (now += ms) }
}

describe('events on owners', () => {
  it('say that pods are injected, once in ten minutes', async () => {
    const { sink, sent, pass } = sinkOf()
    for (let count = 0; count < 100; count += 1) sink.tell(REVIEWED)
    pass(599_999)
    sink.tell(REVIEWED)
    await sink.idle()
    expect(sent).to.have.length(1)
    expect(sent[0]?.path).to.equal('/api/v1/namespaces/team-a/events')
    expect(sent[0]?.event).to.deep.include({
      type: 'Normal',
      reason: 'NestgateInjected',
      involvedObject: { ...OWNER, namespace: 'team-a' },
      firstTimestamp: '2026-11-26T10:00:00Z',
    })
    pass(2)
    sink.tell(REVIEWED)
    await sink.idle()
    expect(sent).to.have.length(2)
  })

  it('carry each warning, cut to what the API server takes', async () => {
    const { sink, sent } = sinkOf()
    sink.tell({ ...REVIEWED, outcome: 'observed', warnings: ['a', 'b'.repeat(5000)] })
    await sink.idle()
    expect(sent.map(({ event }) => [event['type'], event['reason']])).to.deep.equal([
      ['Warning', 'NestgateObserved'],
      ['Warning', 'NestgateObserved'],
    ])
    expect(sent.map(({ event }) => String(event['message']).length)).to.deep.equal([1, 1024])
  })

  it('say nothing of pods that are only tried, or that nobody’s controller made', async () => {
    const { sink, sent } = sinkOf()
    sink.tell({ ...REVIEWED, isDryRun: true })
    const bare: { owner?: Reviewed['owner'] } & Omit<Reviewed, 'owner'> = { ...REVIEWED }
    delete bare.owner
    sink.tell(bare as Reviewed)
    await sink.idle()
    expect(sent).to.deep.equal([])
  })

  it('are lost, and hold nothing up, where the API server takes none', async () => {
    let tried = 0
    const { sink, sent } = sinkOf(() => {
      tried += 1
      return Promise.reject(new Error('unreachable'))
    })
    for (let index = 0; index < 5; index += 1)
      sink.tell({ ...REVIEWED, owner: { ...OWNER, uid: `u${index}` } })
    await sink.idle()
    expect([tried, sent.length]).to.deep.equal([5, 0])
  })

  it('wait in bounded number', async () => {
    let open = (): void => undefined
    const gate = new Promise<void>((resolve) => (open = resolve))
    const { sink, sent } = sinkOf(() => gate)
    for (let index = 0; index < 2000; index += 1)
      sink.tell({ ...REVIEWED, owner: { ...OWNER, uid: `u${index}` } })
    open()
    await sink.idle()
    // One was on its way when the others began to wait.
    expect(sent).to.have.length(257)
  })
})
