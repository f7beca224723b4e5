/** The examples of docs/pipelines.md: YAML that is read, settings that the broker accepts, and commands that exist. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { parse } from 'yaml'
import { brokerSchema } from '../../../broker/config.ts'
import { runCli } from '../../../cli/program.ts'

const DOCS = join(import.meta.dirname, '..', '..', '..', 'docs')
const text = readFileSync(join(DOCS, 'pipelines.md'), 'utf8')
const blocks = [...text.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, block = '']) => block)
const documents = blocks.map((block) => parse(block) as Readonly<Record<string, unknown>>)
const find = (key: string): Readonly<Record<string, unknown>> => {
  const found = documents.find((document) => key in document)
  if (found === undefined) throw new Error(`no example has ${key}`)
  return found
}

describe('docs/pipelines.md', () => {
  it('has settings that the broker accepts', () => {
    const base = { tls: { certFile: 'c', keyFile: 'k' }, dataDir: 'd', policyFile: 'p' }
    const { oidc } = brokerSchema.parse({ ...base, ...find('oidc') })
    expect(oidc.map(({ name }) => name)).to.deep.equal(['github', 'gitlab'])
    for (const { requiredClaims } of oidc) expect(requiredClaims).not.to.deep.equal({})
  })

  it('has pipelines that may ask for a token, for an audience that the broker takes', () => {
    expect(find('jobs')['permissions']).to.include({ 'id-token': 'write' })
    expect(find('deploy')).to.have.nested.property(
      'deploy.id_tokens.NESTGATE_ID_TOKEN.aud',
      'nestgate',
    )
  })

  it('has commands that nestgate takes, and what they make is what is said', async () => {
    const commands = [...text.matchAll(/nestgate (kubeconfig --cluster .*?) --out /g)]
    expect(commands).to.have.lengthOf(4)
    for (const [, command = ''] of commands) {
      let out = ''
      let err = ''
      const code = await runCli({
        args: command.split(' '),
        env: { NESTGATE_BROKER_URL: 'https://broker.example:8443' },
        now: Date.now,
        out: (printed) => (out += printed),
        err: (printed) => (err += printed),
      })
      expect([code, err], command).to.deep.equal([0, ''])
      const prefix = command.includes('--approval return') ? '/return' : ''
      expect(out).to.contain(`https://broker.example:8443${prefix}/clusters/prod`)
    }
  })
})
