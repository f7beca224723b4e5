/**
 * The ledger for whoever checks it: C2SP tlog-tiles below `/v1/ledger/`, proofs, and the keys that sign. Hashes and
 * checkpoints are for all, without credentials: they tell how many entries there are and nothing of what is in them, and
 * who distrusts the broker must not need its leave to check it. Entries are for auditors, and reading them is an entry.
 */
import express from 'express'
import type { Request, Response, Router } from 'express'
import { Fault } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { encodeBase64 } from '../../shared/transparency/base64.ts'
import { encodeBundle } from '../../shared/transparency/bundle.ts'
import { parseDecimal } from '../../shared/transparency/checkpoint.ts'
import { formatProof } from '../../shared/transparency/proof-file.ts'
import { parseTilePath } from '../../shared/transparency/tiles.ts'
import { TILE_WIDTH } from '../../shared/transparency/tree.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { Checkpoints } from '../ledger/checkpoints.ts'
import type { Mirrors } from '../ledger/mirrors.ts'
import type { Store, StoredCheckpoint } from '../store/store.ts'
import { answer } from './answers.ts'
import { authorized } from './with-role.ts'

/** What these routes need. */
export interface LedgerRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Pick<Store, 'append' | 'head' | 'leaves' | 'tile'>
  readonly checkpoints: Checkpoints
  /** What witnesses signed. */
  readonly mirrors?: Pick<Mirrors, 'cosigned'> | undefined
}

/** What is answered: text or bytes. */
interface Document {
  readonly type: string
  readonly body: string | Uint8Array
  /** It will be the same for ever. */
  readonly fixed?: boolean
}

const TEXT = 'text/plain; charset=utf-8'
const BYTES = 'application/octet-stream'
/** A full tile never changes (C2SP tlog-tiles). */
const FOR_EVER = 'public, max-age=31536000, immutable'

/** The routes under `/v1/ledger`. */
export function ledgerRoutes(deps: LedgerRoutesDeps): Router {
  const { checkpoints, people } = deps
  const router = express.Router({ caseSensitive: true, strict: true })
  const get = (path: string, make: (request: Request) => Promise<Document | Refusal>): void => {
    router.get(path, (request, response, next) => {
      make(request).then((made) => {
        if (isRefusal(made)) answer(response, made)
        else send(response, made)
      }, next)
    })
  }
  const forAuditors =
    (make: (person: Person, request: Request) => Promise<Document | Refusal>) =>
    async (request: Request): Promise<Document | Refusal> => {
      const person = await authorized(people, request, ['auditor'])
      return isRefusal(person) ? person : make(person, request)
    }
  get('/ledger/checkpoint', () =>
    Promise.resolve({ type: TEXT, body: checkpoints.published().note }),
  )
  get('/ledger/cosigned', () => {
    const notes = deps.mirrors?.cosigned() ?? []
    const missing = refuse('entry_unknown', 'no witness has signed a checkpoint')
    return Promise.resolve(notes.length === 0 ? missing : { type: TEXT, body: notes.join('\n') })
  })
  get('/ledger/keys', () => {
    const body = JSON.stringify({ origin: checkpoints.origin, keys: checkpoints.keys })
    return Promise.resolve({ type: 'application/json', body })
  })
  get('/ledger/consistency', (request) => consistency(deps, request))
  get(
    '/ledger/proof/:seq',
    forAuditors((_person, request) => proof(checkpoints, String(request.params['seq']))),
  )
  get(
    '/ledger/tile/entries/*path',
    forAuditors((person, request) => bundle(deps, person, request)),
  )
  get('/ledger/tile/*path', (request) => tile(deps, request))
  return router
}

function send(response: Response, { type, body, fixed = false }: Document): void {
  if (response.destroyed || response.headersSent) return
  response.setHeader('Content-Type', type)
  if (fixed) response.setHeader('Cache-Control', FOR_EVER)
  response.status(200).end(body)
}

/**
 * From a size that somebody knows to the checkpoint that was signed last, as a witness is told it (C2SP tlog-witness):
 * `old SIZE`, the hashes of the proof, an empty line, the checkpoint.
 */
