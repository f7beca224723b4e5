/** `kubectl auth can-i` in an injected pod tells what the agent will really meet: the cluster's answer, and policy's. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import type { Report } from './agents/run.ts'
import {
  agentRuns,
  closeBroker,
  NAMESPACE,
  OTHER_NAMESPACE,
  prepare,
  RESTRICTED,
} from './support.ts'

const canI = (program: string, ...args: string[]): Promise<Report> =>
  agentRuns(RESTRICTED.name, 'planner', { command: [program, 'auth', 'can-i', ...args] })

describe('auth can-i', () => {
  before(prepare)
  after(closeBroker)

  // the newest sends its reviews as protobuf
  for (const program of ['kubectl-old', 'kubectl-new']) {
    it(`says yes to what is allowed (${program})`, async () => {
      const { code, stdout, stderr } = await canI(program, 'get', 'configmaps')
      expect(code, stderr).to.equal(0)
      expect(stdout.trim()).to.equal('yes')
      expect(stderr).not.to.include('nestgate')
    })

    it(`says no to what policy denies, and by which rule (${program})`, async () => {
      const { code, stdout } = await canI(program, 'get', 'secrets')
      expect(code).to.equal(1)
      expect(stdout).to.match(/^no/).and.include('no-secrets')
    })

    it(`says yes to what waits for a person, and that it does (${program})`, async () => {
      const { code, stdout, stderr } = await canI(program, 'delete', 'configmaps')
      expect(code, stderr).to.equal(0)
      expect(stdout).to.match(/^yes/)
      expect(stderr)
        .to.match(/needs approval/)
        .and.include('deletes-wait')
    })

    it(`says no to what the cluster refuses, though policy has nothing against it (${program})`, async () => {
      const { code, stdout } = await canI(program, 'get', 'configmaps', '-n', OTHER_NAMESPACE)
      expect(code).to.equal(1)
      expect(stdout).to.match(/^no/)
    })

    it(`says no to everything at once (${program})`, async () => {
      const { code, stdout } = await canI(program, '*', 'configmaps')
      expect(code, stdout).to.equal(1)
    })

    it(`lists what is left (${program})`, async () => {
      const { code, stdout, stderr } = await canI(program, '--list', '-n', NAMESPACE)
      expect(code, stderr).to.equal(0)
      const configMaps = stdout.split('\n').find((line) => /^configmaps\s/.test(line)) ?? ''
      expect(configMaps)
        .to.match(/\bget\b/)
        .and.match(/\bdelete\b/)
        .and.match(/\bpatch\b/)
      expect(stdout).not.to.match(/^secrets\s/m)
      const services = stdout.split('\n').find((line) => /^services\s/.test(line)) ?? ''
      expect(services)
        .to.match(/\bget\b/)
        .and.not.match(/\bcreate\b/)
      expect(stdout).to.match(/^\s+\[\/version\]/m)
      expect(stderr)
        .to.match(/needs approval/)
        .and.include('deletes-wait')
    })
  }
})
