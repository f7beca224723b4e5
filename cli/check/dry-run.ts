/** A plain pod, tried out in each namespace by a server-side dry run: what the API server makes of it is what pods get. */
import { HTTP_PORT, SIDECAR_NAME } from '../../shared/injection/sidecar-spec.ts'
import type { InjectionSettings } from '../../shared/injection/sidecar-spec.ts'
import { isFailure } from '../kube/kubectl.ts'
import type { Answer, Failure } from '../kube/kubectl.ts'
import { problemsOf } from '../kube/pod-state.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'
import { injectOf, levelOf } from './labels.ts'
import type { Labels } from '../kube/selector.ts'

const check = checkNamed('dry-run')
/** Where no webhook says what image nodes have. Nothing is pulled: the pod is never created. */
const SOME_IMAGE = 'registry.k8s.io/pause:3.10'
/** Small, so that it is never the quota that refuses the pod itself. */
const RESOURCES = { cpu: '10m', memory: '16Mi' }

/** A port of the sidecar's: a pod that wants it is refused, by Nestgate and by nobody else. */
const REFUSED_PORT = { containerPort: HTTP_PORT }

/**
 * A pod that Pod Security `restricted`, quotas and limit ranges let pass.
 *
 * @param inject - in an observed namespace it has something that would be refused, because nothing is said of what would not
 */
export function plainPod(inject: ReturnType<typeof injectOf>, image = SOME_IMAGE): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { generateName: 'nestgate-check-' },
    spec: {
      restartPolicy: 'Never',
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        runAsGroup: 1000,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'check',
          image,
          ...(inject === 'observe' ? { ports: [REFUSED_PORT] } : {}),
          resources: { requests: RESOURCES, limits: RESOURCES },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        },
      ],
    },
  }
}

/**
 * What came of the plain pod in a namespace.
 *
 * @param settings - how pods are injected there now; undefined where that is not known
 */
export function dryRunFinding(
  name: string,
  labels: Labels,
  dryRun: Answer | Failure,
  settings: InjectionSettings | undefined,
): Finding {
  if (isFailure(dryRun)) return failedRun(name, injectOf(labels), dryRun)
  const { value, warnings } = dryRun
  const isInjected = JSON.stringify(value).includes(`"name":"${SIDECAR_NAME}"`)
  if (injectOf(labels) === 'observe') return observed(name, isInjected, warnings)
  if (!isInjected)
    return check.fail(
      name,
      'a plain pod comes out without a sidecar, and with its token',
      'see the lines about labels and webhook above',
    )
  if (settings === undefined)
    return check.ok(name, 'a plain pod comes out injected; by what settings is not known')
  const [problem] = problemsOf(value, { namespace: name, level: levelOf(labels), settings })
  if (problem === undefined) return check.ok(name, 'a plain pod comes out injected')
  return check.fail(
    name,
    `a plain pod comes out wrong: ${problem.said}`,
    'another webhook changes it after Nestgate, or the webhook’s pods still have an older configuration: restart them',
  )
}

function failedRun(
  name: string,
  inject: ReturnType<typeof injectOf>,
  { failure, said }: Failure,
): Finding {
  if (inject === 'observe' && said.includes('nestgate: ')) return enforced(name)
  if (/failed calling webhook|failed to call webhook/.test(said))
    return check.fail(
      name,
      `the API server does not reach a webhook: ${said}`,
      'see that its pods are ready, that the API server reaches their port, and that the caBundle is that of their certificate',
    )
  if (failure === 'forbidden' && said.includes('cannot create resource'))
    return check.unknown(name, `you may not create pods here: ${said}`)
  return check.fail(name, `a plain pod is refused: ${said}`, 'see what refuses it')
}

function observed(name: string, isInjected: boolean, warnings: readonly string[]): Finding {
  if (isInjected) return enforced(name)
  if (warnings.some((text) => text.includes('nestgate: ')))
    return check.ok(name, 'a pod stays as it is, and is told what would be refused')
  return check.warn(
    name,
    'a pod stays as it is, but nothing is said of what would be refused',
    'see that the webhook configuration has /observe and the webhook is ready: in this mode it fails open',
  )
}

function enforced(name: string): Finding {
  return check.fail(
    name,
    'the namespace is only observed, and yet its pods are injected and refused',
    'look for a webhook of another revision that takes it',
  )
}
