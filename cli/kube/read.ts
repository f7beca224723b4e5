/** Typed answers of kubectl: the edge at which a cluster's objects are checked. */
import { z } from 'zod'
import { CallError } from '../client.ts'
import { isFailure, listArgs } from './kubectl.ts'
import type { Failure, Kubectl } from './kubectl.ts'

/** What was asked for, or why it could not be had. */
export type Read<T> = T | Failure

/** All objects of a kind that are read. `where` as in {@link listArgs}. @throws CallError where the answer is of another form */
export async function readList<T extends z.ZodType>(
  kubectl: Kubectl,
  schema: T,
  resource: string,
  ...where: readonly string[]
): Promise<Read<readonly z.output<T>[]>> {
  const answer = await kubectl.json(listArgs(resource, ...where))
  if (isFailure(answer)) return answer
  const parsed = z.object({ items: z.array(schema) }).safeParse(answer.value)
  if (parsed.success) return parsed.data.items
  throw new CallError(`kubectl get ${resource}: ${problemOf(parsed.error)}`)
}

/** One object. @throws CallError where the answer is of another form */
export async function readOne<T extends z.ZodType>(
  kubectl: Kubectl,
  schema: T,
  resource: string,
  name: string,
  ...where: readonly string[]
): Promise<Read<z.output<T>>> {
  const answer = await kubectl.json(['get', resource, name, ...where])
  if (isFailure(answer)) return answer
  const parsed = schema.safeParse(answer.value)
  if (parsed.success) return parsed.data
  throw new CallError(`kubectl get ${resource} ${name}: ${problemOf(parsed.error)}`)
}

/**
 * One public entry of a Secret, as text; the others do not come here.
 *
 * @returns undefined where the Secret cannot be read, or has no such entry
 */
export async function readPublicEntry(
  kubectl: Kubectl,
  namespace: string,
  secret: string,
  entry: 'tls.crt' | 'ca.crt',
): Promise<string | undefined> {
  const path = `jsonpath={.data.${entry.replace('.', '\\.')}}`
  const answer = await kubectl.run(['get', 'secret', secret, '-n', namespace, '-o', path])
  if (isFailure(answer) || answer.trim() === '') return undefined
  return Buffer.from(answer, 'base64').toString()
}

/** Names of the Secrets of a namespace that hold service accounts' tokens; their contents do not come here. */
export async function tokenSecrets(
  kubectl: Kubectl,
  namespace: string,
): Promise<Read<readonly string[]>> {
  const answer = await kubectl.run([
    ...listArgs('secrets', '-n', namespace),
    '--field-selector=type=kubernetes.io/service-account-token',
    '-o',
    'jsonpath={range .items[*]}{.metadata.name}{"\\n"}{end}',
  ])
  if (isFailure(answer)) return answer
  return answer.split('\n').filter((name) => name !== '')
}

function problemOf(error: z.ZodError): string {
  const [issue] = error.issues
  return `${issue?.path.map(String).join('.') ?? ''}: ${issue?.message ?? 'invalid'}`
}
