import { expect } from 'chai'
import { describe, it } from 'mocha'
import { BROKER_AUDIENCE } from '../../../shared/agent-tag.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { inspectPod } from '../../../shared/injection/inspect.ts'
import type { Inspection } from '../../../shared/injection/inspect.ts'
import { podSchema } from '../../../shared/injection/pod.ts'
import { SERVICE_ACCOUNT_PATH } from '../../../shared/injection/sidecar-spec.ts'
import type { Json } from '../../support/pod-admission.ts'
import { SETTINGS } from '../../support/reviews.ts'

function inspect(spec: Json): Inspection | Refusal {
  const raw = { metadata: {}, spec }
  return inspectPod(raw, podSchema.parse(raw), SETTINGS, 'any')
}

function removed(spec: Json): readonly number[] {
  const inspection = inspect(spec)
  if (isRefusal(inspection)) throw new Error(inspection.refused)
  return [...inspection.tokenVolumes]
}

function token(name: string, ...audiences: (string | null | undefined)[]): Json {
  const sources = audiences.map((audience) => ({
    serviceAccountToken: audience === undefined ? { path: 't' } : { audience, path: 't' },
  }))
  return { name, projected: { sources } }
}

describe('token volumes', () => {
  const mountAt = (mountPath: string): Json => ({
    containers: [{ name: 'a', volumeMounts: [{ name: 's', mountPath }] }],
    volumes: [{ name: 's', secret: { secretName: 'plain' } }],
  })
  const cases: readonly (readonly [string, Json, readonly number[]])[] = [
    ['without audience go', { volumes: [token('a', undefined)] }, [0]],
    ['with an empty or null audience go', { volumes: [token('a', ''), token('b', null)] }, [0, 1]],
    ['for the API server go', { volumes: [token('a', 'https://issuer.example')] }, [0]],
    ['for somebody else stay', { volumes: [token('a', 'sts.example')] }, []],
    ['for both go', { volumes: [token('a', 'sts.example', 'https://issuer.example')] }, [0]],
    [
      'are told by content, not by name',
      { volumes: [{ name: 'kube-api-access-abcde', emptyDir: {} }] },
      [],
    ],
    ['that are null stay', { volumes: [{ name: 'a', projected: null, secret: null }] }, []],
    ['that are Secrets at the usual path go', mountAt(SERVICE_ACCOUNT_PATH), [0]],
    ['that are Secrets in the usual path go', mountAt(`${SERVICE_ACCOUNT_PATH}/token`), [0]],
    [
      'go however the usual path is spelled',
      mountAt('//run/./secrets/x/../kubernetes.io/serviceaccount/'),
      [0],
    ],
    [
      'that are no Secrets stay even there; only the mount goes',
      {
        containers: [{ volumeMounts: [{ name: 'e', mountPath: SERVICE_ACCOUNT_PATH }] }],
        volumes: [{ name: 'e', emptyDir: {} }],
      },
      [],
    ],
    ['that are Secrets beside that path stay', mountAt(`${SERVICE_ACCOUNT_PATH}s`), []],
    [
      'that are Secrets at the usual path of an init container go',
      {
        initContainers: [{ volumeMounts: [{ name: 's', mountPath: SERVICE_ACCOUNT_PATH }] }],
        volumes: [{ name: 's', secret: { secretName: 'default-token-zk2v9' } }],
      },
      [0],
    ],
  ]
  for (const [what, spec, expected] of cases)
    it(what, () => {
      expect(removed({ containers: [], ...spec })).to.deep.equal(expected)
    })
})

