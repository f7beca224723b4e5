/** Policies and facts for tests. */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { readSentRequest } from '../../shared/policy/case.ts'
import type { ProcessFacts } from '../../shared/policy/facts.ts'
import { readPolicySet } from '../../shared/policy/policy-set.ts'
import type { PolicySet } from '../../shared/policy/policy-set.ts'

export const HEAD = 'apiVersion: nestgate.dev/v1alpha1\nkind: Policy\nrules:\n'

/** A policy of one file, by its rules. */
export function policyOf(rules: string, file = 'policy.yaml'): PolicySet {
  const read = readPolicySet([{ file, text: HEAD + rules }])
  if ('problems' in read) throw new Error(read.problems.join('\n'))
  return read
}

/** What is wrong with files, by name and whole text. */
export function problemsOf(files: Readonly<Record<string, string>>): readonly string[] {
  const read = readPolicySet(Object.entries(files).map(([file, text]) => ({ file, text })))
  return 'problems' in read ? read.problems : []
}

export function processFacts(change: Partial<ProcessFacts> = {}): ProcessFacts {
  return {
    verdict: 'exclusive',
    namespace: 'agents',
    serviceAccount: 'worker',
    agent: 'scanner',
    ancestors: ['unregistered/planner/bash', 'orchestrator'],
    exe: '/usr/bin/python3.11',
    sha256: undefined,
    uid: undefined,
    container: undefined,
    image: undefined,
    ...change,
  }
}

/** A request as the broker reads it; a body of another content type than JSON is given as text. */
export function requestOf(
  method: string,
  target: string,
  body?: unknown,
  contentType = 'application/json',
): RequestAttributes {
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body)
  const read = readSentRequest({ method, target, contentType, body: Buffer.from(text) })
  if ('problem' in read) throw new Error(read.problem)
  return read
}
