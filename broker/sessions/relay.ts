/**
 * THE WAY OF ONE SESSION, top to bottom, in the order in which it happens (its intent is durable):
 *
 *   recording begun → upstream dialled → client's 101 → bytes → recording closed → client told the result
 *
 * Whatever cannot be recorded and must be ends the session. The client hears how its command ended only when the recording is closed and
 * durable.
 */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { messageOf } from '../../shared/errors.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { SessionEnding, SessionFacts } from '../../shared/recording/session-wire.ts'
import { switchingHead } from '../../shared/upgrade.ts'
import type { Upgraded } from '../../shared/upgrade.ts'
import { commandOverSpdy } from './clients/command-spdy.ts'
import { commandOverWebSocket } from './clients/command-websocket.ts'
import { forwardOverSpdy } from './clients/forward-spdy.ts'
import { forwardOverChannels } from './clients/forward-websocket.ts'
import { bytesOver } from './clients/spdy.ts'
import { acceptWebSocket } from './clients/websocket.ts'
import type { HeaderLines } from './clients/websocket.ts'
import { joinCommand } from './command-relay.ts'
import { joinForward } from './forward-relay.ts'
import { openRecorder } from './begin.ts'
import type { SessionDeps } from './begin.ts'
import type { SessionRecorder } from './recorder.ts'
import { stopOf } from './stop.ts'
import type { Stop } from './stop.ts'
import { createSpdyConnection } from './spdy/connection.ts'
import { failure, readStatus } from './status.ts'
import type { CommandClient, ForwardClient } from './streams.ts'
import { joinTunnel } from './tunnel-relay.ts'
import { commandBehind, portsBehind } from './upstream.ts'
import { FORWARD_PROTOCOL, SPDY_COMMAND, SPDY_OFFERS, TUNNEL_PROTOCOL } from './ways.ts'
import type { Way } from './ways.ts'

/** How long a client may take to read what is left for it, in milliseconds. */
const LAST_BYTES_MS = 30_000

/** What running ones need beside that. */
export interface RunningSessionDeps extends SessionDeps {
  /** Its signal ends all sessions: the broker ends. */
  readonly running: { readonly ending: AbortSignal }
}

/** A session that may go ahead. */
export interface SessionRequest {
  readonly facts: SessionFacts
  readonly terms: Recording
  readonly way: Way
  readonly request: IncomingMessage
  /** The client's raw connection. */
  readonly socket: Duplex
  /** Lines of ours in the client's 101. */
  readonly headers: HeaderLines
  /** Ends the session. */
  readonly revoked: AbortSignal | undefined
}

/** How a session went. */
export interface SessionOutcome {
  readonly ending?: SessionEnding
  readonly bytesToClient: number
  readonly bytesToServer: number
}

/** A session whose recording has begun: nothing was dialled yet. */
export interface BegunSession {
  /** The API server did not switch: says so in the recording. @param status - HTTP's, 0 where there was no answer */
  notSwitched(status: number): Promise<void>
  /** Joins the client with what the API server has switched to. Never rejects. */
  run(upgraded: Upgraded): Promise<SessionOutcome>
}

/** Begins. @returns `recording_unavailable` where it must be recorded and cannot be: nothing may be dialled then */
export async function beginSession(
  deps: RunningSessionDeps,
  session: SessionRequest,
): Promise<BegunSession | Refusal> {
  const recorder = await openRecorder(deps, session.facts, session.terms)
  if (recorder === undefined) return refuse('recording_unavailable')
  return {
    async notSwitched(status) {
      const message = status === 0 ? 'no answer' : `HTTP ${status}`
      recorder.result({ status: 'Failure', message })
      await recorder.end('refused')
    },
    async run(upgraded) {
      try {
        return await run(session, recorder, upgraded, deps.running.ending)
      } catch (error) {
        deps.log.error({ requestId: session.facts.id, error: messageOf(error) }, 'a session broke')
        upgraded.socket.destroy()
        session.socket.destroy()
        await recorder.end('stream_broken')
        return { ending: 'stream_broken', bytesToClient: 0, bytesToServer: 0 }
      }
    },
  }
}

/** Runs what the way says; the upstream has switched. */
async function run(
  session: SessionRequest,
  recorder: SessionRecorder,
  upgraded: Upgraded,
  brokerEnds: AbortSignal,
): Promise<SessionOutcome> {
  const { facts } = session
  // who approved is in the document and the ledger: a name in the recording could not be erased
  if (facts.approval !== undefined) recorder.marker('approved', `request ${facts.approval.id}`)
  const over = new AbortController()
  const stop = Promise.race([
    recorder.stopped,
    stopWhen(session.revoked, REVOKED, over.signal),
    stopWhen(brokerEnds, BROKER_ENDS, over.signal),
  ])
  try {
    return await join(session, recorder, upgraded, stop)
  } finally {
    over.abort()
  }
}

const REVOKED: Stop = { ending: 'revoked', text: 'the approval was revoked' }
const BROKER_ENDS: Stop = { ending: 'broker_ended', text: 'the broker is restarting' }

function join(
  session: SessionRequest,
  recorder: SessionRecorder,
  upgraded: Upgraded,
  stop: Promise<Stop>,
): Promise<SessionOutcome> {
  const { way } = session
  const { socket: upstream } = upgraded
  switch (way.kind) {
    case 'command':
      return runCommand(session, way, recorder, upstream, stop)
    case 'forward':
      return runForward(session, way, recorder, upstream, stop)
    case 'opaque':
      return runTunnel(session, recorder, upgraded, stop)
  }
}

