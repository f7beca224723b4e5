/**
 * Which protocol a client speaks in its session, told from its request alone. What is not on these lists is refused: bytes that nobody here
 * understands could not be recorded.
 *
 * Sources: kubelet/pkg/cri/streaming (remotecommand, portforward), apiserver/pkg/util/proxy (streamtranslator.go, streamtunnel.go).
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { flag, isSession } from '../../shared/kubernetes/request-info.ts'
import type { RequestTarget } from '../../shared/kubernetes/path.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** Streams of a command, as its request announces them. */
export interface CommandStreams {
  readonly stdin: boolean
  readonly stdout: boolean
  readonly stderr: boolean
  readonly tty: boolean
}

/** How a client's bytes are to be understood. */
export type Way =
  | {
      readonly kind: 'command'
      readonly transport: 'websocket' | 'spdy'
      readonly protocol: CommandProtocol
      readonly streams: CommandStreams
    }
  | { readonly kind: 'forward'; readonly transport: 'tunnel' | 'spdy' }
  | {
      readonly kind: 'forward'
      readonly transport: 'channels'
      readonly protocol: 'v4.channel.k8s.io' | 'v4.base64.channel.k8s.io'
      readonly ports: readonly number[]
    }
  /** An application's own protocol behind `proxy`: whatever it is. */
  | { readonly kind: 'opaque' }

/** Protocols of commands over WebSocket: of several that a client offers, the first of these. */
const PREFERRED = ['v5.channel.k8s.io', 'v4.channel.k8s.io', 'v4.base64.channel.k8s.io'] as const
/** See {@link PREFERRED}. */
export type CommandProtocol = (typeof PREFERRED)[number]

/** The protocol of forwarding, within SPDY. */
export const FORWARD_PROTOCOL = 'portforward.k8s.io'
/** … and as WebSocket subprotocol that carries SPDY. */
export const TUNNEL_PROTOCOL = `SPDY/3.1+${FORWARD_PROTOCOL}`
/** Most ports that one request may name. */
const MAX_PORTS = 64
const MAX_PORT = 65_535
/** RFC 6455, 4.2.1: 16 bytes in base64. */
const WEBSOCKET_KEY = /^[+/0-9A-Za-z]{22}==$/

/**
 * Tells the way of an upgrade.
 *
 * @returns `session_protocol_unsupported` where the client offers nothing that is spoken here, `session_invalid` where the request announces no streams
 */
export function wayOf(request: {
  readonly method: string
  readonly info: RequestInfo
  readonly protocol: string
  readonly headers: IncomingHttpHeaders
  readonly target: RequestTarget
}): Way | Refusal {
  const { method, info, protocol, headers, target } = request
  if (!isSession(info)) return { kind: 'opaque' }
  const isWebSocket = protocol.toLowerCase() === 'websocket'
  if (isWebSocket && !isHandshake(method, headers))
    return refuse('session_protocol_unsupported', 'not a WebSocket handshake of version 13')
  if (info.subresource === 'portforward')
    return isWebSocket ? forwardOverWebSocket(headers, target) : forwardOverSpdy(headers)
  return commandWay(isWebSocket, headers, streamsOf(target))
}

function commandWay(
  isWebSocket: boolean,
  headers: IncomingHttpHeaders,
  streams: CommandStreams,
): Way | Refusal {
  if (!streams.stdin && !streams.stdout && !streams.stderr)
    return refuse('session_invalid', 'at least one of stdin, stdout and stderr is needed')
  const offered = offers(headers[isWebSocket ? 'sec-websocket-protocol' : SPDY_OFFERS])
  const spoken = isWebSocket ? PREFERRED : [SPDY_COMMAND]
  const agreed = spoken.find((name) => offered.includes(name))
  if (agreed === undefined) return refuse('session_protocol_unsupported')
  const transport = isWebSocket ? 'websocket' : 'spdy'
  return { kind: 'command', transport, protocol: agreed, streams }
}

/** Header by which SPDY's two sides agree on what the streams mean. */
export const SPDY_OFFERS = 'x-stream-protocol-version'
/** What commands over SPDY speak. */
export const SPDY_COMMAND: CommandProtocol = 'v4.channel.k8s.io'

function isHandshake(method: string, headers: IncomingHttpHeaders): boolean {
  return (
    method === 'GET' &&
    headers['sec-websocket-version'] === '13' &&
    WEBSOCKET_KEY.test(headers['sec-websocket-key'] ?? '')
  )
}

function forwardOverSpdy(headers: IncomingHttpHeaders): Way | Refusal {
  return offers(headers[SPDY_OFFERS]).includes(FORWARD_PROTOCOL)
    ? { kind: 'forward', transport: 'spdy' }
    : refuse('session_protocol_unsupported')
}

function forwardOverWebSocket(
  headers: IncomingHttpHeaders,
  { parameters }: RequestTarget,
): Way | Refusal {
  const offered = offers(headers['sec-websocket-protocol'])
  if (offered.includes(TUNNEL_PROTOCOL)) return { kind: 'forward', transport: 'tunnel' }
  const protocol = (['v4.channel.k8s.io', 'v4.base64.channel.k8s.io'] as const).find((name) =>
    offered.includes(name),
  )
  if (protocol === undefined) return refuse('session_protocol_unsupported')
  const ports = parameters
    .filter(([name]) => name === 'ports')
    .flatMap(([, value]) => value.split(','))
    .map((text) => (/^[1-9]\d{0,4}$/.test(text) ? Number(text) : Number.NaN))
  const isGood = ports.length > 0 && ports.length <= MAX_PORTS
  return isGood && ports.every((port) => port <= MAX_PORT)
    ? { kind: 'forward', transport: 'channels', protocol, ports }
    : refuse('session_invalid', `ports: expected 1 to ${MAX_PORTS} ports`)
}

function offers(header: string | string[] | undefined): readonly string[] {
  const lines = typeof header === 'string' ? [header] : (header ?? [])
  return lines.flatMap((line) => line.split(',')).map((name) => name.trim())
}

function streamsOf(target: RequestTarget): CommandStreams {
  const tty = flag(target, 'tty')
  return {
    stdin: flag(target, 'stdin'),
    stdout: flag(target, 'stdout'),
    // a terminal has one output (kubelet, remotecommand.NewOptions)
    stderr: flag(target, 'stderr') && !tty,
    tty,
  }
}
