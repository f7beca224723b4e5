/** Who is left in a pod that ends, seen in a made-up /proc. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { hasNeighbours, outlive } from '../../../sidecar/outlive.ts'
import { makeProcFixture } from '../../support/proc-fixture.ts'
import type { ProcFixture } from '../../support/proc-fixture.ts'

const OWN = '0::/\n'
const OTHER = '0::/../other\n'

describe('the end of a pod', () => {
  let proc: ProcFixture

  beforeEach(() => {
    proc = makeProcFixture()
    proc.write('self/cgroup', OWN)
    proc.write('self/stat', '7 (node) S 0')
    proc.add({ pid: 1, cgroup: OTHER, name: 'pause' })
    proc.add({ pid: 7, cgroup: OWN })
    proc.add({ pid: 8, cgroup: OWN })
  })
  afterEach(() => {
    proc.delete()
  })

  it('has come where only the sandbox and the sidecar’s own processes are left', () => {
    expect(hasNeighbours(proc.root)).to.equal(false)
  })

  it('has not come while a process of another container is there', () => {
    proc.add({ pid: 9, cgroup: OTHER })
    expect(hasNeighbours(proc.root)).to.equal(true)
  })

  it('does not wait for a process that has ended and was not noticed', () => {
    proc.add({ pid: 9, cgroup: OTHER })
    proc.write('9/stat', '9 (agent) Z 1 0 0')
    expect(hasNeighbours(proc.root)).to.equal(false)
  })

  it('is waited for', async () => {
    proc.add({ pid: 9, cgroup: OTHER })
    let ended = false
    const waited = outlive({
      visible: true,
      procRoot: proc.root,
      connections: () => 0,
      now: () => performance.now(),
    }).then(() => (ended = true))
    await sleep(700)
    expect(ended).to.equal(false)
    proc.remove('9')
    await waited
  })

  it('is guessed by connections where processes cannot be seen, and not at once', async () => {
    let open = 1
    let now = 0
    let ended = false
    const waited = outlive({
      visible: false,
      procRoot: proc.root,
      connections: () => open,
      now: () => now,
    }).then(() => (ended = true))
    now = 60_000
    await sleep(700)
    expect(ended).to.equal(false)
    open = 0
    await waited
    now = 0
    const again = outlive({
      visible: false,
      procRoot: proc.root,
      connections: () => 0,
      now: () => now,
    }).then(() => (ended = false))
    await sleep(700)
    expect(ended).to.equal(true)
    now = 60_000
    await again
  })
})
