/**
 * `nestgate sessions verify`: computes the running hash over the sealed chunks anew, without any key, and compares it with what the session's
 * document and the ledger's entries say of it.
 */
import type { Command } from 'commander'
import { z } from 'zod'
import { firstHash, followChain } from '../shared/recording/chain.ts'
import type { ChainState } from '../shared/recording/chain.ts'
import { sessionSchema } from '../shared/recording/session-wire.ts'
import type { Session } from '../shared/recording/session-wire.ts'
import { auditPageSchema } from '../shared/wire.ts'
import type { BrokerClient } from './client.ts'
import { plain, toJson } from './output.ts'
import type { Runner } from './program.ts'
import { sessionId } from './sessions-answers.ts'

/** Entries of one page at most; the broker's limit. */
const MAX_PAGE = 1000

/** What somebody says the running hash was behind so many chunks. */
interface Claim extends ChainState {
  /** The document, or an entry of the ledger. */
  readonly by: string
  /** Number of the entry. */
  readonly seq?: number
  /** Of an entry. */
  readonly event?: string
}

/** What came of it. */
interface Verdict {
  readonly id: string
  readonly verified: boolean
  readonly state: Session['state']
  /** What does not fit, in plain sentences. */
  readonly problems: readonly string[]
  readonly chunks: number
  readonly bytes: number
  readonly runningSha256: string
  /** Whether the last chunk says that it is the last one. */
  readonly isComplete: boolean
  /** Numbers of the ledger's entries that fit. */
  readonly entries: readonly number[]
  /** Chunks up to the last entry that fits. */
  readonly chunksInLedger: number
}

/** Of entries `progress`, `ended` and `cut`. */
const claimSchema = z.object({
  event: z.string(),
  detail: z.object({
    chunks: z.int().min(0),
    bytes: z.int().min(0),
    runningSha256: z.string(),
  }),
})

/** Adds the command. */
export function addSessionVerify(sessions: Command, runner: Runner): void {
  sessions
    .command('verify')
    .description('compute the running hash anew, and compare it with the ledger (role auditor)')
    .argument('<id>', 'id of the session')
    .action((text: string) => {
      const id = sessionId(text)
      return runner.call(async (client, format) => {
        const verdict = await verify(client, id)
        if (!verdict.verified) runner.fail()
        return format === 'json' ? toJson(verdict) : verdictText(verdict)
      })
    })
}

async function verify(client: BrokerClient, id: string): Promise<Verdict> {
  const path = `v1/sessions/${id}`
  // first what is said, then the chunks: of a running session more of them may be there by then, never fewer
  const session = await client.get(sessionSchema, path)
  const ledger = await ledgerClaims(client, id)
  const states = new Map<number, ChainState>([
    [0, { chunks: 0, bytes: 0, runningSha256: firstHash(id).toString('hex') }],
  ])
  const sealed = client.download(`${path}/sealed`, new URLSearchParams())
  const chain = await followChain(id, sealed, (state) => states.set(state.chunks, state))
  const last = states.get(states.size - 1)
  const fitting = ledger.filter((claim) => problemOf(claim, states) === undefined)
  const claims = [...documentClaims(session), ...ledger]
  const problems = [
    ...('problem' in chain ? [`chunk ${chain.index}: ${chain.problem}`] : []),
    ...claims.flatMap((claim) => problemOf(claim, states) ?? []),
    ...endProblems(session, ledger, states.size - 1, 'isComplete' in chain && chain.isComplete),
  ]
  return {
    id,
    verified: problems.length === 0,
    state: session.state,
    problems,
    chunks: last?.chunks ?? 0,
    bytes: last?.bytes ?? 0,
    runningSha256: last?.runningSha256 ?? '',
    isComplete: 'isComplete' in chain && chain.isComplete,
    entries: fitting.flatMap(({ seq }) => seq ?? []),
    chunksInLedger: Math.max(0, ...fitting.map(({ chunks }) => chunks)),
  }
}

async function ledgerClaims(client: BrokerClient, id: string): Promise<readonly Claim[]> {
  const query = new URLSearchParams({ kind: 'session', requestId: id, limit: String(MAX_PAGE) })
  const claims: Claim[] = []
  for (;;) {
    const { items, next } = await client.get(auditPageSchema, 'v1/audit/events', query)
    for (const { seq, entry } of items) {
      const read = claimSchema.safeParse(entry)
      if (!read.success) continue
      const { event, detail } = read.data
      claims.push({ ...detail, by: `the ledger’s entry ${seq} (${event})`, seq, event })
    }
    if (next === undefined) return claims
    query.set('cursor', next)
  }
}

function documentClaims({ recording }: Session): readonly Claim[] {
  if (recording === undefined) return []
  const { chunks, bytes, runningSha256 } = recording
  return [{ chunks, bytes, runningSha256, by: 'the session’s document' }]
}

function problemOf(claim: Claim, states: ReadonlyMap<number, ChainState>): string | undefined {
  const state = states.get(claim.chunks)
  if (state === undefined) return `${claim.by} says that there are ${claim.chunks} chunks`
  if (state.runningSha256 !== claim.runningSha256)
    return `${claim.by} has another running hash behind ${claim.chunks} chunks: ${claim.runningSha256}`
  if (state.bytes !== claim.bytes)
    return `${claim.by} says that ${claim.chunks} chunks have ${claim.bytes} bytes, not ${state.bytes}`
  return undefined
}

/** A session that is over has an entry in the ledger that speaks of all of it. */
function endProblems(
  { state }: Session,
  ledger: readonly Claim[],
  chunks: number,
  isComplete: boolean,
): readonly string[] {
  if (state === 'running') return []
  const last = ledger.find(({ event }) => event === 'ended' || event === 'cut')
  const problems: string[] = []
  if (state === 'ended' && !isComplete) problems.push('the last chunk is missing')
  if (last === undefined) problems.push('the ledger has no entry of its end')
  else if (last.chunks !== chunks)
    problems.push(`${last.by} speaks of ${last.chunks} chunks, and there are ${chunks}`)
  return problems
}

function verdictText(verdict: Verdict): string {
  const { id, problems, state, chunks, bytes, runningSha256, entries, chunksInLedger } = verdict
  const what = `${chunks} chunks, ${bytes} bytes of events, running SHA-256 ${runningSha256}`
  if (problems.length > 0)
    return plain(`NOT VERIFIED: ${id}: ${problems.join('; ')}`).concat(`\n${what}`)
  const rest = chunks - chunksInLedger
  return [
    `verified: ${id} (${state}): the chunks are whole and in order, and their running hash is the one in the document and in the ledger`,
    what,
    `entries of the ledger: ${entries.join(', ')}${rest === 0 ? '' : `; ${rest} chunks are younger than the last of them`}`,
    'Not shown by this: that the entries are in the ledger (nestgate proof SEQ), and what is in the chunks, which takes the key.',
  ]
    .map(plain)
    .join('\n')
}
