/**
 * Registrations: the operator's list of selectors and the names they give, like SPIRE's entries. The first one
 * whose selectors all match gives the name. Selectors look at nothing that a process can set: no argument, no
 * environment, no header. A fact that is missing never matches.
 */
import { z } from 'zod'
import { namePattern, pathPattern } from '../../shared/policy/globs.ts'
import type { ContainerIdentity } from './containers.ts'
import type { PodIdentity } from './service-account-tokens.ts'

/** First part of the name of every process that no registration matches; a registration cannot give such a name. */
export const UNREGISTERED = 'unregistered'
/** Registrations in all. */
const MAX_REGISTRATIONS = 1000
/** Words of one selector. */
const MAX_WORDS = 100
/** Longest word: paths of programs and images are the longest things to select by. */
const MAX_WORD_LENGTH = 512
/** Highest user id; the one above says "none" (user_namespaces(7)). */
const MAX_UID = 4_294_967_294

const listOf = <T>(word: z.ZodType<T>): z.ZodArray<z.ZodType<T>> =>
  z.array(word).min(1).max(MAX_WORDS)
const words = listOf(z.string().min(1).max(MAX_WORD_LENGTH))

const selectorsSchema = z
  .strictObject({
    /** Names of clusters, as the broker knows them. */
    clusters: words,
    /** Namespaces of the pod. */
    namespaces: words,
    /** `NAMESPACE/NAME` of the pod's service account; either part may be `*`. */
    serviceAccounts: listOf(z.string().regex(/^[^/]+\/[^/]+$/, 'expected NAMESPACE/NAME')),
    /** Names of containers in the pod; `*` is any text. */
    containers: words,
    /** Images as the API server reports them, with tag or digest: `*` within a path segment, `**` across segments. */
    images: words,
    /** Executables as the kernel names them: `*` within a path segment, `**` across segments. */
    executables: words,
    /** SHA-256 of the executable's bytes, hex. */
    sha256: listOf(z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 lower-case hex digits')),
    /** Effective user ids. */
    uids: listOf(z.int().min(0).max(MAX_UID)),
  })
  .partial()

/** One registration. */
export const registrationSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'expected a DNS label')
    .refine((name) => name !== UNREGISTERED, 'is what processes without a registration are called'),
  match: selectorsSchema.refine(
    (match) => Object.keys(match).length > 0,
    'has no selector, and would name every process',
  ),
  /** Who answers for the agent: names of people, or `group:NAME`. They do not decide on its requests. */
  owners: words.optional(),
})

/** All of them, in the order in which they are tried. */
export const registrationsSchema = z.array(registrationSchema).max(MAX_REGISTRATIONS)

/** See the head of the file. */
export type Registration = z.infer<typeof registrationSchema>

/** What is known of a process; undefined where nothing is proved. */
export interface ProcessFacts {
  readonly pod: PodIdentity
  readonly exe: string | undefined
  readonly sha256: string | undefined
  readonly uid: number | undefined
  readonly containerId: string | undefined
  /** Undefined also where the API server has not named that container. */
  readonly container: ContainerIdentity | undefined
}

/** What the registrations say of a process. */
export type Match =
  | { readonly kind: 'registered'; readonly name: string }
  | { readonly kind: 'none' }
  /**
   * A registration before any that matches asks for the container, whose name is not known. It must not be
   * passed over: while the API server is slow or away, a process would carry the name of a later one.
   */
  | { readonly kind: 'undecided' }

/** Tries registrations on processes. */
export type Matcher = (facts: ProcessFacts) => Match

type Test = (facts: ProcessFacts) => boolean

interface Compiled {
  readonly name: string
  /** Selectors on what the token and the kernel say. */
  readonly direct: readonly Test[]
  /** Selectors on what the API server says about the container. */
  readonly container: readonly ((container: ContainerIdentity) => boolean)[]
}

/** Compiles registrations. Pure. */
export function createMatcher(registrations: readonly Registration[]): Matcher {
  const compiled = registrations.map(compile)
  return (facts) => {
    for (const { name, direct, container } of compiled) {
      if (!direct.every((test) => test(facts))) continue
      if (container.length === 0) return { kind: 'registered', name }
      if (facts.containerId === undefined) continue
      const known = facts.container
      if (known === undefined) return { kind: 'undecided' }
      if (container.every((test) => test(known))) return { kind: 'registered', name }
    }
    return { kind: 'none' }
  }
}

function compile({ name, match }: Registration): Compiled {
  const direct: Test[] = []
  const oneOf = <T>(
    values: readonly T[] | undefined,
    fact: (facts: ProcessFacts) => T | undefined,
  ): void => {
    if (values === undefined) return
    const set = new Set(values)
    direct.push((facts) => {
      const value = fact(facts)
      return value !== undefined && set.has(value)
    })
  }
  oneOf(match.clusters, ({ pod }) => pod.cluster)
  oneOf(match.namespaces, ({ pod }) => pod.namespace)
  oneOf(match.sha256, ({ sha256 }) => sha256)
  oneOf(match.uids, ({ uid }) => uid)
  if (match.serviceAccounts !== undefined) direct.push(serviceAccountTest(match.serviceAccounts))
  if (match.executables !== undefined) {
    const patterns = match.executables.map(pathPattern)
    direct.push(({ exe }) => exe !== undefined && patterns.some((pattern) => pattern.test(exe)))
  }
  const container: ((container: ContainerIdentity) => boolean)[] = []
  if (match.containers !== undefined) {
    const patterns = match.containers.map(namePattern)
    container.push((known) => patterns.some((pattern) => pattern.test(known.name)))
  }
  if (match.images !== undefined) {
    const patterns = match.images.map(pathPattern)
    container.push(({ images }) =>
      images.some((image) => patterns.some((pattern) => pattern.test(image))),
    )
  }
  return { name, direct, container }
}

function serviceAccountTest(pairs: readonly string[]): Test {
  const wanted = pairs.map((pair) => pair.split('/'))
  return ({ pod }) =>
    wanted.some(
      ([namespace, name]) =>
        (namespace === '*' || namespace === pod.namespace) &&
        (name === '*' || name === pod.serviceAccount),
    )
}

/** Who answers for a process: the owners of all registrations that give one of its names, its own or an ancestor's. */
export type Owners = (names: readonly string[]) => readonly string[]

/** Makes {@link Owners} of the configured registrations. */
export function createOwners(registrations: readonly Registration[]): Owners {
  const owners = new Map<string, Set<string>>()
  for (const { name, owners: own = [] } of registrations) {
    const known = owners.get(name) ?? new Set()
    for (const owner of own) known.add(owner)
    owners.set(name, known)
  }
  return (names) => [...new Set(names.flatMap((name) => [...(owners.get(name) ?? [])]))]
}
