/** What a namespace's labels ask for (docs/decisions/0008-injector.md). */
import type { WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import type { Installation } from '../kube/installation.ts'
import { installationFor } from '../kube/installation.ts'
import type { Labels } from '../kube/selector.ts'
import { checkNamed } from './finding.ts'
import type { Finding } from './finding.ts'

/** Says whether pods are injected. */
const INJECT_LABEL = 'nestgate.dev/inject'
const IDENTITY_LABEL = 'nestgate.dev/identity'
const REVISION_LABEL = 'nestgate.dev/rev'

const check = checkNamed('labels')

/** What is done with the pods of a namespace; undefined where the label has no value that means something. */
export function injectOf(labels: Labels): 'enabled' | 'observe' | undefined {
  const value = labels[INJECT_LABEL]
  return value === 'enabled' || value === 'observe' ? value : undefined
}

/** How far a namespace wants callers told apart. */
export function levelOf(labels: Labels): WantedLevel {
  const value = labels[IDENTITY_LABEL]
  return value === 'process' || value === 'container' ? value : 'any'
}

/**
 * Whether the labels mean what somebody meant by them.
 *
 * @param installations - undefined where the webhook configurations cannot be read
 */
export function labelFindings(
  name: string,
  labels: Labels,
  installations: readonly Installation[] | undefined,
): readonly Finding[] {
  const findings: Finding[] = []
  const inject = labels[INJECT_LABEL]
  if (injectOf(labels) === undefined)
    findings.push(
      check.fail(
        name,
        inject === undefined
          ? `has no label ${INJECT_LABEL}: its pods are not injected`
          : `${INJECT_LABEL} is "${inject}", which means nothing: its pods are not injected`,
        `kubectl label namespace ${name} ${INJECT_LABEL}=enabled --overwrite (or observe)`,
      ),
    )
  const identity = labels[IDENTITY_LABEL]
  if (identity !== undefined && levelOf(labels) === 'any')
    findings.push(
      check.fail(
        name,
        `${IDENTITY_LABEL} is "${identity}", which means no more than no label`,
        'take process, container, or no label',
      ),
    )
  if (findings.length > 0) return findings
  if (installations === undefined)
    return [check.unknown(name, 'whether a webhook takes it: the configurations cannot be read')]
  const by = installationFor(installations, labels)?.name
  if (by === undefined) return [unserved(name, labels)]
  return [check.ok(name, `${inject ?? ''}, identity ${levelOf(labels)}, by ${by}`)]
}

function unserved(name: string, labels: Labels): Finding {
  const revision = labels[REVISION_LABEL]
  return check.fail(
    name,
    revision === undefined
      ? 'no webhook configuration of Nestgate takes this namespace'
      : `${REVISION_LABEL} is "${revision}", and no installation has that revision`,
    'install that revision, or change the label',
  )
}