describe('refusals', () => {
  const secret = 'default-token-x8f2k'
  const variable = { env: [{ name: 'A' }, { valueFrom: { secretKeyRef: { name: secret } } }] }
  const whole = { envFrom: [{ configMapRef: { name: 'c' } }, { secretRef: { name: secret } }] }
  const mounts = (mount: Json): Json => ({ volumeMounts: [mount] })
  const cases: readonly (readonly [string, Json, string, string])[] = [
    ['hostNetwork', { hostNetwork: true }, 'host_network', 'spec.hostNetwork'],
    ['hostPID', { hostPID: true }, 'host_pid', 'spec.hostPID'],
    ['hostIPC', { hostIPC: true }, 'host_ipc', 'spec.hostIPC'],
    [
      'a token for the broker',
      { volumes: [{}, token('a', 'vault', BROKER_AUDIENCE)] },
      'token_audience',
      'spec.volumes[1].projected.sources[1].serviceAccountToken.audience',
    ],
    [
      'a token for the broker in a volume that would go anyway',
      { volumes: [token('a', '', BROKER_AUDIENCE)] },
      'token_audience',
      'spec.volumes[0].projected.sources[1].serviceAccountToken.audience',
    ],
    [
      'a token Secret as a volume',
      { volumes: [{ name: 's', secret: { secretName: secret } }] },
      'token_secret',
      'spec.volumes[0].secret.secretName',
    ],
    [
      'a token Secret of an account with a long name, which is cut',
      { volumes: [{ name: 's', secret: { secretName: `${'a'.repeat(54)}-tokx8f2k` } }] },
      'token_secret',
      'spec.volumes[0].secret.secretName',
    ],
    [
      'a token Secret in a projection',
      { volumes: [{ projected: { sources: [{ configMap: {} }, { secret: { name: secret } }] } }] },
      'token_secret',
      'spec.volumes[0].projected.sources[1].secret.name',
    ],
    ...(['initContainers', 'containers', 'ephemeralContainers'] as const).flatMap(
      (list) =>
        [
          [
            `a token Secret in a variable of ${list}`,
            { [list]: [{}, variable] },
            'token_secret',
            `spec.${list}[1].env[1].valueFrom.secretKeyRef`,
          ],
          [
            `a token Secret in envFrom of ${list}`,
            { [list]: [{}, whole] },
            'token_secret',
            `spec.${list}[1].envFrom[1].secretRef`,
          ],
          [
            `the broker token mounted in ${list}`,
            { [list]: [{}, mounts({ name: 'nestgate-token', mountPath: '/x' })] },
            'reserved_name',
            `spec.${list}[1].volumeMounts[0] mounts nestgate-token, which only the sidecar may`,
          ],
        ] as const,
    ),
    [
      'an ephemeral container with the sidecar’s name',
      { ephemeralContainers: [{ name: 'nestgate-sidecar' }] },
      'reserved_name',
      'spec.ephemeralContainers[0] is named nestgate-sidecar, which belongs in initContainers',
    ],
    [
      'a mount over the kubeconfig',
      { containers: [mounts({ name: 'w', mountPath: '/run/nestgate/config' })] },
      'reserved_name',
      'spec.containers[0].volumeMounts[0] uses /var/run/nestgate',
    ],
    [
      'the kubeconfig mounted elsewhere',
      { containers: [mounts({ name: 'nestgate-kubeconfig', mountPath: '/k', readOnly: true })] },
      'reserved_name',
      'spec.containers[0].volumeMounts[0] uses nestgate-kubeconfig',
    ],
    [
      'an API token under the name of our token volume',
      { volumes: [token('nestgate-token', '')] },
      'reserved_name',
      'spec.volumes[0] is named nestgate-token and is not what Nestgate injects',
    ],
  ]
  for (const [what, spec, code, detail] of cases)
    it(`${what} is refused with ${code}`, () => {
      expect(inspect({ containers: [], ...spec })).to.deep.equal({ refused: code, detail })
    })

  const harmless = ['default-token-aeiou', 'default-token-x8f2', 'x-token-x8f2kk', 'token-x8f2k-x']
  for (const name of harmless)
    it(`a Secret named ${name} is not taken for one of the token controller's`, () => {
      expect(removed({ containers: [], volumes: [{ secret: { secretName: name } }] })).to.be.empty
    })
})

describe('the profile', () => {
  const R = { kind: 'R', uid: 1000, gid: 2000 }
  const P = { kind: 'P' }
  const ids = (runAsUser?: number | null, runAsGroup?: number | null): Json => ({
    securityContext: { runAsUser, runAsGroup },
  })
  const cases: readonly (readonly [string, Json, Json])[] = [
    ['R by the pod', { ...ids(1000, 2000), containers: [{}, {}] }, R],
    ['R by every container', { containers: [ids(1000, 2000), ids(1000, 2000)] }, R],
    ['R by both', { ...ids(1000, null), containers: [ids(null, 2000)] }, R],
    ['R with the group root', { ...ids(1000, 0), containers: [{}] }, { ...R, gid: 0 }],
    ['P where nothing is said', { containers: [{}] }, P],
    ['P for root', { ...ids(0, 0), containers: [{}] }, P],
    [
      'P for a negative user, which validation refuses later',
      { ...ids(-1, 1), containers: [{}] },
      P,
    ],
    ['P where the group is not known', { ...ids(1000), containers: [{}] }, P],
    ['P where one container differs', { ...ids(1000, 2000), containers: [{}, ids(1001)] }, P],
    ['P where one group differs', { ...ids(1000, 2000), containers: [{}, ids(null, 5)] }, P],
    ['P where one container says nothing', { containers: [ids(1000, 2000), {}] }, P],
    [
      'P where an init container differs',
      { ...ids(1000, 2000), initContainers: [ids(0)], containers: [{}] },
      P,
    ],
    [
      'P where the sandbox would run as somebody else',
      { ...ids(1, 2000), containers: [ids(1000)] },
      P,
    ],
  ]
  for (const [what, spec, expected] of cases)
    it(`is ${what}`, () => {
      const inspection = inspect(spec)
      expect(isRefusal(inspection) ? inspection : inspection.profile).to.deep.equal(expected)
    })
})
