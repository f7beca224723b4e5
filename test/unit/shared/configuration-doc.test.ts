import { readFileSync } from 'node:fs'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { z } from 'zod'
import { BROKER_ENV, brokerSchema } from '../../../broker/config.ts'
import { KEEP_ENV, keepSchema } from '../../../cli/keep/config.ts'
import { SIDECAR_ENV, sidecarKeys } from '../../../sidecar/config.ts'
import { configSchema, WEBHOOK_ENV } from '../../../shared/injection/config.ts'

interface Node {
  readonly properties?: Readonly<Record<string, Node>>
  readonly items?: Node
  readonly anyOf?: readonly Node[]
  readonly oneOf?: readonly Node[]
}

/** Dotted keys of a schema's leaves, `[]` for a list's element. */
function keysOf(node: Node, prefix = ''): readonly string[] {
  const inner = [...(node.anyOf ?? []), ...(node.oneOf ?? [])].flatMap((one) => keysOf(one, prefix))
  const items = node.items === undefined ? [] : keysOf(node.items, `${prefix}[]`)
  const own = Object.entries(node.properties ?? {}).flatMap(([name, value]) =>
    keysOf(value, prefix === '' ? name : `${prefix}.${name}`),
  )
  const found = [...inner, ...items.filter((key) => key !== `${prefix}[]`), ...own].filter(
    (key) => key !== prefix,
  )
  return found.length === 0 ? [prefix] : found
}

function keysOfSchema(schema: z.ZodType): readonly string[] {
  return keysOf(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as Node)
}

const PROCESSES = {
  Broker: { keys: keysOfSchema(brokerSchema), env: BROKER_ENV },
  Sidecar: { keys: sidecarKeys(), env: SIDECAR_ENV },
  Webhook: { keys: keysOfSchema(configSchema), env: WEBHOOK_ENV },
  Certificates: { keys: keysOfSchema(keepSchema), env: KEEP_ENV },
} as const

describe('docs/configuration.md', () => {
  const text = readFileSync(new URL('../../../docs/configuration.md', import.meta.url), 'utf8')

  for (const [name, { keys, env }] of Object.entries(PROCESSES)) {
    const section = text.split(`\n## ${name}\n`)[1]?.split('\n## ')[0] ?? ''
    const rows = [...section.matchAll(/^\| `([^`]+)` \| (?:`NESTGATE_([A-Z_]+)`)? ?\|/gm)]
    const documented = new Map(rows.map(([, key = '', variable]) => [key, variable]))

    it(`has each setting of the ${name.toLowerCase()}, and no other`, () => {
      const leaves = [...documented.keys()].filter(
        (key) => ![...documented.keys()].some((other) => other.startsWith(`${key}[].`)),
      )
      expect(leaves.toSorted()).to.deep.equal([...new Set(keys)].toSorted())
    })

    it(`has each environment variable of the ${name.toLowerCase()} beside its setting`, () => {
      const variables = [...documented].flatMap(([key, variable]) =>
        variable === undefined ? [] : [[variable, key]],
      )
      expect(Object.fromEntries(variables)).to.deep.equal(env)
    })
  }
})
