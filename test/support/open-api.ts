/** The OpenAPI document as a test reads it: schemas that say no to what is not documented. */
import { z } from 'zod'

type Json = Readonly<Record<string, unknown>>

export interface OpenApi {
  readonly paths: Readonly<Record<string, Readonly<Record<string, OperationObject>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Json>> }
}

export interface OperationObject {
  readonly operationId: string
  readonly security: readonly Json[]
  readonly parameters: readonly {
    readonly name: string
    readonly in: string
    readonly required: boolean
  }[]
  readonly requestBody?: unknown
  readonly responses: {
    readonly 200: {
      readonly content: Readonly<
        Record<
          string,
          { readonly schema: Json; readonly 'x-nestgate-events'?: Readonly<Record<string, Json>> }
        >
      >
    }
  }
}

/** Checks values against a schema of the document; a field that it does not name is an error here. */
export function validator(document: OpenApi, schema: Json): z.ZodType {
  const closed = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(closed)
    if (typeof value !== 'object' || value === null) return value
    const whole = Object.fromEntries(
      Object.entries(value).map(([key, part]) => [
        key,
        key === '$ref' && typeof part === 'string'
          ? part.replace('#/components/schemas/', '#/$defs/')
          : closed(part),
      ]),
    )
    const isClosed = 'properties' in whole && !('additionalProperties' in whole)
    return isClosed ? { ...whole, additionalProperties: false } : whole
  }
  const $defs = closed(document.components.schemas)
  return z.fromJSONSchema({ ...(closed(schema) as object), $defs } as z.core.JSONSchema.JSONSchema)
}
