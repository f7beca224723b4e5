import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { ConfigError } from '../../../shared/config.ts'
import { readWebhookConfig } from '../../../shared/injection/config.ts'
import type { Config } from '../../../shared/injection/config.ts'

describe('the webhook’s configuration', () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'webhook-config-'))
  })
  after(() => {
    rmSync(folder, { recursive: true })
  })

  const least = {
    tls: { certFile: '/tls/tls.crt', keyFile: '/tls/tls.key' },
    sidecar: {
      image: 'i',
      brokerUrl: 'https://broker:8443',
      cluster: 'c1',
      brokerCaFile: '/ca/ca.crt',
    },
  }

  function read(value: object, env: Record<string, string> = {}): Readonly<Config> {
    const file = join(folder, 'config.yaml')
    writeFileSync(file, JSON.stringify(value))
    return readWebhookConfig({ argv: ['--config', file], env })
  }

  function problemsOf(value: object, env: Record<string, string> = {}): readonly string[] {
    try {
      read(value, env)
    } catch (error) {
      if (error instanceof ConfigError) return error.problems
    }
    return []
  }

  it('needs little and fills in the rest', () => {
    const config = read(least)
    expect(config.listen).to.deep.equal({ host: '0.0.0.0', port: 9443 })
    expect(config.sidecar).to.deep.include({ mode: 'auto', imagePullPolicy: 'IfNotPresent' })
    expect(config.sidecar.resources).to.deep.equal({
      requests: { cpu: '10m', memory: '64Mi' },
      limits: { cpu: '500m', memory: '192Mi' },
    })
    expect(config.tokens.expirationSeconds).to.equal(3600)
    expect(config.tokens.apiAudiences).to.include('https://kubernetes.default.svc.cluster.local')
    expect(config.log.level).to.equal('info')
  })

  it('lets variables win', () => {
    const env = { NESTGATE_LISTEN_PORT: '0', NESTGATE_SIDECAR_MODE: 'container', HOME: '/root' }
    const config = read(least, env)
    expect(config.listen.port).to.equal(0)
    expect(config.sidecar.mode).to.equal('container')
  })

  it('tells all problems at once', () => {
    const config = {
      tls: { certFile: '', keyFile: '/k', extra: 1 },
      sidecar: {
        ...least.sidecar,
        brokerUrl: 'http://broker',
        cluster: 'Upper/Case',
        mode: 'sometimes',
        resources: { limits: { cpu: 'much' } },
      },
      tokens: { expirationSeconds: 599, apiAudiences: ['a', 'nestgate-broker'] },
      unknown: true,
    }
    const problems = problemsOf(config, { NESTGATE_TYPO: '1' }).map((line) => line.split(':')[0])
    expect(problems).to.have.members([
      'NESTGATE_TYPO',
      'tls.certFile',
      'tls',
      'sidecar.brokerUrl',
      'sidecar.cluster',
      'sidecar.mode',
      'sidecar.resources.limits.cpu',
      'tokens.expirationSeconds',
      'tokens.apiAudiences',
      'unrecognized key',
    ])
  })

  it('has no key for the command of the sidecar', () => {
    const problems = problemsOf({ ...least, sidecar: { ...least.sidecar, command: ['sh'] } })
    expect(problems).to.have.length(1)
  })
})
