import { expect } from 'chai'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'mocha'
import type { AskedConnection } from '../../../broker/credentials/cluster-json.ts'
import { openCredentialParts } from '../../../broker/credentials/parts.ts'
import { MAX_A_MINUTE, refusedRecorder } from '../../../broker/credentials/refused-record.ts'
import type { Entry } from '../../../broker/ledger/entry.ts'
import { createLog } from '../../../shared/log.ts'

const log = createLog('test', 'silent')
const NOW = 1_700_000_000_000
const CLAIMED = { cluster: 'prod', requestId: '', why: 'no such request is under way', asked: 'x' }

describe('the record of refused credentials', () => {
  it('is bounded for each minute, and counts what it leaves out', () => {
    const entries: Entry[] = []
    const clock = { ms: NOW }
    const told = refusedRecorder(
      (entry) => entries.push(entry),
      log,
      () => clock.ms,
    )
    for (let i = 0; i < MAX_A_MINUTE + 5; i += 1) told(CLAIMED)
    expect(entries.length).to.equal(MAX_A_MINUTE)
    clock.ms += 60_000
    told(CLAIMED)
    expect(entries.at(-1)).to.have.nested.property('detail.leftOut', 5)
  })

  it('of what an API server asked is not full because of what anybody asked', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'nestgate-refused-'))
    const entries: Entry[] = []
    const now = (): number => NOW
    const parts = await openCredentialParts(
      { url: 'https://broker.example/issuer', rotateAfterDays: 30 },
      {
        ...{ dataDir, log, now, onKey: () => undefined },
        refusedTo: () => refusedRecorder((entry) => entries.push(entry), log, now),
      },
    )
    try {
      for (let i = 0; i <= MAX_A_MINUTE; i += 1) parts.onRefused(CLAIMED)
      await parts.issuer?.authorizer.opinion({ name: 'prod' } as AskedConnection, {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user: 'nestgate:subject:ci:x' },
      })
      expect(entries.length).to.equal(MAX_A_MINUTE + 1)
      expect(entries.at(-1)).to.have.nested.property('detail.why', 'no request id')
    } finally {
      parts.close()
      await rm(dataDir, { recursive: true })
    }
  })
})
