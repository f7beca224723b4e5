/** What the demo needs of a Kubernetes API, be it the embedded stand-in or a real one: an address, and an administrator's way in. */
import { Agent, request } from 'undici'

/** A reachable API server. */
export interface DemoCluster {
  /** One line for the reader. */
  readonly description: string
  readonly server: string
  /** PEM. */
  readonly ca: string
  readonly admin: AdminCredential
  /** Lines of the cluster's own audit log about our requests: `USER as IMPERSONATED: VERB URI (auditID)`. */
  audit?(): Promise<readonly AuditLine[]>
  close(): Promise<void>
}

/** What of a cluster's audit log the account quotes. */
export interface AuditLine {
  readonly auditId: string
  readonly user: string
  readonly impersonatedUser: string
}

/** How the demo itself sets things up; no part of Nestgate ever sees it. */
export type AdminCredential =
  { readonly token: string } | { readonly cert: string; readonly key: string }

/** An answer with a body that was JSON. */
export interface AdminAnswer {
  readonly status: number
  readonly body: unknown
}

/** Sends requests as administrator. */
export interface Admin {
  send(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<AdminAnswer>
  /** As `send`, but anything except 2xx and "exists already" is an error. */
  create(path: string, body: object): Promise<unknown>
  close(): Promise<void>
}

/** Opens the administrator's way in. */
export function openAdmin(cluster: DemoCluster): Admin {
  const { admin, ca, server } = cluster
  const dispatcher = new Agent({
    connect: { ca, ...('cert' in admin ? { cert: admin.cert, key: admin.key } : {}) },
  })
  const authorization = 'token' in admin ? { authorization: `Bearer ${admin.token}` } : {}
  const send: Admin['send'] = async (method, path, body) => {
    const answer = await request(server + path, {
      method,
      dispatcher,
      headers: { ...authorization, accept: 'application/json', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: answer.statusCode, body: await answer.body.json() }
  }
  return {
    send,
    async create(path, body): Promise<unknown> {
      const { status, body: answer } = await send('POST', path, body)
      if (status >= 300 && status !== 409)
        throw new Error(`POST ${path}: ${status} ${JSON.stringify(answer)}`)
      return answer
    },
    close: () => dispatcher.close(),
  }
}
