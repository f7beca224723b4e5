/**
 * A request to `/clusters/NAME/…` or `/return/clusters/NAME/…`, read from its raw line: which cluster, and what Kubernetes would take it
 * for. Everything here is attacker-controlled; what comes out can be read one way only.
 */
import type { IncomingMessage } from 'node:http'
import {
  isConnect,
  isLongRunning,
  isRead,
  readRequestInfo,
} from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import type { RequestTarget } from '../../shared/kubernetes/path.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { upgradeProtocol } from '../../shared/upgrade.ts'
import { wayOf } from '../sessions/ways.ts'
import type { Way } from '../sessions/ways.ts'
import { announcesBody } from './body.ts'

/**
 * Prefix of every cluster's path. Before it may stand `/return`: whoever cannot send a header (kubectl) says by the address that a held
 * request is to come back at once, as `Nestgate-Approval: return` does.
 */
const CLUSTERS_PREFIX = '/clusters/'
const RETURN_PREFIX = `/return${CLUSTERS_PREFIX}`
const CLUSTER_TARGET =
  /^(?:\/return)?\/clusters\/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(\/[^]*|\?[^]*)?$/

/** `/api/v1/watch/…` is the verb watch for any method; only these promise to change nothing (RFC 9110, section 9.2.1). */
const READ_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/** A request that was understood. */
export interface ParsedRequest {
  readonly method: string
  readonly target: RequestTarget
  /** Canonical path and raw query, as forwarded. */
  readonly path: string
  readonly query: string
  readonly parameters: readonly (readonly [string, string])[]
  readonly info: RequestInfo
  readonly read: boolean
  readonly longRunning: boolean
  /** Set for a protocol upgrade: the value of `Upgrade`, and what its bytes will mean. */
  readonly upgrade: { readonly protocol: string; readonly way: Way } | undefined
}

/** Whether a raw request target is for a cluster, whether or not there is one of that name. */
export function isClusterTarget(url: string | undefined): boolean {
  return url?.startsWith(CLUSTERS_PREFIX) === true || isReturnTarget(url)
}

/** Whether the address says that the client comes back rather than waits. */
export function isReturnTarget(url: string | undefined): boolean {
  return url?.startsWith(RETURN_PREFIX) === true
}

/** The cluster named in a raw request target, and the rest of it; undefined where there is none. */
export function splitTarget(
  url: string,
): { readonly cluster: string; readonly rest: string } | undefined {
  const [, cluster, rest = '/'] = CLUSTER_TARGET.exec(url) ?? []
  if (cluster === undefined) return undefined
  return { cluster, rest: rest.startsWith('?') ? `/${rest}` : rest }
}

/** Reads a request. @param rest - the cluster's own part of the raw target */
export function parseRequest(
  request: IncomingMessage,
  rest: string,
  upgrading: boolean,
): ParsedRequest | Refusal {
  const method = request.method ?? ''
  const target = parseTarget(rest)
  if (isRefusal(target)) return target
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) return info
  const upgrade = upgrading ? upgradeOf(request, method, info, target) : undefined
  if (upgrade !== undefined && isRefusal(upgrade)) return upgrade
  return {
    method,
    target,
    path: target.path,
    query: target.query,
    parameters: target.parameters,
    info,
    read: upgrade === undefined && READ_METHODS.has(method) && isRead(info),
    longRunning: isLongRunning(info),
    upgrade,
  }
}

function upgradeOf(
  request: IncomingMessage,
  method: string,
  info: RequestInfo,
  target: RequestTarget,
): NonNullable<ParsedRequest['upgrade']> | Refusal {
  const { headers } = request
  const protocol = upgradeProtocol(headers)
  if (protocol === undefined || !isConnect(info)) return refuse('upgrade_unsupported')
  // its bytes would reach the session unseen by digest and intent
  if (announcesBody(request)) return refuse('header_invalid', 'an upgrade has no body')
  const way = wayOf({ method, info, protocol, headers, target })
  return isRefusal(way) ? way : { protocol, way }
}
