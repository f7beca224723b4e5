/** What is said of an operation of the API. */
import type { z } from 'zod'
import type { Role } from '../../identity/roles.ts'

/** One operation. */
export interface Operation {
  readonly method: 'get' | 'post' | 'put' | 'delete'
  /** Below `/v1`, with parameters in braces. */
  readonly path: string
  /** Unique; generated clients name their functions by it. */
  readonly id: string
  readonly tag: string
  readonly summary: string
  /** Who may call it; people need one of the roles. */
  readonly caller: 'anybody' | 'sidecar' | 'apiServer' | readonly Role[]
  readonly query?: z.ZodObject<Readonly<Record<string, z.ZodType>>>
  /** Header parameters: name and meaning. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: z.ZodType
  readonly answer: Answer
}

/** What comes back with status 200: a JSON value, server-sent events by name, or text of one of several types. */
export type Answer =
  | { readonly json: z.ZodType }
  | { readonly events: Readonly<Record<string, z.ZodType>> }
  | { readonly texts: readonly string[] }
