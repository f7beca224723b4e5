/** Held requests as the gateway hands them to approvals, made from a request line. */
import type { CallerCredential, CallerRequest } from '../../broker/approvals/as-caller.ts'
import type { RequestAttributes, RequestParameters } from '../../shared/kubernetes/attributes.ts'
import { parseTarget } from '../../shared/kubernetes/path.ts'
import { isConnect, readRequestInfo } from '../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../shared/reasons.ts'

/** A request line with what belongs to it. */
export interface Line {
  readonly method: string
  readonly url: string
  readonly body?: string | object
  readonly contentType?: string
  readonly parameters?: Partial<RequestParameters>
}

/** Attributes as far as approvals look at them. */
export function attributesOf({ method, url, body, parameters }: Line): RequestAttributes {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(target.refused)
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) throw new Error(info.refused)
  const object = body as { metadata?: { name?: string } } | undefined
  const created = info.verb === 'create' && typeof body === 'object' ? object?.metadata?.name : ''
  return {
    info,
    path: target.path,
    policyVerb: isConnect(info) ? 'connect' : info.verb,
    actions: [],
    equivalents: [],
    parameters: { dryRun: target.query.includes('dryRun=All'), ...parameters },
    objectName: info.name === '' ? (created ?? '') : info.name,
    body: body === undefined ? { state: 'none' } : { state: 'read', value: body },
  }
}

/** The whole request. */
export function callerRequest(
  connection: CallerRequest['connection'],
  credential: CallerCredential,
  line: Line,
): CallerRequest {
  const { method, url, body = '', contentType } = line
  return {
    connection,
    credential,
    method,
    query: url.split('?')[1] ?? '',
    contentType: contentType ?? (body === '' ? '' : 'application/json'),
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    attributes: attributesOf(line),
  }
}

/** Impersonation of a service account, as the gateway does it. */
export function actAs(user: string): CallerCredential {
  return (requestId) =>
    Promise.resolve({
      headers: { 'impersonate-user': user, 'audit-id': requestId },
      user,
      over: () => undefined,
    })
}