async function consistency(deps: LedgerRoutesDeps, request: Request): Promise<Document | Refusal> {
  const { checkpoints } = deps
  const from = parseDecimal(
    new URLSearchParams(request.url.split('?')[1] ?? '').get('from') ?? undefined,
  )
  if (from === undefined) return refuse('query_invalid', 'from: expected a whole number')
  const published = checkpoints.published()
  const { size, note } = from <= published.size ? published : await newest(deps, from)
  if (from > size)
    return refuse('ledger_smaller', `the ledger has ${size} entries, not yet or no longer ${from}`)
  const hashes = from === 0 ? [] : await checkpoints.consistency(from, size)
  const lines = [`old ${from}`, ...hashes.map(encodeBase64), '', note]
  return { type: TEXT, body: lines.join('\n') }
}

/**
 * What is signed of a ledger that somebody knows to be larger: another broker of the same database may have signed more.
 * One that cannot read the database must not say that the ledger is smaller, for witnesses take it at its word.
 */
async function newest(
  { checkpoints, store }: LedgerRoutesDeps,
  known: number,
): Promise<StoredCheckpoint> {
  try {
    // looked at first: nobody without credentials makes the broker sign by asking for what cannot be
    const { size } = await store.head()
    return size < known ? checkpoints.published() : await checkpoints.current()
  } catch (error) {
    if (error instanceof Fault && error.code === 'ledger_rolled_back')
      return checkpoints.published()
    throw error
  }
}

/** That an entry is in the ledger, for a file `SEQ.tlog-proof`. */
async function proof(checkpoints: Checkpoints, seq: string): Promise<Document | Refusal> {
  const index = parseDecimal(seq)
  if (index === undefined) return refuse('path_unknown')
  const covers = checkpoints.published().size > index
  const { size, note } = covers ? checkpoints.published() : await checkpoints.current()
  if (index >= size) return refuse('entry_unknown', `the ledger has ${size} entries`)
  const hashes = await checkpoints.inclusion(index, size)
  return { type: TEXT, body: formatProof({ index, hashes, checkpoint: note }) }
}

async function tile(
  { store, checkpoints }: LedgerRoutesDeps,
  request: Request,
): Promise<Document | Refusal> {
  const parsed = parseTilePath(resourceOf(request))
  if (parsed?.kind !== 'tile') return refuse('path_unknown')
  const { level, index, width } = parsed
  // nothing is served that no checkpoint covers yet
  const count = Math.floor(checkpoints.published().size / TILE_WIDTH ** level)
  if (index * TILE_WIDTH + width > count) return refuse('entry_unknown', 'no checkpoint covers it')
  const body = await store.tile(level, index, width)
  return body === undefined
    ? refuse('entry_unknown')
    : { type: BYTES, body, fixed: width === TILE_WIDTH }
}

async function bundle(
  { store, checkpoints }: LedgerRoutesDeps,
  { name: actor }: Person,
  request: Request,
): Promise<Document | Refusal> {
  const parsed = parseTilePath(resourceOf(request))
  if (parsed?.kind !== 'entries') return refuse('path_unknown')
  const { index, width } = parsed
  const from = index * TILE_WIDTH
  if (from + width > checkpoints.published().size)
    return refuse('entry_unknown', 'no checkpoint covers it')
  const leaves = await store.leaves(from, width)
  if (leaves.length !== width || leaves[0]?.seq !== from)
    return refuse('entry_unknown', `of ${from} to ${from + width - 1} some were removed`)
  const query = JSON.stringify({ from, to: from + width })
  await store.append([
    { kind: 'system', event: 'audit_read', actor, detail: { query, returned: width } },
  ])
  const body = encodeBundle(leaves.map(({ bytes }) => bytes))
  return { type: BYTES, body }
}

/** `tile/…` of the path, as it came. */
function resourceOf(request: Request): string {
  const [path = ''] = request.url.split('?')
  return path.slice('/ledger/'.length)
}
