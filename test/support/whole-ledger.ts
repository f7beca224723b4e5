/** A ledger read from its first entry to its last, and compared with what the store says of it. */
import type { Store, StoredLeaf } from '../../broker/store/store.ts'
import { appendHashes, EMPTY_RANGE, leafHash, rangeRoot } from '../../shared/transparency/tree.ts'

const AT_ONCE = 4096

/** @returns the entries, and what does not fit: gaps, and a tree that is not that of the head */
export async function wholeLedger(
  store: Store,
): Promise<{ readonly leaves: readonly StoredLeaf[]; readonly problems: string[] }> {
  const { size, root, firstSeq } = await store.head()
  const leaves: StoredLeaf[] = []
  const problems: string[] = firstSeq === 0 ? [] : [`the ledger begins at ${firstSeq}`]
  for (;;) {
    const some = await store.leaves(leaves.length, AT_ONCE)
    if (some.length === 0) break
    for (const leaf of some) {
      if (leaf.seq !== leaves.length)
        problems.push(`entry ${leaf.seq} stands where ${leaves.length} should`)
      leaves.push(leaf)
    }
  }
  if (size !== leaves.length) problems.push(`${leaves.length} entries, and a head of ${size}`)
  const range = appendHashes(
    EMPTY_RANGE,
    leaves.map(({ bytes }) => leafHash(bytes)),
  )
  if (!Buffer.from(rangeRoot(range)).equals(root))
    problems.push('the tree is another than the head')
  return { leaves, problems }
}
