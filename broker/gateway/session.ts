/**
 * Sessions on the way of a request: what is known of one, how policy wants it recorded, and the dialling between its recording's begin and
 * its bytes (broker/sessions/relay.ts). Log streams and changes of ephemeral containers are kept here too.
 */
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { RECORD_REQUIRED } from '../../shared/policy/terms.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import type { SessionFacts, SessionKind } from '../../shared/recording/session-wire.ts'
import { requestUpgrade } from '../../shared/upgrade.ts'
import type { Upgraded } from '../../shared/upgrade.ts'
import { maskArguments } from '../masking/detectors/masker.ts'
import type { ApprovalRecord } from '../ledger/entry.ts'
import { openRecorder } from '../sessions/begin.ts'
import type { SessionDeps } from '../sessions/begin.ts'
import { beginSession } from '../sessions/relay.ts'
import type { BegunSession, RunningSessionDeps, SessionOutcome } from '../sessions/relay.ts'
import { FORWARD_PROTOCOL, SPDY_COMMAND, SPDY_OFFERS } from '../sessions/ways.ts'
import type { Way } from '../sessions/ways.ts'
import type { Exchange } from './exchange.ts'
import { NOBODY_THERE, transportRefusal } from './forward.ts'
import type { ForwardOutcome, NotAnswered, Outgoing, Tap } from './forward.ts'
import { passedOn } from './headers.ts'
import { passAnswer } from './pass-answer.ts'
import { userOf } from './requester.ts'

/** Runs a session: the intent is durable. Never rejects for what client or API server did. */
export async function forwardSession(
  deps: RunningSessionDeps,
  exchange: Exchange,
  outgoing: Outgoing,
  socket: Duplex,
  approval: ApprovalRecord | undefined,
): Promise<ForwardOutcome | NotAnswered> {
  const { client, cluster, parsed } = exchange
  if (parsed.upgrade === undefined) throw new TypeError('a session that nobody asked for')
  if (socket.destroyed) return NOBODY_THERE
  const { way, protocol } = parsed.upgrade
  const begun = await beginSession(deps, {
    facts: factsOf(exchange, kindOf(way, exchange), protocolOf(way, protocol), approval),
    terms: sessionTerms(exchange),
    ...{ way, request: client.request, socket, revoked: outgoing.revoked },
    headers: passedOn({}, outgoing),
  })
  if (isRefusal(begun)) return { notAnswered: begun, bytesToServer: 0 }
  const dialled = await dial(cluster.upgrades, outgoing, upstreamProtocol(way, protocol), socket)
  if ('upgraded' in dialled) return outcomeOf(await begun.run(dialled.upgraded))
  await refused(begun, dialled.settled)
  return dialled.settled
}

async function refused(begun: BegunSession, settled: ForwardOutcome | NotAnswered): Promise<void> {
  await begun.notSwitched('status' in settled ? settled.status : 0)
}

/** What is spoken to the API server, and what its streams are to mean. */
interface Upstream {
  readonly protocol: string
  /** SPDY's word for what its streams are; undefined where it is none of our business. */
  readonly streams: string | undefined
}

function upstreamProtocol(way: Way, protocol: string): Upstream {
  switch (way.kind) {
    case 'command':
      return { protocol: 'SPDY/3.1', streams: SPDY_COMMAND }
    case 'forward':
      return { protocol: 'SPDY/3.1', streams: FORWARD_PROTOCOL }
    case 'opaque':
      return { protocol, streams: undefined }
  }
}

type Dialled = { readonly upgraded: Upgraded } | { readonly settled: ForwardOutcome | NotAnswered }

/** Asks the API server to switch; another answer of it goes to the client. */
async function dial(
  dispatcher: Dispatcher,
  outgoing: Outgoing,
  { protocol, streams }: Upstream,
  client: Duplex,
): Promise<Dialled> {
  if (client.destroyed) return { settled: NOBODY_THERE }
  const left = new AbortController()
  const leave = (): void => {
    left.abort()
  }
  client.once('close', leave)
  try {
    const { method, path } = outgoing
    const headers = streams === undefined ? outgoing.headers : spdyHeaders(outgoing, streams)
    const { signal } = left
    const answer = await requestUpgrade(dispatcher, { method, path, headers, protocol, signal })
    outgoing.answered?.()
    if (answer.kind === 'answered') return { settled: await passAnswer(outgoing, client, answer) }
    if (streams === undefined || speaks(answer, streams)) return { upgraded: answer }
    answer.socket.destroy()
    const refusal = refuse('upstream_invalid', 'it switched to another protocol')
    return { settled: { notAnswered: refusal, bytesToServer: 0 } }
  } catch (error) {
    if (left.signal.aborted) return { settled: NOBODY_THERE }
    return { settled: { notAnswered: transportRefusal(error), bytesToServer: 0 } }
  } finally {
    client.off('close', leave)
  }
}

function speaks({ headers }: Upgraded, streams: string): boolean {
  return headers.upgrade?.toLowerCase() === 'spdy/3.1' && headers[SPDY_OFFERS] === streams
}

function spdyHeaders({ headers }: Outgoing, streams: string): Outgoing['headers'] {
  const kept = Object.entries(headers).filter(
    ([name]) => !name.startsWith('sec-websocket-') && name !== SPDY_OFFERS,
  )
  return { ...Object.fromEntries(kept), [SPDY_OFFERS]: streams }
}

