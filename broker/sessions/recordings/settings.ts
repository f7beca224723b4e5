/** Where recordings are kept, who has their key, and for how long: `sessions` of the broker's configuration. */
import { z } from 'zod'
import { vaultSchema } from '../../credentials/vault-client.ts'

/** Longest time that recordings may be kept, in days: a hundred years. */
const MAX_RETAIN_DAYS = 36_500
const MIB = 1024 * 1024
/** The spool's bound, and what must stay free of its disk, in bytes, where nothing else is said. */
const DEFAULT_SPOOL_BYTES = 10 * 1024 * MIB
const DEFAULT_FREE_BYTES = 512 * MIB
/** Less than this would be full after a few sessions. */
const MIN_SPOOL_BYTES = 64 * MIB

const text = z.string().min(1)
const bytes = z.int().min(0)

/** Of a bucket with an S3 API. */
export const bucketSchema = z.strictObject({
  /** `https://BUCKET.HOST` or `https://HOST/BUCKET`. */
  url: z.url({ protocol: /^https?$/, error: 'expected an https URL' }),
  /** Before each name. */
  prefix: z.string().default(''),
  region: text.default('us-east-1'),
  /** A file with the key's id in the first line and the secret in the second. */
  keyFile: text,
  caFile: text.optional(),
})

/** See the head of the file. */
export const sessionsSchema = z.strictObject({
  spool: z
    .strictObject({
      /** What has not been moved to the archive; above it no recording begins. */
      maxBytes: bytes.min(MIN_SPOOL_BYTES).default(DEFAULT_SPOOL_BYTES),
      /** What must be free of the spool's disk for a recording to begin; with less than half of it free, running ones fail. */
      minFreeBytes: bytes.default(DEFAULT_FREE_BYTES),
    })
    .prefault({}),
  /** A folder, or a bucket; `archive` in `dataDir` when left out. */
  archive: z
    .union([z.strictObject({ directory: text }), z.strictObject({ s3: bucketSchema })])
    .optional(),
  /** A folder of master keys, or a key service; `recording-keys` in `dataDir` when left out. */
  keys: z.union([z.strictObject({ dir: text }), z.strictObject({ vault: vaultSchema })]).optional(),
  /** Where the rule does not say; for ever when left out. */
  retainDays: z.int().min(1).max(MAX_RETAIN_DAYS).optional(),
})

/** See {@link sessionsSchema}. */
export type SessionsSettings = z.infer<typeof sessionsSchema>
/** See {@link bucketSchema}. */
export type BucketSettings = z.infer<typeof bucketSchema>