/** The application behind the proxy has agreed with its client already: its headers go on. */
async function runTunnel(
  { socket, headers }: SessionRequest,
  recorder: SessionRecorder,
  { headers: answered, socket: upstream }: Upgraded,
  stop: Promise<Stop>,
): Promise<SessionOutcome> {
  const { upgrade = 'websocket' } = answered
  const agreed = Object.entries(answered).filter(([name]) => name.startsWith('sec-websocket-'))
  const switching = { ...Object.fromEntries(agreed), connection: 'Upgrade', upgrade }
  socket.write(switchingHead({ ...switching, ...headers }))
  return conclude(recorder, await joinTunnel(socket, upstream, recorder, stop))
}

/** Settles when the signal comes; never where there is none. */
function stopWhen(signal: AbortSignal | undefined, stop: Stop, over: AbortSignal): Promise<Stop> {
  return new Promise((resolve) => {
    const tell = (): void => {
      resolve(stop)
    }
    if (signal?.aborted === true) tell()
    else signal?.addEventListener('abort', tell, { once: true, signal: over })
  })
}

async function runCommand(
  session: SessionRequest,
  way: Extract<Way, { readonly kind: 'command' }>,
  recorder: SessionRecorder,
  upstream: Duplex,
  stop: Promise<Stop>,
): Promise<SessionOutcome> {
  const server = commandBehind(upstream, way.streams)
  const broken = server.closed.then((why) => why ?? stopOf('stream_broken'))
  const early = Promise.race([stop, broken])
  const client = await Promise.race([early, commandClient(session, way)])
  if ('ending' in client) {
    server.destroy()
    session.socket.destroy()
    return conclude(recorder, { stop: client, bytesToClient: 0, bytesToServer: 0 })
  }
  const end = await joinCommand(client, server, way.streams, recorder, stop)
  if (end.status !== undefined) recorder.result(readStatus(end.status))
  const outcome = await conclude(recorder, end)
  tell(client, end.status, outcome, end.stop)
  await lastBytes(client)
  return outcome
}

/** The last word to a client: how its command ended, or why its session did. */
function tell(
  client: CommandClient,
  status: Buffer | undefined,
  { ending }: SessionOutcome,
  stop: Stop | undefined,
): void {
  if (ending === 'recording_failed') client.status(failure('the session could not be recorded'))
  else if (stop !== undefined) client.status(failure(stop.text))
  else if (status !== undefined) client.status(status)
  client.close()
}

async function commandClient(
  { request, socket, headers }: SessionRequest,
  { transport, protocol, streams }: Extract<Way, { readonly kind: 'command' }>,
): Promise<CommandClient | Stop> {
  if (transport === 'websocket')
    return commandOverWebSocket(
      await acceptWebSocket(request, socket, protocol, headers),
      protocol,
      streams,
    )
  socket.write(spdyHead(SPDY_COMMAND, headers))
  return commandOverSpdy(createSpdyConnection(socket, { role: 'server' }), streams)
}

async function runForward(
  session: SessionRequest,
  way: Extract<Way, { readonly kind: 'forward' }>,
  recorder: SessionRecorder,
  upstream: Duplex,
  stop: Promise<Stop>,
): Promise<SessionOutcome> {
  const client = await forwardClient(session, way)
  const server = portsBehind(upstream)
  const end = await joinForward(client, server, recorder, stop)
  server.close()
  client.close()
  const outcome = await conclude(recorder, end)
  await Promise.all([lastBytes(client), lastBytes(server)])
  return outcome
}

async function forwardClient(
  { request, socket, headers }: SessionRequest,
  way: Extract<Way, { readonly kind: 'forward' }>,
): Promise<ForwardClient> {
  switch (way.transport) {
    case 'channels':
      return forwardOverChannels(await acceptWebSocket(request, socket, way.protocol, headers), way)
    case 'tunnel': {
      const accepted = await acceptWebSocket(request, socket, TUNNEL_PROTOCOL, headers)
      return forwardOverSpdy(createSpdyConnection(bytesOver(accepted), { role: 'server' }))
    }
    case 'spdy':
      socket.write(spdyHead(FORWARD_PROTOCOL, headers))
      return forwardOverSpdy(createSpdyConnection(socket, { role: 'server' }))
  }
}

function spdyHead(protocol: string, headers: HeaderLines): string {
  return switchingHead({
    ...{ connection: 'Upgrade', upgrade: 'SPDY/3.1', [SPDY_OFFERS]: protocol },
    ...headers,
  })
}

/** Closes the recording. A command that succeeded in a recording that did not is no success. */
async function conclude(
  recorder: SessionRecorder,
  end: {
    readonly stop?: Stop
    readonly bytesToClient: number
    readonly bytesToServer: number
  },
): Promise<SessionOutcome> {
  const { stop, bytesToClient, bytesToServer } = end
  if (stop !== undefined) recorder.marker(stop.ending, stop.kept ?? stop.text)
  const isWhole = await recorder.end(stop?.ending)
  const ending = isWhole ? stop?.ending : 'recording_failed'
  return { ...(ending === undefined ? {} : { ending }), bytesToClient, bytesToServer }
}

/** Waits until a side has read what is left for it, for a while. */
async function lastBytes(side: {
  readonly closed: Promise<unknown>
  destroy(): void
}): Promise<void> {
  const timer = setTimeout(() => {
    side.destroy()
  }, LAST_BYTES_MS)
  await side.closed
  clearTimeout(timer)
}