function outcomeOf({ ending, bytesToClient, bytesToServer }: SessionOutcome): ForwardOutcome {
  const reason = ending === undefined ? undefined : REASON_OF[ending]
  return {
    ...{ status: 101, bytesToClient, bytesToServer },
    ...(reason === undefined ? {} : { reason }),
  }
}

const REASON_OF: Readonly<Record<NonNullable<SessionOutcome['ending']>, ForwardOutcome['reason']>> =
  {
    refused: undefined,
    client_left: 'client_left',
    stream_broken: 'stream_broken',
    broker_ended: 'stream_broken',
    protocol_invalid: 'session_invalid',
    killed: 'killed',
    revoked: 'revoked',
    recording_failed: 'recording_failed',
    recording_full: 'recording_failed',
  }

/** Sessions are recorded unless every rule says otherwise. */
function sessionTerms({ decision: { obligations } }: Exchange): Recording {
  const { record } = obligations
  if (record === undefined) return RECORD_REQUIRED
  return record.orDefault ? { ...record, mode: 'required' } : record
}

/** Log streams are recorded where a rule says so. @returns undefined where this is none, or none wants it */
export function logTerms({ parsed: { info }, decision }: Exchange): Recording | undefined {
  const isLog = info.resource === 'pods' && info.subresource === 'log' && info.apiGroup === ''
  const { record } = decision.obligations
  return isLog && record !== undefined && record.mode !== 'off' ? record : undefined
}

/** Begins to record a log stream. @returns `recording_unavailable` where it must be and cannot */
export async function tapLogs(
  deps: SessionDeps,
  exchange: Exchange,
  terms: Recording,
  approval: ApprovalRecord | undefined,
): Promise<Tap | Refusal> {
  const facts = factsOf(exchange, 'logs', 'HTTP/1.1', approval)
  const recorder = await openRecorder(deps, facts, terms)
  if (recorder === undefined) return refuse('recording_unavailable')
  return {
    data: (chunk) => recorder.output('stdout', chunk),
    room: () => recorder.room(),
    stopped: recorder.stopped,
    end: (ending) => recorder.end(ending),
  }
}

/** A change of ephemeral containers, as policy wants it kept; undefined for any other request. */
export function debugFacts(
  exchange: Exchange,
  approval: ApprovalRecord | undefined,
): SessionFacts | undefined {
  const { info } = exchange.parsed
  const isChange = ['update', 'patch'].includes(info.verb)
  if (info.resource !== 'pods' || info.subresource !== 'ephemeralcontainers' || !isChange)
    return undefined
  return factsOf(exchange, 'debug', 'HTTP/1.1', approval)
}

function kindOf(way: Way, { parsed }: Exchange): SessionKind {
  if (way.kind === 'opaque') return 'proxy'
  if (way.kind === 'forward') return 'portforward'
  return parsed.info.subresource === 'attach' ? 'attach' : 'exec'
}

function protocolOf(way: Way, protocol: string): string {
  if (way.kind === 'command') return way.protocol
  return way.kind === 'forward' && way.transport === 'channels' ? way.protocol : protocol
}

function factsOf(
  { requestId, startedMs, cluster, requester, parsed, attributes, decision }: Exchange,
  kind: SessionKind,
  protocol: string,
  approval: ApprovalRecord | undefined,
): SessionFacts {
  const { info } = parsed
  const { container, command, tty = false, stdin = false } = attributes.parameters
  const { agent } = requester
  return {
    id: requestId,
    kind,
    cluster: cluster.name,
    namespace: info.namespace,
    name: info.name,
    ...(container === undefined ? {} : { container }),
    ...(command === undefined ? {} : { command: commandOf(command) }),
    ...{ tty, stdin },
    subject: userOf(requester),
    ...(agent === undefined ? {} : { agent: agent.names.agent, chain: [...agent.names.chain] }),
    rules: [...decision.rules],
    policyDigest: decision.policyDigest,
    ...(approval === undefined ? {} : { approval: approvalFacts(approval) }),
    protocol,
    startedAt: new Date(startedMs).toISOString(),
  }
}

/** Longest command in a session's facts, in characters; the intent in the ledger has all of it, masked alike. */
const MAX_COMMAND_LENGTH = 4096
/** … and its words. */
const MAX_COMMAND_WORDS = 256

/** A command's words with what looks like a secret hidden. */
function commandOf(command: readonly string[]): string[] {
  let left = MAX_COMMAND_LENGTH
  const words: string[] = []
  for (const text of maskArguments(command.slice(0, MAX_COMMAND_WORDS))) {
    words.push(text.length <= left ? text : `${text.slice(0, left)}…`)
    left -= text.length
    if (left <= 0) return words
  }
  return words
}

function approvalFacts({
  id,
  reviewer,
  approvers,
  reason,
  breakGlass,
}: ApprovalRecord): NonNullable<SessionFacts['approval']> {
  const people = approvers ?? (reviewer === '' ? [] : [reviewer])
  return {
    ...{ id, approvers: [...people], reason },
    ...(breakGlass === undefined ? {} : { breakGlass }),
  }
}
