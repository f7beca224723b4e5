/** The constants of agent-tag.ts, apart from its schemas: the sidecar makes tags and needs no decoder in its memory. */

/** How sure the sidecar is. The kernel knows who holds a socket, not who wrote the bytes. */
export const VERDICTS = ['exclusive', 'shared', 'relay', 'container_only', 'unidentified'] as const

/** See {@link VERDICTS}. */
export type Verdict = (typeof VERDICTS)[number]

/** Longest life of a tag, from `iat` on, in seconds. */
export const TAG_MAX_AGE_S = 60
/** `aud` of a tag and of the projected token a sidecar holds. */
export const BROKER_AUDIENCE = 'nestgate-broker'
/** `typ` of a tag's protected header. */
export const TAG_TYPE = 'nestgate-agent+jwt'
/** `typ` of the proof of possession in a registration. */
export const PROOF_TYPE = 'nestgate-sidecar-key+jwt'
/** Longest ancestor chain that a tag carries. */
export const MAX_ANCESTORS = 16
/** Longest text of any one field; longer ones are cut by the sidecar. */
export const MAX_FIELD_LENGTH = 512
