import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { commandOf, isKubectlProxy, readDeclared } from '../../../../sidecar/caller/declared.ts'
import { makeProcFixture } from '../../../support/proc-fixture.ts'
import type { ProcFixture } from '../../../support/proc-fixture.ts'

describe('commandOf', () => {
  const cases: [string[], string | undefined][] = [
    [['kubectl', 'get', 'pods'], 'kubectl (+2 arguments)'],
    [['/usr/bin/kubectl'], '/usr/bin/kubectl'],
    [['python3', '/app/agent.py'], 'python3 /app/agent.py'],
    [['python3.11', '-u', 'agent.py', '--token', 'hunter2'], 'python3.11 agent.py (+3 arguments)'],
    [['python3', '-c', 'password = "hunter2"'], 'python3 (+2 arguments)'],
    [['bash', '-c', 'curl -H hunter2'], 'bash (+2 arguments)'],
    [['bash', '-ec', 'hunter2'], 'bash (+2 arguments)'],
    [['node', '--enable-source-maps', '/app/main.js'], 'node /app/main.js (+1 arguments)'],
    [['node', '--eval', 'hunter2'], 'node (+2 arguments)'],
    [['node', '--eval=hunter2', 'main.js'], 'node main.js (+1 arguments)'],
    [['node', '-p', 'hunter2'], 'node (+2 arguments)'],
    [['python3', 'https://user:hunter2@host/x'], 'python3 (+1 arguments)'],
    [['postgres: user=hunter2'], '(not shown)'],
    [['curl', '/tmp/hunter2'], 'curl (+1 arguments)'],
    [[''], undefined],
    [[], undefined],
  ]
  for (const [argv, expected] of cases)
    it(`shows ${JSON.stringify(argv)} as ${expected}`, () => {
      expect(commandOf(argv)).to.equal(expected)
      expect(commandOf(argv) ?? '').not.to.contain('hunter2')
    })
})

describe('isKubectlProxy', () => {
  for (const [argv, expected] of [
    [['kubectl', 'proxy', '--port=0'], true],
    [['kubectl', '--v=4', 'proxy'], true],
    [['kubectl', 'get', 'proxy'], false],
    [['kubectl'], false],
  ] as const)
    it(`says ${expected} of ${argv.join(' ')}`, () => {
      expect(isKubectlProxy(argv)).to.equal(expected)
    })
})

describe('readDeclared', () => {
  let proc: ProcFixture

  beforeEach(() => {
    proc = makeProcFixture()
  })
  afterEach(() => {
    proc.delete()
  })

  const names: [string, string | undefined][] = [
    ['scanner', 'scanner'],
    ['Größe 7', 'Größe 7'],
    ['a\nb\u001b[31m', 'ab[31m'],
    ['x'.repeat(500), 'x'.repeat(128)],
    ['', undefined],
  ]
  for (const [name, expected] of names)
    it(`reads the agent name ${JSON.stringify(name.slice(0, 20))}`, () => {
      proc.write('9/environ', `SECRET=hunter2\0AGENT_NAME=${name}\0MY_AGENT_NAME=no\0`)
      proc.write('9/cmdline', 'agent\0')
      expect(readDeclared(`${proc.root}/9`).agentName).to.equal(expected)
    })

  it('tells the script that an interpreter runs', () => {
    proc.write('9/cmdline', '/usr/bin/python3\0-u\0/app/scan.py\0--token=hunter2\0')
    proc.write('9/environ', '')
    expect(readDeclared(`${proc.root}/9`)).to.deep.equal({
      command: '/usr/bin/python3 /app/scan.py (+2 arguments)',
      script: '/app/scan.py',
    })
  })

  it('declares nothing of a process that cannot be read', () => {
    expect(readDeclared(`${proc.root}/9`)).to.deep.equal({})
  })
})
