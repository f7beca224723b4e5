/**
 * How much one report may hold. Everything that a report remembers is counted by one of these, so that its memory does not
 * grow with the ledger; where one cuts something, the report says so.
 */

/** Entries of one page of the ledger. */
export const PAGE = 512
/** Principals in all. */
export const MAX_PRINCIPALS = 5_000
/** People whose names are remembered while the ledger is read. */
export const MAX_NAMES = 10_000
/** Longest text of an entry that is kept, in characters. Paths are as long as their callers like. */
export const MAX_TEXT = 512
/** Kinds of requests of one principal; and of all together, in characters. */
export const MAX_USES = 500
export const MAX_USES_LENGTH = 16 * 1024 * 1024
/** Rules that decided on requests of one principal, and of all. */
export const MAX_RULES_USED = 1_000
export const MAX_ALL_RULES_USED = 200_000
/** Different words of requests under one rule: verbs, actions, resources. */
export const MAX_WORDS_USED = 200
/** Forms in which one principal was seen (executables, containers, ancestors, groups, …); and of all together, in characters. */
export const MAX_FACES = 32
export const MAX_FACES_LENGTH = 32 * 1024 * 1024
/** Held requests that are followed, in all. */
export const MAX_HELD = 20_000
/** What people said of one held request. */
export const MAX_REVIEWS = 20
/** Approvers of one principal under one rule. */
export const MAX_APPROVERS = 20
/** Subjects of tokens that one principal sent along. */
export const MAX_TOKENS = 100
/** Policies that decided in the period. */
export const MAX_POLICIES = 100
/** Pairs of principal and rule, in all. */
export const MAX_ACCESS = 50_000
/** Looks for entries of the period before the first one, where the clock was set back. */
export const MAX_LOOKS_BACK = 64
