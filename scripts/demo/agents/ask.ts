/**
 * What both agents of the demo do to reach Kubernetes: what any program in a pod would do, a plain request to
 * `localhost:8001`, without a token and without knowing of Nestgate.
 */
const base = process.env['KUBERNETES_PROXY'] ?? 'http://localhost:8001'

/** Sends one request and says in a line how it went. @returns the answer's status */
export async function ask(
  what: string,
  method: string,
  path: string,
  body?: object,
): Promise<number> {
  const answer = await fetch(base + path, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  })
  const text = await answer.text()
  process.stdout.write(`${what}: ${summary(answer.status, text)}\n`)
  const warning = answer.headers.get('warning')
  if (warning !== null) process.stdout.write(`${what}: ${warning.replace(/^299 \S+ /, '')}\n`)
  return answer.status
}

function summary(status: number, text: string): string {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null) return String(status)
  if ('items' in value && Array.isArray(value.items))
    return `${status}, ${value.items.length} found`
  if ('message' in value && typeof value.message === 'string') return `${status}, ${value.message}`
  return String(status)
}
