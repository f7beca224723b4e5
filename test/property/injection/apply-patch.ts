/** A second reading of RFC 6902, as strict as the API server's: `add`, `replace` and `remove`, and nothing that is not there. */

interface Operation {
  readonly op: string
  readonly path: string
  readonly value?: unknown
}

/** Applies a patch to a copy. Throws where an operation does not apply. */
export function applyStrictly(document: unknown, operations: readonly Operation[]): unknown {
  const root: { value: unknown } = { value: JSON.parse(JSON.stringify(document)) }
  for (const operation of operations) applyOne(root, operation)
  return root.value
}

function applyOne(root: { value: unknown }, { op, path, ...rest }: Operation): void {
  if (!/^(\/([^~/]|~[01])*)+$/.test(path)) throw new Error(`not a pointer: ${path}`)
  const keys = path
    .slice(1)
    .split('/')
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
  const last = keys.pop() ?? ''
  let parent: unknown = root.value
  for (const key of keys) parent = childOf(parent, key)
  const hasValue = Object.hasOwn(rest, 'value')
  if (op === 'remove' ? hasValue : !hasValue) throw new Error(`a value with ${op}, or none`)
  const value: unknown = hasValue ? JSON.parse(JSON.stringify(rest.value)) : undefined
  if (Array.isArray(parent)) inList(parent, op, last, value)
  else inObject(parent, op, last, value)
}

function inList(list: unknown[], op: string, key: string, value: unknown): void {
  const end = op === 'add' ? list.length : list.length - 1
  if (!/^(0|[1-9]\d*)$/.test(key) || Number(key) > end) throw new Error(`no place ${key}`)
  if (op === 'add') list.splice(Number(key), 0, value)
  else if (op === 'replace') list[Number(key)] = value
  else if (op === 'remove') list.splice(Number(key), 1)
  else throw new Error(`no operation ${op}`)
}

function inObject(parent: unknown, op: string, key: string, value: unknown): void {
  if (typeof parent !== 'object' || parent === null) throw new Error(`nothing holds ${key}`)
  if (!['add', 'replace', 'remove'].includes(op)) throw new Error(`no operation ${op}`)
  if (op !== 'add' && !Object.hasOwn(parent, key)) throw new Error(`no member ${key}`)
  if (op === 'remove') Reflect.deleteProperty(parent, key)
  else
    Object.defineProperty(parent, key, {
      value,
      enumerable: true,
      writable: true,
      configurable: true,
    })
}

function childOf(parent: unknown, key: string): unknown {
  if (Array.isArray(parent) && !/^(0|[1-9]\d*)$/.test(key)) throw new Error(`no place ${key}`)
  if (typeof parent !== 'object' || parent === null || !Object.hasOwn(parent, key))
    throw new Error(`no member ${key}`)
  return (parent as Record<string, unknown>)[key]
}
