/** The final state as the validating webhook checks it: every case of final-cases.ts over HTTPS, as the API server would ask. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { loadCaCertificates } from '../../shared/injection/broker-authority.ts'
import { readWebhookConfig } from '../../shared/injection/config.ts'
import { SIDECAR_NAME } from '../../shared/injection/sidecar-spec.ts'
import type { SidecarMode } from '../../shared/injection/sidecar-spec.ts'
import { createLog } from '../../shared/log.ts'
import { REASONS } from '../../shared/reasons.ts'
import { startWebhook } from '../../webhook/start.ts'
import type { Webhook } from '../../webhook/start.ts'
import { makeCertificates } from '../support/certificates.ts'
import { FINAL_CASES, FINAL_SETTINGS, NAMESPACE, USERS } from '../support/final-cases.ts'
import type { FinalCase } from '../support/final-cases.ts'
import type { Json } from '../support/pod-admission.ts'

const KINDS: Readonly<Record<string, string>> = {
  pods: 'Pod',
  secrets: 'Secret',
  namespaces: 'Namespace',
  serviceaccounts: 'TokenRequest',
}

/** As the API server asks about a case. */
function reviewFor(one: FinalCase, request: Json = {}): Json {
  const [resource = '', subResource] = one.resource.split('/')
  const { username, groups, extra } = { extra: undefined, ...USERS[one.user ?? 'author'] }
  const kind = (one.object['kind'] as string | undefined) ?? KINDS[resource]
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'c0ffee00-0000-4000-8000-000000000001',
      kind: { group: '', version: 'v1', kind },
      resource: { group: '', version: 'v1', resource },
      ...(subResource === undefined ? {} : { subResource }),
      name: 'web',
      namespace: NAMESPACE,
      operation: one.operation,
      userInfo: { username, groups, ...(extra && { extra }) },
      object: one.object,
      oldObject: one.oldObject ?? null,
      options: { kind: 'CreateOptions', apiVersion: 'meta.k8s.io/v1' },
      ...request,
    },
  }
}

describe('the final state, by the validating webhook', () => {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const dispatcher = new Agent({ connect: { ca: certificates.ca } })
  let folder: string
  const webhooks = new Map<SidecarMode, Webhook>()

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'final-state-'))
    const file = async (name: string, text: string): Promise<string> => {
      await writeFile(join(folder, name), text, { mode: 0o600 })
      return join(folder, name)
    }
    const { image, brokerUrl, cluster, apiAudiences, allowedAudiences } = FINAL_SETTINGS
    const config = {
      listen: { host: '127.0.0.1', port: 0 },
      tls: {
        certFile: await file('tls.crt', certificates.cert),
        keyFile: await file('tls.key', certificates.key),
      },
      sidecar: {
        image,
        brokerUrl,
        cluster,
        brokerCaFile: await file('ca.crt', certificates.ca),
      },
      tokens: { apiAudiences, allowedAudiences },
      volumes: {
        allowedSigners: FINAL_SETTINGS.allowedSigners,
        allowedCsiDrivers: FINAL_SETTINGS.allowedCsiDrivers,
      },
      exempt: { users: ['ops'] },
    }
    for (const mode of ['native', 'container'] as const) {
      const sidecar = { ...config.sidecar, mode }
      const path = await file('config.yaml', JSON.stringify({ ...config, sidecar }))
      const source = { argv: ['--config', path], env: {} }
      const log = createLog('test', 'silent')
      webhooks.set(mode, await startWebhook(readWebhookConfig(source), { log }))
    }
  })

  after(async () => {
    await dispatcher.close()
    for (const webhook of webhooks.values()) await webhook.close()
    await rm(folder, { recursive: true })
  })

  async function ask(
    mode: SidecarMode,
    path: string,
    body: unknown,
  ): Promise<{ status: number; json: Json }> {
    const answer = await request(`https://127.0.0.1:${webhooks.get(mode)?.port ?? 0}${path}`, {
      ...{ dispatcher, method: 'POST' },
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return { status: answer.statusCode, json: (await answer.body.json()) as Json }
  }

  for (const one of FINAL_CASES)
    it(`${one.code === undefined ? 'lets through' : `refuses (${one.code})`}: ${one.name}`, async () => {
      const path =
        one.resource === 'pods' && one.operation === 'CREATE'
          ? `/validate/${one.level ?? 'any'}`
          : '/validate'
      const { status, json } = await ask(
        modeOf(one),
        path,
        reviewFor(withAuthority(one, certificates.ca)),
      )
      expect(status).to.equal(200)
      const response = json['response'] as Json
      const message = (response['status'] as Json | undefined)?.['message'] as string | undefined
      expect(message === undefined ? undefined : /^nestgate: (\w+): /.exec(message)?.[1]).to.equal(
        one.code,
        message,
      )
      expect(response['allowed']).to.equal(one.code === undefined)
      if (one.code === undefined) return
      expect(message).to.contain(REASONS[one.code].remedy)
      expect(response['auditAnnotations']).to.deep.equal({ reason: one.code })
    })
})

/** Of the cluster that has such a pod. */
function modeOf({ object }: FinalCase): SidecarMode {
  const spec = object['spec'] as { containers?: readonly Json[] } | undefined
  const isPlain = (spec?.containers ?? []).some(({ name }) => name === SIDECAR_NAME)
  return isPlain ? 'container' : 'native'
}

/** The pods of the table have the authority of its settings; the webhook has one that it could read. */
function withAuthority(one: FinalCase, ca: string): FinalCase {
  const text = JSON.stringify(one)
  const replaced = text.replaceAll(
    JSON.stringify(FINAL_SETTINGS.brokerCaPem),
    JSON.stringify(loadCaCertificates(ca)),
  )
  return JSON.parse(replaced) as FinalCase
}
